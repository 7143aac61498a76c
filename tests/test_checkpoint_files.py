"""The files that a training writes: plain values, replaced at once, and a whole one taken where the last is torn."""

from __future__ import annotations

import os
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from conftest import SUMMARIZATION, TINY, TRAINING, run
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from lsg_fairseq.compat import training
from lsg_fairseq.compat.loading import as_plain, load_checkpoint_file, with_namespaces
from lsg_fairseq.modules.lsg_config import LSGError

# --- plain values ---------------------------------------------------------------------------------------------------


def test_training_writes_plain_values(checkpoints: Path) -> None:
    """torch's own loading takes it, with no class allowed, and fairseq's finds the same as a Namespace."""
    for path in checkpoints.glob("*.pt"):
        plain = torch.load(path, weights_only=True)["cfg"]["model"]
        assert type(plain) is dict
        assert plain["lsg_block_size"] == 16
        assert load_checkpoint_file(path)["cfg"]["model"] == Namespace(**plain)


def test_stock_saving_is_refused_by_weights_only(tmp_path: Path) -> None:
    state = {"args": None, "cfg": {"model": Namespace(arch="a", nested=[Namespace(b=1)]), "task": {"_name": "t"}}}
    checkpoint_utils.torch_persistent_save(state, str(tmp_path / "ours.pt"))
    assert torch.load(tmp_path / "ours.pt", weights_only=True)["cfg"]["model"] == {"arch": "a", "nested": [{"b": 1}]}
    assert isinstance(state["cfg"]["model"], Namespace)  # the training goes on with it
    checkpoint_utils.torch_persistent_save.__wrapped__(state, str(tmp_path / "stock.pt"))
    with pytest.raises(Exception, match=r"argparse\.Namespace"):
        torch.load(tmp_path / "stock.pt", weights_only=True)


def test_older_files_and_hydra_groups_keep_their_types() -> None:
    older = {"args": Namespace(arch="bart_base"), "cfg": {"model": Namespace(arch="a", x=1), "task": {"_name": "t"}}}
    expected = {"args": Namespace(arch="bart_base"), "cfg": {"model": Namespace(arch="a", x=1), "task": {"_name": "t"}}}
    assert with_namespaces(as_plain(older)) == expected
    assert with_namespaces(older) == expected
    hydra = {"cfg": {"model": {"_name": "lsg_bart_small", "lsg_block_size": 64}, "bpe": None}}
    assert with_namespaces(as_plain(hydra)) == {"cfg": {"model": {"_name": "lsg_bart_small", "lsg_block_size": 64},
                                                        "bpe": None}}  # fmt: skip
    assert with_namespaces([1]) == [1]


def test_tensors_and_ordered_dicts_are_not_copied(checkpoints: Path) -> None:
    state = load_checkpoint_file(checkpoints / "checkpoint_last.pt")
    assert as_plain(state)["model"] is state["model"]


def test_model_overrides_reach_the_arguments(checkpoints: Path) -> None:
    path = str(checkpoints / "checkpoint_last.pt")
    state = checkpoint_utils.load_checkpoint_to_cpu(path, {"lsg_block_size": 8, "data": "elsewhere"})
    assert isinstance(state["cfg"].model, Namespace)
    assert state["cfg"].model.lsg_block_size == 8
    assert state["cfg"].task.data == "elsewhere"


# --- torn files -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("manager", ["ours", "stock"])
def test_a_copy_that_is_cut_short_leaves_the_old_file(
    manager: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new.pt").write_bytes(b"new" * 100)
    (tmp_path / "last.pt").write_bytes(b"old")

    def copy_half(source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes()[:150])
        raise KeyboardInterrupt

    copy = (checkpoint_utils.PathManager if manager == "ours" else PathManager).copy
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfile", copy_half)
        with pytest.raises(KeyboardInterrupt):
            copy(str(tmp_path / "new.pt"), str(tmp_path / "last.pt"), overwrite=True)
    assert ((tmp_path / "last.pt").read_bytes() == b"old") is (manager == "ours")
    assert copy(str(tmp_path / "new.pt"), str(tmp_path / "last.pt"), overwrite=True)
    assert (tmp_path / "last.pt").read_bytes() == b"new" * 100
    assert not list(tmp_path.glob("*.tmp"))


def tear(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def test_the_newest_whole_checkpoint_is_taken(checkpoints: Path, tmp_path: Path, corpus: Path) -> None:
    folder = shutil.copytree(checkpoints, tmp_path / "run")
    for age, name in enumerate(["checkpoint_best.pt", "checkpoint2.pt", "checkpoint1.pt"]):
        os.utime(folder / name, (2e9 - age, 2e9 - age))
    tear(folder / "checkpoint_last.pt")
    tear(folder / "checkpoint_best.pt")
    printed = run("fairseq-train", corpus, *SUMMARIZATION, *TINY, *TRAINING, "--max-epoch", 3, "--save-dir", folder)
    line = f"{folder}/checkpoint_last.pt is damaged or cut short, so the training goes on from {folder}/checkpoint2.pt"
    assert printed.count(line) == 1
    assert "epoch 003" in printed
    assert "epoch 002" not in printed
    assert training.is_whole(folder / "checkpoint_last.pt")


def test_no_whole_checkpoint_is_one_sentence(checkpoints: Path, tmp_path: Path) -> None:
    last = Path(shutil.copy(checkpoints / "checkpoint_last.pt", tmp_path))
    assert training.is_whole(last)
    tear(last)
    assert not training.is_whole(last)
    with pytest.raises(LSGError, match=r"checkpoint_last\.pt is damaged or cut short, and no whole checkpoint"):
        training._newest_whole(last)
