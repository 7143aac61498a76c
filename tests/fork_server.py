"""Commands in processes of their own that need not import torch and fairseq again: forked from one that has.

Most of a tiny training is the start of Python, torch and fairseq: 4 of 5 seconds. The server imports stock packages
alone, and a forked child runs the command's own script from there, with its own arguments, folder, environment and
files; the plugin is imported by the child. `make test-all` starts every command afresh instead (LSG_TEST_FRESH=1).
"""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import os
import runpy
import select
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

TIMEOUT_S = 300
STOCK = (
    *(f"fairseq_cli.{name}" for name in ("train", "generate", "interactive", "validate")),
    *("safetensors.torch", "tokenizers", "sentencepiece"),
)


class Finished(NamedTuple):
    """A command that has ended."""

    returncode: int
    printed: str


class ForkServer:
    """A process that forks one command at a time; started with the first of them."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[str] | None = None

    def run(self, command: list[str], cwd: Path | None, stdin: str | None, env: dict[str, str]) -> Finished:
        """Run a Python script with its arguments; both streams as they end up one behind the other."""
        with tempfile.TemporaryDirectory() as scratch:
            streams = {name: str(Path(scratch, name)) for name in ("stdin", "stdout", "stderr")}
            Path(streams["stdin"]).write_text(stdin or "")
            request = {"command": command, "cwd": str(cwd or Path.cwd()), "env": env, "streams": streams}
            returncode = self._ask(request)
            printed = "".join(Path(streams[name]).read_text(errors="replace") for name in ("stdout", "stderr"))
        return Finished(returncode, printed)

    def close(self) -> None:
        """End the server."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)  # and what it has forked
            self.process.communicate()
            self.process = None

    def _ask(self, request: dict[str, Any]) -> int:
        if self.process is None or self.process.poll() is not None:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
            self.process = subprocess.Popen([sys.executable, __file__], env=request["env"], **pipes)
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], TIMEOUT_S)
        answer = self.process.stdout.readline() if ready else ""
        if not answer:
            self.close()
            raise TimeoutError(f"no answer within {TIMEOUT_S} s to {request['command']}")
        return int(answer)


def next_request() -> dict[str, Any]:
    """Answer requests; returns in a child, with what it has to run, and ends the server at the end of its input."""
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            return json.loads(line)
        _, status = os.waitpid(child, 0)
        os.write(1, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    raise SystemExit


def become(request: dict[str, Any]) -> str:
    """Take on the folder, environment, streams and arguments of a command; its script."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    modes = {"stdin": os.O_RDONLY, "stdout": os.O_WRONLY | os.O_CREAT, "stderr": os.O_WRONLY | os.O_CREAT}
    for number, (name, mode) in enumerate(modes.items()):
        os.dup2(os.open(request["streams"][name], mode), number)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.argv = request["command"]
    sys.path[0] = str(Path(sys.argv[0]).parent)
    return sys.argv[0]


def import_ahead() -> None:
    """What commands spend their start on; nothing of this repository."""
    logging.disable()
    for name in STOCK:
        importlib.import_module(name)
    # fairseq's commands set logging up when they are imported, for the standard output of that time.
    logging.disable(logging.NOTSET)
    logging.root.handlers.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "fairseq_cli"]:
        del sys.modules[name]


if __name__ == "__main__":
    import_ahead()
    # In the child, at the top of the interpreter: an exception or an exit ends it as it ends any script.
    runpy.run_path(become(next_request()), run_name="__main__")
