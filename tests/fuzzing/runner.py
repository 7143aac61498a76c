"""A case in a forked child with limits, what came of it, and the report of many."""

from __future__ import annotations

import atexit
import contextlib
import io
import logging
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

SECONDS, MEBIBYTES = 60, 2560
# Address space beyond that of the parent: what is asked for above it ends in the sentence NO_MEMORY, which is a fault.
ADDRESS_SPACE = (MEBIBYTES + 1024) << 20
NO_MEMORY = "there is not enough memory"
UNFORESEEN = "something unexpected"


@dataclass
class Case:
    """A mutated input: its kind, what was done to it, and how it is used.

    `out` is what must not be there after an error; `result` reads what a run gave, and `sound` gives that of the input
    as it was.
    """

    kind: str
    label: str
    run: Callable[[], int]
    out: Path | None = None
    result: Callable[[str], str] | None = None
    sound: Callable[[], str] | None = None


@dataclass
class Outcome:
    """What came of a case; `mebibytes` is the largest resident set of its processes, or of all of them together."""

    case: Case
    status: int
    printed: str
    seconds: float
    mebibytes: int
    timed_out: bool = False
    ran_code: bool = False
    left: str = ""

    @property
    def fault(self) -> str:
        """What is wrong with it, "" if nothing is."""
        found = {
            "a traceback": "Traceback (most recent call last)" in self.printed or "panicked at" in self.printed,
            "code was run": self.ran_code,
            f"over {SECONDS} s": self.timed_out,
            f"over {MEBIBYTES} MiB": self.mebibytes > MEBIBYTES or NO_MEMORY in self.printed,
            f"ended by signal {-self.status}": self.status < 0 and not self.timed_out,
            "no sentence": self.status > 0 and not self.sentence and not self.timed_out,
            f"left {self.left}": bool(self.left),
        }
        return ", ".join(name for name, is_so in found.items() if is_so)

    @property
    def sentence(self) -> str:
        """The line that says what is wrong."""
        return next((line for line in reversed(self.printed.splitlines()) if "error: " in line), "")

    @property
    def line(self) -> str:
        """The case and its last line of output."""
        last = self.sentence if self.status else (self.printed.strip().splitlines() or [""])[-1]
        return (
            f"{self.case.kind}: {self.case.label} | {self.status}, {self.seconds:.1f} s, {self.mebibytes} MiB | "
            f"{last[:400]}"
        )

    @property
    def reason(self) -> str:
        """Why an accepted input was accepted."""
        if self.case.result is None or self.case.sound is None:
            return "a value that is allowed"
        same = self.case.result(self.printed) == self.case.sound()
        return "the output is that of the unchanged input" if same else "other content that is allowed, another output"


@dataclass
class Report:
    """All outcomes of a run."""

    outcomes: list[Outcome] = field(default_factory=list)
    reasons: dict[int, str] = field(default_factory=dict)

    def add(self, outcome: Outcome) -> None:
        """Note an outcome while the files that it wrote are still there."""
        if outcome.status == 0 and not outcome.fault:
            self.reasons[len(self.outcomes)] = outcome.reason
        self.outcomes.append(outcome)

    @property
    def faults(self) -> list[str]:
        return [f"{outcome.fault}: {outcome.line}" for outcome in self.outcomes if outcome.fault]

    def summary(self) -> str:
        """Counts, the accepted ones with their reason, and the sentences that name no cause of their own."""
        unforeseen = [outcome.line for outcome in self.outcomes if UNFORESEEN in outcome.printed]
        kinds = Counter(outcome.case.kind for outcome in self.outcomes)
        accepted = Counter(self.reasons.values())
        parts = [
            f"{len(self.outcomes)} mutated inputs: {len(self.faults)} faults, {len(self.reasons)} accepted, "
            f"{len(unforeseen)} refused as unexpected, the others by a sentence of their own; "
            f"slowest {max(outcome.seconds for outcome in self.outcomes):.1f} s, "
            f"largest {max(outcome.mebibytes for outcome in self.outcomes)} MiB",
            "kinds: " + ", ".join(f"{kind} {count}" for kind, count in sorted(kinds.items())),
            *(f"accepted: {count}: {reason}" for reason, count in sorted(accepted.items())),
            *(f"accepted ({reason}): {self.outcomes[number].line}" for number, reason in self.reasons.items()),
            *(f"unexpected: {line}" for line in unforeseen),
            *(f"FAULT {line}" for line in self.faults),
        ]
        return "\n".join(parts)


def run_case(case: Case, canary: Path) -> Outcome:
    """Run a case in a child of this process; the canary is the file that code in an input would make."""
    sys.stdout.flush()
    sys.stderr.flush()
    with tempfile.TemporaryFile() as output:
        start = time.monotonic()
        if (child := os.fork()) == 0:
            _be_child(case, output.fileno())
        together, timed_out, looked = 0, False, start
        while not (waited := os.wait4(child, os.WNOHANG))[0]:
            now = time.monotonic()
            if now - start > SECONDS:
                timed_out = True
                os.killpg(child, signal.SIGKILL)
                waited = os.wait4(child, 0)
                break
            if now - looked > 0.5:
                together, looked = max(together, _resident(child)), now
            time.sleep(0.005)
        seconds = time.monotonic() - start
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        output.seek(0)
        printed = output.read().decode("utf-8", "replace")
    ran_code = canary.exists()
    canary.unlink(missing_ok=True)
    status = os.waitstatus_to_exitcode(waited[1])
    mebibytes = max(waited[2].ru_maxrss >> 10, together)
    left = "" if timed_out else _left_by(case, status)
    return Outcome(case, status, printed, seconds, mebibytes, timed_out, ran_code, left)


def _resident(group: int) -> int:
    """MiB that the processes of a group take together, what they share counted once."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[2]) == group:
                total += int(
                    next(x for x in (folder / "smaps_rollup").read_text().splitlines() if "Pss:" in x).split()[1]
                )
    return total >> 10


def _left_by(case: Case, status: int) -> str:
    if case.out is None:
        return ""
    half_made = [path.name for path in case.out.parent.glob(".*.partial-*")]
    return ", ".join([*half_made, *([case.out.name] if status and case.out.exists() else [])])


def _be_child(case: Case, output: int) -> None:
    status = 70
    try:
        atexit._clear()  # what the parent does at its end
        os.setpgid(0, 0)
        for number in (1, 2):
            os.dup2(output, number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdin = io.TextIOWrapper(os.fdopen(os.dup(0), "rb"))
        sys.stdout, sys.stderr = (
            io.TextIOWrapper(os.fdopen(n, "wb", closefd=False), line_buffering=True) for n in (1, 2)
        )
        sys.excepthook = sys.__excepthook__
        logging.getLogger().handlers = []
        limit = (_address_space() + ADDRESS_SPACE,) * 2
        resource.setrlimit(resource.RLIMIT_AS, limit)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))
        torch.set_num_threads(1)
        status = case.run() or 0
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else int(error.code is not None)
        print(error.code if isinstance(error.code, str) else "", file=sys.stderr)
    except BaseException:
        status = 71
        sys.excepthook(*sys.exc_info())
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


def _address_space() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
