"""generation.json beside --path: what is read, what is refused, and that what the user chose wins."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from fairseq import checkpoint_utils
from fairseq.dataclass.configs import GenerationConfig
from omegaconf import OmegaConf

from lsg_fairseq.data.generation_settings import SETTINGS, common_settings, given_settings, read_generation_settings
from lsg_fairseq.hub.batches import GenerationSettings
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tasks.summarization_config import LSGSummarizationConfig, with_checkpoint_settings

STORED = {"beam": 3, "lenpen": 2.0, "min_len": 4, "forced_first_token": "<s>", "forced_eos": True}


def checkpoint(folder: Path, settings: Any = None) -> str:
    """The path of a model with these settings beside it; the model itself is not read."""
    folder.mkdir(exist_ok=True)
    if settings is not None:
        (folder / "generation.json").write_text(settings if isinstance(settings, str) else json.dumps(settings))
    return str(folder / "model.pt")


def filled(paths: list[str], argv: list[str], monkeypatch: pytest.MonkeyPatch, **values: Any) -> dict[str, Any]:
    monkeypatch.setattr(sys, "argv", ["fairseq-generate", *argv])
    args = OmegaConf.structured(GenerationConfig(**values))
    result = with_checkpoint_settings(args, LSGSummarizationConfig(), paths)
    return {name: getattr(result, name, None) for name in SETTINGS}


def test_settings_are_those_of_the_hub() -> None:
    assert set(SETTINGS) == set(vars(GenerationSettings()))


@pytest.mark.parametrize(
    "content",
    [
        '{"beam": 4',
        "[]",
        "7",
        "[" * 100_000,
        {"user_dir": "evil"},
        {"beam": "4"},
        {"beam": True},
        {"beam": 0},
        {"beam": None},
        {"lenpen": float("nan")},
        {"min_len": 1.5},
        {"forced_eos": 1},
        {"forced_first_token": 0},
    ],
    ids=lambda content: str(content)[:30],
)
def test_a_damaged_file_is_one_sentence(content: Any, tmp_path: Path) -> None:
    path = Path(checkpoint(tmp_path / "a", content))
    with pytest.raises(LSGError, match=r"generation\.json") as refused:
        read_generation_settings(path.parent)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_flags_in_a_file_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "generation.args").write_text("--user-dir evil")
    with pytest.raises(LSGError, match="convert the checkpoint again"):
        read_generation_settings(tmp_path)
    checkpoint(tmp_path, STORED)
    assert read_generation_settings(tmp_path) == STORED


@pytest.mark.parametrize(
    ("argv", "given"),
    [
        (["--beam", "5"], ["beam"]),
        (["--beam=5", "--forced-eos"], ["beam", "forced_eos"]),
        (["--max-len-b", "200", "--lenp", "1"], ["lenpen", "max_len_b"]),
        (["generation.beam=5", "++generation.min_len=1", "task.forced_eos=false"], ["beam", "forced_eos", "min_len"]),
        (["--beam-mt", "5", "--", "model.beam=3", "--path", "beam"], []),
    ],
    ids=str,
)
def test_what_a_command_line_names(argv: list[str], given: list[str]) -> None:
    assert sorted(given_settings(argv)) == given


def test_settings_are_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    paths = [checkpoint(tmp_path / "a", STORED)]
    with caplog.at_level(logging.INFO):
        assert STORED.items() <= filled(paths, [], monkeypatch).items()
    assert [record.message for record in caplog.records] == [
        "generation settings: beam=3, lenpen=2.0, min_len=4, forced_first_token='<s>', forced_eos=True taken from "
        f"{tmp_path}/a/generation.json"
    ]


@pytest.mark.parametrize(
    ("argv", "values", "expected"),
    [
        (["--beam", "5"], {}, 5),  # fairseq's default
        (["generation.beam=5"], {}, 5),
        ([], {"beam": 7}, 7),
        ([], {"nbest": 5}, 5),
        ([], {"nbest": 2}, 3),
    ],
    ids=str,
)
def test_the_user_wins(
    argv: list[str], values: dict[str, Any], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = filled([checkpoint(tmp_path / "a", STORED)], argv, monkeypatch, **values)
    assert result["beam"] == expected
    assert result["min_len"] == 4


def test_an_ensemble_agrees_or_nothing_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    same = [checkpoint(tmp_path / "a", STORED), checkpoint(tmp_path / "b", STORED)]
    assert filled(same, [], monkeypatch)["beam"] == 3
    for other in (checkpoint(tmp_path / "c", {**STORED, "beam": 4}), checkpoint(tmp_path / "d")):
        caplog.clear()
        assert filled([*same, other], [], monkeypatch)["beam"] == 5
        [record] = caplog.records
        assert record.message.startswith("the generation settings beside the checkpoints are ignored")
    assert common_settings([checkpoint(tmp_path / "d"), checkpoint(tmp_path / "e")]) == ({}, None)


def test_the_task_learns_its_checkpoints() -> None:
    class Task:
        checkpoint_paths = ()

    task = Task()
    with pytest.raises(OSError, match="not found"):
        checkpoint_utils.load_model_ensemble(["no/model.pt"], task=task)
    assert task.checkpoint_paths == ("no/model.pt",)


def test_no_page_pastes_a_file_into_a_shell() -> None:
    pages = [REPOSITORY / "README.md", *(REPOSITORY / "docs").rglob("*.md")]
    assert not [page for page in pages if "$(cat" in page.read_text() or "`cat" in page.read_text()]
