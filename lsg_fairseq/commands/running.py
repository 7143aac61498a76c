"""What the commands share: an error in one sentence, signals that clean up, and --user-dir."""

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

from lsg_fairseq.data.one_sentence import sentence_of, wants_traceback
from lsg_fairseq.data.signals import STOP_SIGNALS, Stopped
from lsg_fairseq.modules.lsg_config import LSGError


def run_command(program: str, work: Callable[[], None], if_interrupted: str = "nothing was written") -> int:
    """Do the work of a command; returns its exit status, after one sentence on standard error if that is not 0."""
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    logging.basicConfig(format=f"{program}: %(message)s", stream=sys.stderr)
    logging.getLogger("lsg_fairseq").setLevel(logging.INFO)
    try:
        work()
    except BrokenPipeError:
        # Whoever read standard output has gone; Python must not try to flush it once more.
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
    """Unwind, so that everything cleans up, a kill as well as Ctrl-C."""
    # What was half made at this moment (a progress bar in its __init__) would print a page when it is collected.
    sys.unraisablehook = lambda _: None
    raise Stopped(number)


FLAG = "--user-dir"


def add_user_dir_flag(parser: argparse._ActionsContainer) -> None:
    """Add the flag; what a checkpoint says about a user_dir is never looked at."""
    parser.add_argument(
        FLAG,
        metavar="DIR",
        help="a package of your own that is imported first, as by fairseq-train: it is code, and it runs",
    )


def import_user_dir(args: argparse.Namespace) -> None:
    """Import the package, the way that fairseq's own commands do, if one is named.

    Raises:
        LSGError: it is not there, or cannot be imported.
    """
    if args.user_dir is None:
        return
    try:
        utils.import_user_module(Namespace(user_dir=args.user_dir))
    except FileNotFoundError as error:
        raise LSGError(f"{FLAG} {args.user_dir} does not exist: name the folder of a Python package") from error
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise LSGError(f"{FLAG} {args.user_dir} cannot be imported ({reason}): mend it, or leave it out") from error
