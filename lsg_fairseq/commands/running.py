"""What the commands share: an error in one sentence, and signals that clean up."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType

from lsg_fairseq.modules.lsg_config import LSGError


def run_command(program: str, work: Callable[[], None], if_interrupted: str = "nothing was written") -> int:
    """Do the work of a command; returns its exit status, after one sentence on standard error if that is not 0."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)
    logging.basicConfig(format=f"{program}: %(message)s", stream=sys.stderr)
    logging.getLogger("lsg_fairseq").setLevel(logging.INFO)
    try:
        work()
    except BrokenPipeError:
        # Whoever read standard output has gone; Python must not try to flush it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (LSGError, OSError) as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted, {if_interrupted}", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """Unwind, so that everything cleans up, a kill as well as Ctrl-C."""
    # What was half made at this moment (a progress bar in its __init__) would print a page when it is collected.
    sys.unraisablehook = lambda _: None
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)
