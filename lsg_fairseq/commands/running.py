"""What the commands share: an error in one sentence, and signals that clean up."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

from lsg_fairseq.modules.lsg_config import LSGError


def run_command(program: str, work: Callable[[], None]) -> int:
    """Do the work of a command that writes everything or nothing; returns its exit status."""
    # A kill must clean up as Ctrl-C does.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        work()
    except (LSGError, OSError) as error:
        print(f"{program}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{program}: interrupted, nothing was written", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0
