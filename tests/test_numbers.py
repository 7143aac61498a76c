"""Numbers on command lines: each has bounds, and what is out of them is one sentence before anything is done."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import fields

import pytest
from fairseq import options
from fairseq.dataclass.utils import convert_namespace_to_omegaconf

from lsg_fairseq.commands import average, convert, plan, preprocess, summarize
from lsg_fairseq.compat.flags import BOUNDS, check_flags
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.weights.limits import MODEL_NUMBERS, NUMBERS, Bounds, check_sizes

# What a command needs besides; nothing of it exists, and nothing is looked at.
NEEDED = {
    average: ["in.pt", "--output", "out.pt"],
    convert: ["in", "out"],
    plan: [],
    preprocess: ["--train", "in.jsonl", "--out", "out"],
    summarize: ["in.jsonl"],
}
ATTENTION = {prefix + field.name for field in fields(LSGConfig) for prefix in ("", "lsg_")}


def numbers_of(command: object) -> list[str]:
    return [action.dest for action in command.build_parser()._actions if action.type in (int, float)]


FLAGS = [(command, name) for command in NEEDED for name in numbers_of(command) if name not in ATTENTION]


@pytest.mark.parametrize("command", NEEDED)
def test_every_number_has_bounds(command: object) -> None:
    assert [name for name in numbers_of(command) if name not in NUMBERS and name not in ATTENTION] == []


# --num-shards and --shard-id are settled with the environment, before: tests/test_shards.py.
@pytest.mark.parametrize(
    ("command", "name"), [pair for pair in FLAGS if not pair[1].startswith(("num_shards", "shard"))]
)
def test_a_number_out_of_bounds_is_one_sentence(command: object, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    bounds, flag = NUMBERS[name], f"--{name.replace('_', '-')}"
    for value in (bounds.least - 1, bounds.most + 1, float("nan") if bounds.kind is float else 10**400):
        assert command.main([*NEEDED[command], f"{flag}={value}"]) == 1
        last = capsys.readouterr().err.splitlines()[-1]
        assert last.startswith(f"{command.PROGRAM}: error: {flag} must be {bounds}, not ")
    assert bounds.allow(bounds.least)
    assert bounds.allow(bounds.most)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), [1], 0.5])
def test_what_is_no_integer(value: object) -> None:
    assert not Bounds(int, 0, 10).allow(value)


@pytest.mark.parametrize("name", MODEL_NUMBERS)
def test_numbers_of_a_model(name: str) -> None:
    bounds = MODEL_NUMBERS[name]
    check_sizes({name: bounds.most})
    for value in (bounds.most + 1, 10**400, "1", [1], {}, float("nan")):
        with pytest.raises(LSGError, match=f"{name} must be {bounds}"):
            check_sizes({name: value})


def test_a_switch_is_no_text() -> None:
    check_sizes({"encoder_normalize_before": False, "share_all_embeddings": 1, "offload_activations": None})
    with pytest.raises(LSGError, match="encoder_normalize_before must be true or false, not 'False'"):
        check_sizes({"encoder_normalize_before": "False"})


# --- fairseq's own flags.


def parsed(make: Callable[[], argparse.ArgumentParser], flags: Sequence[str]) -> argparse.Namespace:
    return options.parse_args_and_arch(make(), ["data", "--arch", "lsg_bart_small", "--lr", "1", *flags])


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--seed=-1", "--seed must be an integer from 0 to 2,147,483,648, not -1"),
        ("--seed=99999999999999999999", "--seed must be an integer"),
        ("--max-update=99999999999999999999", "--max-update must be an integer from"),
        ("--clip-norm=nan", "--clip-norm must be a number, not nan"),
        ("--update-freq=", "--update-freq names no number"),
        ("--update-freq=4,0", "--update-freq must be an integer from 1"),
        ("--log-interval=0", "--log-interval must be an integer from 1"),
        ("--required-batch-size-multiple=0", "--required-batch-size-multiple must be an integer from 1"),
        ("--max-sentences-valid=0", "--batch-size-valid must be an integer from 1"),
        ("--max-valid-steps=-1", "--max-valid-steps must be an integer from 0"),
        ("--adam-betas=(0.9)", "--adam-betas must be two numbers"),
        ("--adam-betas=1,2", "--adam-betas must be two numbers"),
    ],
)
def test_numbers_of_a_training(flag: str, said: str) -> None:
    with pytest.raises(LSGError, match=said):
        parsed(options.get_training_parser, [flag, "--optimizer", "adam"])


def test_numbers_that_trainings_have_pass() -> None:
    flags = ["--adam-betas", "(0.9, 0.98)", "--update-freq", "4,8", "--max-tokens", "4096", "--optimizer", "adam"]
    assert parsed(options.get_training_parser, flags).update_freq == [4, 8]
    check_flags(argparse.Namespace(**{name: bounds.least for name, bounds in BOUNDS.items()}))
    check_flags(argparse.Namespace(anything=-5, loss=float("inf"), text="nan", lists=[], switch=True))


@pytest.mark.parametrize("text", ["'", "nan", "1e400", "x" * 200])
def test_a_list_that_is_none_is_a_usage_error(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(options.get_training_parser, [f"--update-freq={text}"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert "argument --update-freq: " in last
    assert "is no list of numbers, such as 4 or 4,8" in last


@pytest.mark.parametrize("text", ["x", "nan", "'", "__import__('os')", "[1]", "{}"])
def test_a_value_of_another_kind_is_one_sentence(text: str, caplog: pytest.LogCaptureFixture) -> None:
    flags = parsed(options.get_training_parser, [f"--max-sentences-valid={text}"])
    with pytest.raises(LSGError, match="--batch-size-valid cannot be "):
        convert_namespace_to_omegaconf(flags)
    assert "Overrides" not in caplog.text
