"""`make fuzz`: a thousand mutated inputs end in a sentence or are accepted for a reason (docs/promises.md)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from fuzz import MEBIBYTES, Bases, Case, Fuzzer, Outcome, hub_call, run_case
from hub_checkpoints import lively_copy

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint

CASES, SEED = int(os.environ.get("FUZZ_CASES", 1000)), int(os.environ.get("FUZZ_SEED", 1))


@pytest.fixture(scope="module")
def bases(corpus: Path, checkpoints: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Bases:
    folder = tmp_path_factory.mktemp("fuzz-bases")
    trained = lively_copy(checkpoints, folder / "trained")
    convert_checkpoint(trained / "checkpoint_best.pt", folder / "converted", tokenizer=corpus / "tokenizer")
    export_checkpoint(folder / "converted", folder / "hf")
    (folder / "encoder").mkdir()
    shutil.copy(pretrained / "checkpoint_best.pt", folder / "encoder")
    shutil.copytree(corpus, folder / "data")
    names = ("hf", "converted", "trained", "encoder", "data")
    return Bases(*(folder / name for name in names), Path(shutil.copy(corpus.parent / "valid.jsonl", folder)))


@pytest.mark.parametrize(
    ("work", "fault"),
    [
        (lambda: 1 / 0, "a traceback"),
        (lambda: os.kill(os.getpid(), 9), "signal 9"),
        (lambda: os._exit(3), "no sentence"),
    ],
)
def test_faults_are_seen(work, fault: str, tmp_path: Path) -> None:
    assert fault in run_case(Case("call", "", hub_call(work)), tmp_path / "canary").fault


def test_code_is_seen(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    assert "code was run" in run_case(Case("call", "", hub_call(canary.touch)), canary).fault
    outcome = Outcome(Case("call", "", lambda: 0), 0, "", 0.0, MEBIBYTES + 1)
    assert outcome.fault == f"over {MEBIBYTES} MiB"


@pytest.mark.slow
def test_mutated_inputs_end_in_a_sentence(bases: Bases, tmp_path: Path) -> None:
    report = Fuzzer(bases, tmp_path, SEED).report(CASES)
    print(report.summary())
    assert report.faults == []
