"""What the commands share: errors in one sentence, clean-up on signals, --user-dir, and bounds of numbers."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import traceback
from argparse import Namespace
from collections.abc import Callable
from types import FrameType

from fairseq import utils

from lsg_fairseq.compat.commands import escape_names
from lsg_fairseq.data.one_sentence import sentence_of, wants_traceback
from lsg_fairseq.data.signals import STOP_SIGNALS, Stopped
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import NUMBERS, check_number


def run_command(program: str, work: Callable[[], None], if_interrupted: str = "nothing was written") -> int:
    """Do the work of a command and return its exit status; if that is not 0, one sentence on standard error says why.

    Args:
        program: the command's name, with which messages begin.
        if_interrupted: what the user is told if a signal ends the work.
    """
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    escape_names()
    logging.basicConfig(format=f"{program}: %(message)s", stream=sys.stderr)
    logging.getLogger("lsg_fairseq").setLevel(logging.INFO)
    try:
        work()
    except BrokenPipeError:
        # The reader of standard output is gone; Python must not try to flush it at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except KeyboardInterrupt as error:
        stopped = error if isinstance(error, Stopped) else Stopped(signal.SIGINT)
        how = "interrupted" if stopped.number == signal.SIGINT else "terminated"
        print(f"{program}: {how}, {stopped.done or if_interrupted}", file=sys.stderr)
        return 128 + stopped.number
    except Exception as error:
        if wants_traceback():
            traceback.print_exc()
        print(f"{program}: error: {sentence_of(error)}", file=sys.stderr)
        return 1
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise Stopped, so that context managers clean up, for SIGTERM as well as Ctrl-C."""
    # The destructor of a half-constructed object (a progress bar in its __init__) would print a traceback.
    sys.unraisablehook = lambda _: None
    raise Stopped(number)


FLAG = "--user-dir"


def add_user_dir_flag(parser: argparse._ActionsContainer) -> None:
    """Add the flag; a user_dir that a checkpoint names is never imported."""
    parser.add_argument(
        FLAG,
        metavar="DIR",
        help="your own package, which is imported first, as by fairseq-train: its code is executed",
    )


def import_user_dir(args: argparse.Namespace) -> None:
    """Import the package of --user-dir, if it is given, as fairseq's commands do.

    Raises:
        LSGError: it does not exist, or cannot be imported.
    """
    if args.user_dir is None:
        return
    try:
        utils.import_user_module(Namespace(user_dir=args.user_dir))
    except LSGError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise LSGError(f"{FLAG} {args.user_dir} cannot be imported ({reason}): fix it, or leave it out") from error


def check_numbers(args: argparse.Namespace) -> None:
    """Check every number that a command was given against its bounds in weights/limits.py.

    Raises:
        LSGError: one is out of range.
    """
    for name, value in vars(args).items():
        if name in NUMBERS and value is not None:
            check_number(name, value, called=f"--{name.replace('_', '-')}")
