"""Numbers on a command line: the bounds of each flag are in weights/limits.py."""

from __future__ import annotations

import argparse

from lsg_fairseq.weights.limits import NUMBERS, check_number


def check_numbers(args: argparse.Namespace) -> None:
    """Check every number that a command was given.

    Raises:
        LSGError: one is out of range.
    """
    for name, value in vars(args).items():
        if name in NUMBERS and value is not None:
            check_number(name, value, called=f"--{name.replace('_', '-')}")
