"""What the commands share: an error in one sentence, and signals that clean up."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from types import FrameType

from lsg_fairseq.compat.commands import escape_names
from lsg_fairseq.data.one_sentence import sentence_of, wants_traceback
from lsg_fairseq.data.signals import STOP_SIGNALS, Stopped


def run_command(program: str, work: Callable[[], None], if_interrupted: str = "nothing was written") -> int:
    """Do the work of a command; returns its exit status, after one sentence on standard error if that is not 0."""
    for number in STOP_SIGNALS:
        signal.signal(number, _stop)
    escape_names()
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
