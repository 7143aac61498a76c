"""`fairseq-train --restore-file`: stock fairseq BARTs, and our own checkpoints with fewer positions, just work."""

from __future__ import annotations

import re
import shutil
from argparse import Namespace
from pathlib import Path

import pytest
import torch
from conftest import SUMMARIZATION, TINY, TRAINING, run
from fairseq.data import Dictionary
from fairseq.models.bart import BARTModel
from fairseq.models.bart.model import bart_base_architecture

from lsg_fairseq.compat.loading import load_checkpoint_file

STOCK_POSITIONS = 64
RESETS = ["--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler"]
# One update with a learning rate of 0: what is saved is what was loaded.
FROZEN = [*TRAINING, "--lr", "0", "--max-update", 1, "--disable-validation"]


def stock_bart(dictionary: Dictionary) -> BARTModel:
    """fairseq's own BART with random weights (not those that a test run would draw)."""
    dims = {"embed_dim": 32, "ffn_embed_dim": 64, "layers": 2, "attention_heads": 4}
    args = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in dims.items()}
    args |= {"max_source_positions": STOCK_POSITIONS, "max_target_positions": STOCK_POSITIONS, "task": "denoising"}
    namespace = Namespace(**args)
    bart_base_architecture(namespace)
    torch.manual_seed(5)
    return BARTModel.build_model(namespace, Namespace(source_dictionary=dictionary, target_dictionary=dictionary))


def write_stock_checkpoint(data: Path, path: Path) -> dict[str, torch.Tensor]:
    """Write a file with the layout of bart.large/model.pt, `<mask>` being its last row; returns its state dict."""
    dictionary = Dictionary.load(str(data / "dict.source.txt"))
    model = stock_bart(dictionary)
    state = {key: value for key, value in model.state_dict().items() if "output_projection" not in key}
    plain = {key: value for key, value in vars(model.args).items() if isinstance(value, (int, float, str, type(None)))}
    args = Namespace(**plain, arch="bart_base", criterion="cross_entropy", optimizer="adam")
    history = [{"criterion_name": "CrossEntropyCriterion", "optimizer_name": "FairseqAdam", "num_updates": 9}]
    history[0]["lr_scheduler_state"] = {"best": None}
    extra = {"train_iterator": {"epoch": 2, "iterations_in_epoch": 0}}
    content = {"args": args, "model": state, "optimizer_history": history, "extra_state": extra}
    # The published files are from 2019, before torch's zip format.
    torch.save(content | {"last_optimizer_state": None}, path, _use_new_zipfile_serialization=False)
    return state


def without_mask(data: Path, folder: Path) -> Path:
    """The data folder with `<mask>` taken out of its dictionaries, as fairseq's own fine-tuning recipes have it."""
    shutil.copytree(data, folder)
    for name in ("dict.source.txt", "dict.target.txt"):
        lines = (folder / name).read_text().splitlines(keepends=True)
        (folder / name).write_text("".join(line for line in lines if not line.startswith("<mask>")))
    return folder


def restore(data: Path, checkpoint: Path, folder: Path, *flags: object) -> tuple[dict[str, torch.Tensor], str]:
    """Train one update that changes nothing; returns the weights it saved and its log line about the checkpoint."""
    printed = run(
        *("fairseq-train", data, *SUMMARIZATION, *TINY, *FROZEN, "--restore-file", checkpoint, *RESETS, *flags),
        *("--save-dir", folder),
    )
    lines = re.findall(r"checkpoint brought up to this model: .*", printed)
    assert len(lines) <= 1
    return load_checkpoint_file(folder / "checkpoint_last.pt")["model"], "".join(lines)


@pytest.mark.parametrize("has_mask", [True, False], ids=["mask_in_dictionary", "no_mask_in_dictionary"])
def test_stock_bart(corpus: Path, tmp_path: Path, has_mask: bool) -> None:
    stock = write_stock_checkpoint(corpus, tmp_path / "model.pt")
    data = corpus if has_mask else without_mask(corpus, tmp_path / "data")
    state, line = restore(data, tmp_path / "model.pt", tmp_path / "out", "--max-target-positions", 100)
    assert f"source position table of {STOCK_POSITIONS + 2} rows made 1,026" in line
    assert f"target position table of {STOCK_POSITIONS + 2} rows made 102" in line
    assert "global table of 512 rows" in line
    assert ("<mask> row" in line) is not has_mask
    table, positions = stock["encoder.embed_tokens.weight"], stock["encoder.embed_positions.weight"]
    assert torch.equal(state["encoder.embed_tokens.weight"], table if has_mask else table[:-1])
    assert torch.equal(state["encoder.embed_positions.weight"], torch.cat([positions[:2], positions[2:].repeat(16, 1)]))
    assert torch.equal(state["decoder.embed_positions.weight"][66:], stock["decoder.embed_positions.weight"][2:38])
    assert torch.equal(state["encoder.global_embeddings.weight"][0], positions[2] + table[0])
    assert torch.equal(state["encoder.layers.1.fc1.weight"], stock["encoder.layers.1.fc1.weight"])


def test_own_checkpoint_with_fewer_positions(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    old = load_checkpoint_file(checkpoints / "checkpoint_last.pt")["model"]
    flags = ("--max-source-positions", 1500)
    state, line = restore(corpus, checkpoints / "checkpoint_last.pt", tmp_path / "longer", *flags)
    assert line.endswith("source position table of 1,026 rows made 1,502")
    assert torch.equal(state["encoder.global_embeddings.weight"], old["encoder.global_embeddings.weight"])
    assert torch.equal(state["encoder.embed_positions.weight"][1026:], old["encoder.embed_positions.weight"][2:478])


def test_own_checkpoint_is_not_touched(corpus: Path, checkpoints: Path, tmp_path: Path) -> None:
    old = load_checkpoint_file(checkpoints / "checkpoint_last.pt")["model"]
    state, line = restore(corpus, checkpoints / "checkpoint_last.pt", tmp_path)
    assert line == ""
    assert state.keys() == old.keys()
    assert all(torch.equal(state[key], old[key]) for key in old)


def test_checkpoint_with_more_positions_is_refused_in_one_sentence(
    corpus: Path, checkpoints: Path, tmp_path: Path
) -> None:
    command = ["fairseq-train", corpus, *SUMMARIZATION, *TINY, *FROZEN, "--max-source-positions", 512]
    restored = ["--restore-file", checkpoints / "checkpoint_last.pt", *RESETS, "--save-dir", tmp_path]
    printed = run(*command, *restored, check=False)
    assert "source position table cannot be cut from the 1024 positions it was trained with to 512" in printed
    assert "Traceback" not in printed
