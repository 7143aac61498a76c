"""lsg-average: the mean is that of a hand's sum, whatever is not of one model is refused, and files stay whole."""

from __future__ import annotations

import os
import shutil
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import REPOSITORY, SUMMARIZATION, run

from lsg_fairseq.checkpoints.averaging import last_checkpoints, mean_of
from lsg_fairseq.commands.average import main
from lsg_fairseq.compat.loading import load_checkpoint_file
from lsg_fairseq.modules.lsg_config import LSGError


def write(path: Path, value: float, change: Callable[[dict[str, Any]], object] | None = None) -> Path:
    """A checkpoint with a tied pair, a half-precision tensor, a count, an optimizer's state and a moving average."""
    table = torch.full((3, 2), float(value))
    model = {"a": table, "tied": table, "half": torch.full((2,), value).half(), "count": torch.tensor(int(value))}
    state = {"args": None, "cfg": {"model": {"arch": "x", "lsg_block_size": 16}}, "model": model}
    state |= {
        "extra_state": {"ema": {"a": table}, "train_iterator": {"epoch": 2}},
        "last_optimizer_state": {"m": table},
    }
    state["optimizer_history"] = [{"num_updates": int(value)}]
    if change is not None:
        change(state)
    torch.save(state, path)
    return path


def test_mean_of_a_training(checkpoints: Path, tmp_path: Path) -> None:
    """Against the sum by hand, in float32, of what two epochs wrote; and the result generates."""
    names = [checkpoints / "checkpoint1.pt", checkpoints / "checkpoint2.pt"]
    script = REPOSITORY / "scripts" / "average_checkpoints.py"
    printed = run(sys.executable, script, checkpoints, "--num-epoch-checkpoints", 2, "--output", tmp_path / "mean.pt")
    assert f"averaged 2: {names[0]}, {names[1]}" in printed
    first, second = (load_checkpoint_file(name)["model"] for name in names)
    averaged = torch.load(tmp_path / "mean.pt", weights_only=True)
    assert averaged["model"].keys() == first.keys()
    assert averaged["last_optimizer_state"] is None
    for name, tensor in averaged["model"].items():
        assert tensor.dtype == first[name].dtype
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
    assert not torch.equal(first["encoder.embed_tokens.weight"], second["encoder.embed_tokens.weight"])
    validated = run("fairseq-validate", checkpoints_data(checkpoints), *SUMMARIZATION, "--cpu", "--batch-size", 4,
                    "--path", tmp_path / "mean.pt")  # fmt: skip
    assert "valid on 'valid' subset" in validated


def checkpoints_data(checkpoints: Path) -> str:
    return load_checkpoint_file(checkpoints / "checkpoint_last.pt")["cfg"]["task"]["data"]


def test_dtypes_ties_and_counts_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [write(tmp_path / f"{value}.pt", value) for value in (1, 2, 6)]
    assert main([*map(str, paths), "--output", str(tmp_path / "new" / "mean.pt")]) == 0
    printed = capsys.readouterr().out
    assert "the moving average of the weights (--store-ema) is left out" in printed
    assert "optimizer states are left out" in printed
    state = torch.load(tmp_path / "new" / "mean.pt", weights_only=True)
    model = state["model"]
    assert torch.equal(model["a"], torch.full((3, 2), 3.0))
    assert model["tied"].data_ptr() == model["a"].data_ptr()
    assert (model["half"].dtype, model["half"].tolist(), model["count"].item()) == (torch.float16, [3, 3], 6)
    assert state["extra_state"] == {"train_iterator": {"epoch": 2}}
    assert state["optimizer_history"] == [{"num_updates": 6}]
    assert (tmp_path / "new" / "mean.pt").stat().st_size < (tmp_path / "1.pt").stat().st_size * 1.2


def test_sums_are_not_rounded_to_halves() -> None:
    many = [{"w": torch.full((2,), value).half()} for value in [2048.0, *[1.0] * 15]]
    assert torch.equal(mean_of(many)["w"], torch.full((2,), 2063 / 16).half())  # in halves, 2048 + 1 is 2048
    with pytest.raises(LSGError, match="the mean of w is not finite"):
        mean_of([{"w": torch.ones(2)}, {"w": torch.tensor([1.0, float("nan")])}])


