"""`make fuzz`: a thousand mutated inputs end in a sentence or are accepted for a reason (docs/promises.md)."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from fuzzing.bases import Bases, make_bases
from fuzzing.fuzzer import Fuzzer
from fuzzing.runner import MEBIBYTES, NO_MEMORY, Case, Outcome, run_case
from fuzzing.uses import hub_call

CASES, SEED = int(os.environ.get("FUZZ_CASES", 1000)), int(os.environ.get("FUZZ_SEED", 1))


@pytest.fixture(scope="module")
def bases(corpus: Path, checkpoints: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Bases:
    return make_bases(corpus, checkpoints, pretrained, tmp_path_factory.mktemp("fuzz-bases"))


def outcome_of(work, tmp_path: Path, **case: object) -> Outcome:
    return run_case(Case("call", "", work, **case), tmp_path / "canary")


@pytest.mark.parametrize(
    ("work", "fault"),
    [
        (hub_call(lambda: 1 / 0), "a traceback"),
        (lambda: os.kill(os.getpid(), 9), "signal 9"),
        (lambda: os._exit(3), "no sentence"),
        (lambda: print(f"error: {NO_MEMORY}") or 1, f"over {MEBIBYTES} MiB"),
        (lambda: print("fine"), ""),
    ],
)
def test_faults_are_seen(work, fault: str, tmp_path: Path) -> None:
    found = outcome_of(work, tmp_path).fault
    assert fault in found if fault else not found


def test_code_and_leftovers_are_seen(tmp_path: Path) -> None:
    assert "code was run" in outcome_of((tmp_path / "canary").touch, tmp_path).fault
    out = tmp_path / "out"
    assert "left out" in outcome_of(lambda: out.mkdir() or 1, tmp_path, out=out).fault


def test_memory_is_measured(tmp_path: Path) -> None:
    """The largest resident set of a process, and that of two together."""

    def alone() -> None:
        bytes_of(300)

    def together() -> None:
        os.fork()
        held = bytes_of(400)
        time.sleep(2)
        del held

    base = outcome_of(lambda: None, tmp_path).mebibytes
    assert outcome_of(alone, tmp_path).mebibytes > base + 250
    # More than one of them has; what both share with this process counts a third for each.
    assert outcome_of(together, tmp_path).mebibytes > base + 500


def bytes_of(mebibytes: int) -> bytes:
    return b"x" * (mebibytes << 20)


@pytest.mark.slow
def test_mutated_inputs_end_in_a_sentence(bases: Bases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # an output named "7" or "x" is made in here
    report = Fuzzer(bases, tmp_path, SEED).report(CASES)
    print(report.summary())
    assert report.faults == []
