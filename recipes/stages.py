"""Commands of this project and of fairseq as stages that are not repeated; used by needle.py and manpages/."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError

# fairseq's name for the lines in which fairseq-train says how far it is.
PROGRESS = "| train_inner |"


class Stages:
    """Commands run one after another in a folder, each only once: what they printed and their seconds are kept.

    NAME.json says that stage NAME is finished, with its command and seconds; NAME.log is what it printed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished: dict[str, dict[str, object]] = {}

    def run(
        self,
        name: str,
        needs: str | None,
        *command: object,
        check: Callable[[str], object] | None = None,
        resumes: bool = False,
    ) -> str:
        """Run a command unless the same one was finished before, and after what it `needs`; returns what it printed.

        Args:
            needs: the stage (or any NAME.json) that it follows from; None: nothing that could be newer.
            check: sees what was printed before the stage counts as finished, and raises LSGError if that will not do.
            resumes: a run goes on where an earlier one was stopped, so its seconds are those of both.

        Raises:
            LSGError: `check` refused; the stage is not finished, and the same call runs it again.
            SystemExit: it failed.
        """
        words = [str(part) for part in command]
        record = self._read(f"{name}.json") if self._follows(name, needs) else {}
        is_finished = record.get("command") == words
        if not is_finished:
            (self.folder / f"{name}.json").unlink(missing_ok=True)
            record = {"command": words, "seconds": self._timed(name, words, resumes)}
        printed = (self.folder / f"{name}.log").read_text(encoding="utf-8")
        if check:
            self._checked(name, check, printed)
        if not is_finished:
            self._write(f"{name}.json", record)
            (self.folder / f"{name}.stopped.json").unlink(missing_ok=True)
            print(f"{name}: {record['seconds']:.0f} s", flush=True)
        self.finished[name] = {"seconds": record["seconds"], "command": shlex.join(words)}
        return printed

    def forget(self, name: str) -> None:
        """Let a stage begin anew, whatever was finished of it."""
        for record in (f"{name}.json", f"{name}.stopped.json"):
            (self.folder / record).unlink(missing_ok=True)

    def _follows(self, name: str, needs: str | None) -> bool:
        """Whether the stage was finished, and after what it needs."""
        done = self.folder / f"{name}.json"
        if not done.exists() or needs is None:
            return done.exists()
        return done.stat().st_mtime >= (self.folder / f"{needs}.json").stat().st_mtime

    def _checked(self, name: str, check: Callable[[str], object], printed: str) -> None:
        try:
            check(printed)
        except LSGError:
            self.forget(name)
            raise

    def _timed(self, name: str, command: list[str], resumes: bool) -> float:
        """Run the command; the seconds that it took, with those of runs that were stopped if it went on with them."""
        stopped = self._read(f"{name}.stopped.json") if resumes else {}
        before = float(stopped["seconds"]) if stopped.get("command") == command else 0.0
        start = time.perf_counter()
        try:
            if self._run(name, command):
                sys.exit(f"{name} failed; its output is in {self.folder / name}.log")
        except BaseException:
            if resumes:
                seconds = round(before + time.perf_counter() - start, 1)
                self._write(f"{name}.stopped.json", {"command": command, "seconds": seconds})
            raise
        return round(before + time.perf_counter() - start, 1)

    def _run(self, name: str, command: list[str]) -> int:
        # Threads that spin while they wait make training several times slower as soon as anyone else uses a core.
        env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        program = str(Path(sys.executable).parent / command[0])
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
        with (
            (self.folder / f"{name}.log").open("w", encoding="utf-8") as file,
            subprocess.Popen([program, *command[1:]], cwd=self.folder, env=env, **pipe) as process,
        ):
            try:
                for line in process.stdout:
                    file.write(line)
                    if PROGRESS in line:
                        print(f"{name}: {progress(line, command)}", flush=True)
            except BaseException:  # whoever stops this must not wait for hours of training
                process.terminate()
                raise
        return process.returncode

    def _read(self, name: str) -> dict[str, object]:
        path = self.folder / name
        return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}

    def _write(self, name: str, record: dict[str, object]) -> None:
        with staged_output(self.folder) as aside:
            (aside / name).write_text(json.dumps(record), encoding="utf-8")


def progress(line: str, command: Sequence[str]) -> str:
    """What a progress line of fairseq-train says, for people; `command` may say how many updates there will be."""
    said = line.split(PROGRESS)[1].split(", wps")[0].strip()
    if not said.startswith("{"):
        return said
    try:
        values = json.loads(line.split(PROGRESS)[1])
    except ValueError:  # torn by what went to the other stream
        return said
    flags = dict(pairwise(command))
    of = f" of {flags['--max-update']}" if "--max-update" in flags else ""
    parts = [f"update {values.get('num_updates', '?')}{of}", f"loss {values.get('loss', '?')}"]
    return ", ".join(parts + ([f"{values['ups']} updates/s"] if "ups" in values else []))
