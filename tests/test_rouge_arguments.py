"""--eval-rouge-args: every name and value that would have no effect, or end validation, is one sentence before it."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from fairseq.dataclass.configs import GenerationConfig
from fairseq.tasks import FairseqTask

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.rouge_validation import SETTINGS, parse_rouge_arguments


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beams": 1}, "has no setting 'beams'; did you mean 'beam'"),
        ({"max-len-b": 3}, "write 'max-len-b' with underscores: 'max_len_b'"),
        ({"--beam": 3}, "write '--beam' with underscores: 'beam'"),
        ({"nbest": 2}, "has no setting 'nbest'"),
        ({"score_reference": True}, "has no setting 'score_reference'"),
        ({"beam": "4"}, 'beam must be an integer from 1 to 1,000, not "4"'),
        ({"beam": 0}, "beam must be an integer from 1 to 1,000, not 0"),
        ({"beam": True}, "beam must be an integer from 1 to 1,000, not true"),
        ({"max_len_b": 2.5}, "max_len_b must be an integer"),
        ({"lenpen": None}, "lenpen must be a number from -50 to 50, not null"),
        ({"lenpen": float("nan")}, "lenpen must be a number"),
        ({"sampling": 1}, "sampling must be true or false, not 1"),
        ({"print_alignment": "firm"}, 'print_alignment must be "hard" or "soft"'),
        ({"sampling_topk": 5}, 'sampling_topk needs "sampling": true'),
        ({"sampling": True, "diverse_beam_groups": 2}, "sampling and diverse_beam_groups exclude each other"),
        ({"diverse_beam_groups": 2}, r"diverse_beam_groups \(2\) must divide beam \(5\)"),
        ({"min_len": 30, "max_len_b": 20}, r"min_len \(30\) must not be greater than max_len_b \(20\)"),
    ],
)
def test_what_has_no_effect_is_one_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LSGError, match=f"--eval-rouge-args:? ?{message}"):
        parse_rouge_arguments(json.dumps(settings))


@pytest.mark.parametrize("text", ["{beam: 2}", "[]", "4", ""])
def test_what_is_no_object_is_one_sentence(text: str) -> None:
    with pytest.raises(LSGError, match=r"--eval-rouge-args (is not JSON|must be a JSON object)"):
        parse_rouge_arguments(text)


def test_settings_that_fit_are_taken() -> None:
    settings = {"beam": 4, "lenpen": 2, "max_len_a": 0.5, "max_len_b": 20, "min_len": 3, "no_repeat_ngram_size": 3}
    settings |= {"forced_eos": True, "forced_first_token": "<s>", "unnormalized": False, "print_alignment": "soft"}
    assert parse_rouge_arguments(json.dumps(settings)) == settings


def test_every_setting_that_is_taken_is_read() -> None:
    """By fairseq's build_generator, or by this task's."""
    from lsg_fairseq.tasks.lsg_summarization import LSGSummarizationTask

    read = "".join(inspect.getsource(task) for task in (FairseqTask.build_generator, LSGSummarizationTask))
    assert [name for name in SETTINGS if f'"{name}"' not in read] == []
    fairseqs_own = {name for name in SETTINGS if not name.startswith("forced")}
    assert fairseqs_own <= set(vars(GenerationConfig()))
