"""--best-checkpoint-metric: a metric that validation has, and the direction in which it gets better."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import SUMMARIZATION, TINY, TRAINING
from fairseq_commands import train

from lsg_fairseq.compat.training import check_direction
from lsg_fairseq.modules.lsg_config import LSGError

MAXIMIZE = "--maximize-best-checkpoint-metric"
ROUGE = ["--eval-rouge", "--eval-rouge-args", '{"beam": 1, "max_len_b": 3}']
REPORTED = "--criterion label_smoothed_cross_entropy --report-accuracy".split()


@pytest.mark.parametrize("metric", ["rouge1", "rougeLsum", "accuracy", "bleu", "f1"])
def test_what_is_better_the_higher_has_to_be_maximized(metric: str) -> None:
    check_direction(metric, maximize=True)
    with pytest.raises(LSGError, match=f"{metric} is better the higher it is: add {MAXIMIZE}"):
        check_direction(metric, maximize=False)


@pytest.mark.parametrize("metric", ["loss", "nll_loss", "ppl"])
def test_what_is_better_the_lower_must_not_be_maximized(metric: str) -> None:
    check_direction(metric, maximize=False)
    with pytest.raises(LSGError, match=f"{metric} is better the lower it is: leave {MAXIMIZE} out"):
        check_direction(metric, maximize=True)


def test_of_an_unknown_metric_the_flag_says_the_direction() -> None:
    check_direction("my_metric", maximize=True)
    check_direction("my_metric", maximize=False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["rougeLsum", MAXIMIZE],
            "rougeLsum is not a metric of this validation, which has .*loss.*ROUGE needs --eval-ro",
        ),
        (["rougeLSum", MAXIMIZE, *ROUGE], "rougeLSum is not a metric of this validation, which has .*rougeLsum"),
        (["accuracy", MAXIMIZE], "accuracy is not a metric of this validation, which has loss, nll_loss, ppl"),
        (["rougeLsum", *ROUGE, "--patience", 2], f"add {MAXIMIZE}"),
        (["loss", MAXIMIZE, "--keep-best-checkpoints", 2], f"leave {MAXIMIZE} out"),
    ],
)
def test_a_wrong_metric_ends_before_training(
    corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, flags: list[object], message: str
) -> None:
    with pytest.raises(LSGError, match=message), caplog.at_level("INFO"):
        train(corpus, *SUMMARIZATION, *TINY, *TRAINING, "--criterion", "label_smoothed_cross_entropy",
              "--save-dir", tmp_path, "--best-checkpoint-metric", *flags)  # fmt: skip
    assert "begin validation" not in caplog.text
    assert not list(tmp_path.glob("*.pt"))


@pytest.mark.parametrize("flags", [["accuracy", MAXIMIZE, *REPORTED], ["ppl"]], ids=str)
def test_a_metric_of_the_criterion_is_taken(corpus: Path, tmp_path: Path, flags: list[str]) -> None:
    train(corpus, *SUMMARIZATION, *TINY, *TRAINING, "--max-update", 1, "--save-dir", tmp_path,
          "--best-checkpoint-metric", *flags)  # fmt: skip
    assert (tmp_path / "checkpoint_best.pt").is_file()


def test_without_validation_nothing_is_asked(corpus: Path, tmp_path: Path) -> None:
    train(corpus, *SUMMARIZATION, *TINY, *TRAINING, "--max-update", 1, "--save-dir", tmp_path,
          "--disable-validation", "--best-checkpoint-metric", "rougeLsum")  # fmt: skip
    assert (tmp_path / "checkpoint_last.pt").is_file()
