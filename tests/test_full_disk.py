"""A disk that fills up: one sentence, nothing half-made, and what was there before is as it was."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from fuzzing.runner import Case, Outcome, run_case
from fuzzing.uses import command
from hub_checkpoints import lively_copy

from lsg_fairseq.checkpoints.convert import convert_checkpoint


@pytest.fixture(scope="module")
def converted(corpus: Path, checkpoints: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("full-disk")
    trained = lively_copy(checkpoints, folder / "trained") / "checkpoint_best.pt"
    convert_checkpoint(trained, folder / "converted", tokenizer=corpus / "tokenizer")
    shutil.copy(corpus.parent / "valid.jsonl", folder)
    return folder / "converted"


def calls(converted: Path, corpus: Path, out: Path) -> dict[str, list[object]]:
    documents = converted.parent / "valid.jsonl"
    flags = ["--jsonl", "--quiet", "--beam", "1", "--max-len-b", "3"]
    return {
        "convert": [converted, out],
        "export": [converted, out],
        "preprocess": ["--train", documents, "--tokenizer", corpus / "tokenizer", "--out", out, "--workers", "1"],
        "average": [converted / "model.pt", converted / "model.pt", "--output", out],
        "summarize": [documents, "--checkpoint", converted, "--output", out, *flags],
    }


def with_room_for(size: int, work: Callable[[], int]) -> Callable[[], int]:
    """The work where no file, its own messages among them, can become larger: a library is told as of a full disk."""

    def limited() -> int:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return work()

    return limited


def check_refused(outcome: Outcome, out: Path) -> None:
    assert outcome.fault == ""
    assert outcome.status == 1, outcome.printed
    assert str(out.parent) in outcome.sentence
    assert any(reason in outcome.sentence for reason in ("File too large", "room for it on the disk"))


def content(path: Path) -> dict[str, bytes]:
    files = path.rglob("*") if path.is_dir() else [path]
    return {str(file.relative_to(path.parent)): file.read_bytes() for file in files if file.is_file()}


@pytest.mark.parametrize(
    ("name", "size"),
    [("preprocess", 4000), *((name, size) for name in ("convert", "export", "average") for size in (4000, 60_000))],
)
def test_nothing_is_left(name: str, size: int, converted: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    work = with_room_for(size, command(name, *calls(converted, corpus, out)[name]))
    check_refused(run_case(Case(name, "", work, out), tmp_path / "canary"), out)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "flags"), [("preprocess", []), ("average", ["--overwrite"])])
def test_what_was_there_stays(name: str, flags: list[str], converted: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if name == "preprocess":
        shutil.copytree(corpus, out)
    else:
        shutil.copy(converted / "model.pt", out)
    before = content(out)
    work = with_room_for(4000, command(name, *calls(converted, corpus, out)[name], *flags))
    check_refused(run_case(Case(name, "", work), tmp_path / "canary"), out)
    assert content(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_output_is_continued_where_the_disk_was_full(converted: Path, corpus: Path, tmp_path: Path) -> None:
    out, whole = tmp_path / "out", tmp_path / "whole"
    run = lambda path, size: run_case(  # noqa: E731
        Case("", "", with_room_for(size, command("summarize", *calls(converted, corpus, path)["summarize"]))),
        tmp_path / "canary",
    )
    assert run(whole, 1 << 20).status == 0
    wanted = whole.read_bytes()
    for size in (len(wanted) // 3, len(wanted) - 1):
        check_refused(run(out, size), out)
    assert run(out, 1 << 20).status == 0
    assert out.read_bytes() == wanted


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no device that is always full")
def test_a_full_device(converted: Path, corpus: Path, tmp_path: Path) -> None:
    """Summaries to standard output, which is such a device."""

    def to_a_full_device() -> int:
        os.dup2(os.open("/dev/full", os.O_WRONLY), 1)
        arguments = calls(converted, corpus, tmp_path / "x")["summarize"]
        place = arguments.index("--output")
        return command("summarize", *arguments[:place], *arguments[place + 2 :])()

    outcome = run_case(Case("", "", to_a_full_device), tmp_path / "canary")
    assert outcome.fault == ""
    assert outcome.status == 1
    assert "No space left" in outcome.sentence
