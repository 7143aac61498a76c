"""fairseq-validate: on several processes, and of checkpoints that were not trained in fairseq."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import SUMMARIZATION, run
from fairseq_commands import validate

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.compat.training import criterion_of, skip_empty_samples
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationTask
from lsg_fairseq.tasks.summarization_config import LSGSummarizationConfig

FLAGS = [*SUMMARIZATION, "--cpu", "--num-workers", 0, "--batch-size", 2, "--log-format", "json"]
LOSS = re.compile(r'"valid_loss": "([\d.]+)"')


def test_batches_without_examples_are_skipped(corpus: Path) -> None:
    task = LSGSummarizationTask.setup_task(LSGSummarizationConfig(data=str(corpus)))
    skip_empty_samples(task)
    assert task.valid_step({}, None, None) == (0.0, 0, {})
    assert task.valid_step(None, None, None)[1] == 0
    with pytest.raises(LSGError, match="summaries"):  # the task's own valid_step
        task.valid_step({"target": None}, None, None)


@pytest.mark.slow
def test_more_processes_than_batches_fit(corpus: Path, checkpoints: Path) -> None:
    """5 examples in batches of 2 are 3 batches: the second of two processes gets one, and an empty one."""
    flags = [corpus, *FLAGS, "--path", checkpoints / "checkpoint_best.pt"]
    alone = set(LOSS.findall(run("fairseq-validate", *flags)))
    assert set(LOSS.findall(run("fairseq-validate", *flags, "--distributed-world-size", 2))) == alone
    assert len(alone) == 1


def test_criterion_of_flags() -> None:
    assert criterion_of({}) == {"_name": "cross_entropy", "sentence_avg": False}
    smoothed = criterion_of({"criterion": "label_smoothed_cross_entropy", "label_smoothing": 0.2, "beam": 7})
    assert smoothed == {"_name": "label_smoothed_cross_entropy", "label_smoothing": 0.2, "sentence_avg": False}


def test_a_converted_checkpoint_has_the_loss_of_its_training(
    corpus: Path, checkpoints: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = checkpoints / "checkpoint_best.pt"
    convert_checkpoint(best, tmp_path / "out", tokenizer=corpus / "tokenizer")
    losses = []
    for path in (best, tmp_path / "out" / "model.pt"):
        capsys.readouterr()
        validate(corpus, *FLAGS, "--path", path)
        losses.append(LOSS.findall(capsys.readouterr().out))
    # How often a line is printed depends on who set logging up before.
    assert set(losses[0]) == set(losses[1])
    assert len(losses[0]) == 1
