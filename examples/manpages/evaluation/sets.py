"""Which sets of pages are scored: both test sets, unless others are named, as for choices that must not see those."""

from __future__ import annotations

import argparse
from collections.abc import Collection

from examples.manpages.corpus.records import EVALUATED, TEST_SETS


def add_sets(parser: argparse.ArgumentParser) -> None:
    """Add --sets."""
    default = " ".join(TEST_SETS)
    parser.add_argument("--sets", nargs="+", choices=EVALUATED, default=TEST_SETS, help=f"default: {default}")


def in_order(sets: Collection[str]) -> tuple[str, ...]:
    """The sets, each once, in an order that does not depend on the command line."""
    return tuple(name for name in EVALUATED if name in sets)
