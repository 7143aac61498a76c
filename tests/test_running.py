"""What the commands do when somebody stops them, whatever they are in the middle of."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

HALF_MADE = """
import os, sys
from lsg_fairseq.commands.running import run_command

class Bar:
    def __init__(self):
        os.kill(os.getpid(), {number})
        self.position = 0

    def __del__(self):
        self.position += 1

sys.exit(run_command("program", Bar))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_is_half_made_does_not_complain(number: signal.Signals) -> None:
    code = HALF_MADE.format(number=int(number))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 128 + number
    how = "interrupted" if number == signal.SIGINT else "terminated"
    assert done.stderr == f"program: {how}, nothing was written\n"
