"""Commands of this project and of fairseq as stages that are not repeated; used by needle.py and manpages/."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path


class Stages:
    """Commands run one after another in a folder, each only once: what they printed and their seconds are kept."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.finished: dict[str, dict[str, object]] = {}

    def run(self, name: str, needs: str, *command: object) -> str:
        """Run a command unless the same one was finished before, and after what it `needs`; returns what it printed.

        Raises:
            SystemExit: it failed.
        """
        command = [str(part) for part in command]
        log, done = (self.folder / f"{name}.{suffix}" for suffix in ("log", "json"))
        fresh = done.exists() and done.stat().st_mtime >= (self.folder / f"{needs}.json").stat().st_mtime
        record = json.loads(done.read_text()) if fresh else {}
        if record.get("command") != command:
            done.unlink(missing_ok=True)
            start = time.perf_counter()
            if self._run(name, command, log):
                sys.exit(f"{name} failed; its output is in {log}")
            record = {"command": command, "seconds": round(time.perf_counter() - start, 1)}
            done.write_text(json.dumps(record))
            print(f"{name}: {record['seconds']:.0f} s", flush=True)
        self.finished[name] = {"seconds": record["seconds"], "command": shlex.join(command)}
        return log.read_text(encoding="utf-8")

    def _run(self, name: str, command: list[str], log: Path) -> int:
        # Threads that spin while they wait make training several times slower as soon as anyone else uses a core.
        env = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
        program = str(Path(sys.executable).parent / command[0])
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "encoding": "utf-8"}
        with (
            log.open("w", encoding="utf-8") as file,
            subprocess.Popen([program, *command[1:]], cwd=self.folder, env=env, **pipe) as process,
        ):
            try:
                for line in process.stdout:
                    file.write(line)
                    if "| train_inner |" in line:
                        print(f"{name}: {line.split('|')[-1].split(', wps')[0].strip()}", flush=True)
            except BaseException:  # whoever stops this must not wait for hours of training
                process.terminate()
                raise
        return process.returncode