def test_namespaces_of_older_files_become_plain(tmp_path: Path) -> None:
    def older(state: dict[str, Any]) -> None:
        state["cfg"]["model"] = Namespace(**state["cfg"]["model"])

    paths = [write(tmp_path / "1.pt", 1, older), write(tmp_path / "2.pt", 2)]
    assert main([*map(str, paths[::-1]), "--output", str(tmp_path / "mean.pt")]) == 0
    assert torch.load(tmp_path / "mean.pt", weights_only=True)["cfg"]["model"]["arch"] == "x"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s["model"].pop("half"), "half is in only one of them"),
        (lambda s: s["model"].update(new=torch.ones(1)), "new is in only one of them"),
        (lambda s: s["model"].update(a=torch.ones(2, 2)), r"a is torch.float32 \[2, 2\] and torch.float32 \[3, 2\]"),
        (lambda s: s["model"].update(half=torch.ones(2)), "half is torch.float32"),
        (lambda s: s["cfg"]["model"].update(lsg_block_size=32), "lsg_block_size is 32 and 16"),
        (lambda s: s["cfg"]["model"].update(arch="y"), "arch is y and x"),
        (lambda s: s.update(model={str(i): torch.ones(1) for i in range(9)}), "and 10 more"),
        (lambda s: s.pop("model"), "is not a fairseq checkpoint"),
    ],
)
def test_what_is_not_of_one_model_is_refused(
    change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [write(tmp_path / "1.pt", 1, change), write(tmp_path / "2.pt", 2)]
    assert main([*map(str, paths), "--output", str(tmp_path / "mean.pt")]) == 1
    printed = capsys.readouterr().err
    assert len(printed.splitlines()) == 1
    assert pytest.raises(AssertionError, match=said).matches(AssertionError(printed))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.pt", "2.pt"]


def test_the_last_ones(tmp_path: Path) -> None:
    names = ["checkpoint2.pt", "checkpoint10.pt", "checkpoint9.pt", "checkpoint_best.pt", "checkpoint_last.pt"]
    names += ["checkpoint_1_100.pt", "checkpoint_2_1000.pt", "checkpoint_1_500.pt", "checkpoint9.pt.tmp"]
    for name in names:
        (tmp_path / name).touch()

    def chosen(*args: Any) -> list[str]:
        return [path.name for path in last_checkpoints(tmp_path, *args)]

    assert chosen(2, False) == ["checkpoint9.pt", "checkpoint10.pt"]
    assert chosen(2, False, 9) == ["checkpoint2.pt", "checkpoint9.pt"]
    assert chosen(2, True) == ["checkpoint_1_500.pt", "checkpoint_2_1000.pt"]
    with pytest.raises(LSGError, match=r"has 3 files checkpointEPOCH\.pt, so 4 of them cannot be averaged: ask for 1"):
        chosen(4, False)
    with pytest.raises(LSGError, match=r"0 files checkpoint_EPOCH_UPDATE\.pt up to 9, so 1 of them"):
        chosen(1, True, 9)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing to average"),
        (["."], ". is a folder: add --num-epoch-checkpoints N"),
        (["gone.pt"], "gone.pt does not exist"),
        ([".", "1.pt", "--num-epoch-checkpoints", "1"], "taken from one folder, not 2"),
        (["1.pt", "--num-epoch-checkpoints", "1"], "1.pt is not a folder"),
        (["1.pt", "--checkpoint-upper-bound", "1"], "--checkpoint-upper-bound needs"),
        (["1.pt", "2.pt", "--output", "2.pt", "--overwrite"], "2.pt is one of the checkpoints to be averaged"),
        (["1.pt", "--output", "old.pt"], "old.pt exists: choose another --output, or use --overwrite"),
        (["1.pt", "torn.pt"], "torn.pt is damaged or cut short"),
    ],
)
def test_mistakes_are_one_sentence(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path("1.pt"), 1)
    os.truncate(shutil.copy(write(Path("2.pt"), 2), "torn.pt"), 900)
    Path("old.pt").write_text("kept")
    assert main(["--output", "new.pt", *words]) == 1
    assert said in capsys.readouterr().err
    assert not Path("new.pt").exists()
    assert Path("old.pt").read_text() == "kept"


def test_overwriting_and_a_failure_while_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, output = write(tmp_path / "1.pt", 1), tmp_path / "mean.pt"
    output.write_text("old")

    def fail(state: object, path: Path) -> None:
        path.write_text("half")
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", fail)
        assert main([str(source), "--output", str(output), "--overwrite"]) == 1
    assert (output.read_text(), len(list(tmp_path.iterdir()))) == ("old", 2)
    assert main(["--inputs", str(source), "--output", str(output), "--overwrite"]) == 0
    assert torch.equal(load_checkpoint_file(output)["model"]["a"], torch.ones(3, 2))
