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
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from fairseq.models.bart import BARTModel
from fairseq.models.bart.model import bart_base_architecture

from lsg_fairseq.compat.loading import load_checkpoint_file

STOCK_POSITIONS = 64
RESETS = ["--reset-optimizer", "--reset-dataloader", "--reset-meters", "--reset-lr-scheduler"]
# One update with a learning rate of 0: what is saved is what was loaded.
FROZEN = [*TRAINING, "--lr", "0", "--max-update", 1, "--disable-validation"]


def stock_bart(dictionary: Dictionary) -> tuple[BARTModel, Namespace]:
    """fairseq's own BART with random weights (not those that a test run would draw), and its arguments."""
    dims = {"embed_dim": 32, "ffn_embed_dim": 64, "layers": 2, "attention_heads": 4}
    args = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in dims.items()}
    args |= {"max_source_positions": STOCK_POSITIONS, "max_target_positions": STOCK_POSITIONS, "task": "denoising"}
    namespace = Namespace(**args)
    bart_base_architecture(namespace)
    torch.manual_seed(5)
    task = Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
    return BARTModel.build_model(Namespace(**vars(namespace)), task), namespace


def write_stock_checkpoint(data: Path, path: Path) -> dict[str, torch.Tensor]:
    """Write a file with the layout of bart.large/model.pt, `<mask>` being its last row; returns its state dict."""
    dictionary = Dictionary.load(str(data / "dict.source.txt"))
    model, args = stock_bart(dictionary)
    state = {key: value for key, value in model.state_dict().items() if "output_projection" not in key}
    args = Namespace(**vars(args), arch="bart_base", criterion="cross_entropy", optimizer="adam")
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


def load_into_tiny(data: Path, checkpoint: Path, **flags: int) -> dict[str, torch.Tensor]:
    """What a model of the tests' size holds after it has loaded a checkpoint, as the trainer does it."""
    dictionary = Dictionary.load(str(data / "dict.source.txt"))
    dims = {"embed_dim": 32, "ffn_embed_dim": 64, "layers": 2}
    args = {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in dims.items()}
    namespace = Namespace(**args, lsg_block_size=16, lsg_sparse_block_size=16, **flags)
    ARCH_CONFIG_REGISTRY["lsg_bart_small"](namespace)
    task = Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
    model = ARCH_MODEL_REGISTRY["lsg_bart_small"].build_model(namespace, task)
    model.load_state_dict(load_checkpoint_file(checkpoint)["model"], strict=True)
    return model.state_dict()


def check_stock(state: dict[str, torch.Tensor], stock: dict[str, torch.Tensor], rows: slice) -> None:
    """The embedding rows that were kept, tiled positions, and a global table made from them."""
    table, positions = stock["encoder.embed_tokens.weight"], stock["encoder.embed_positions.weight"]
    assert torch.equal(state["encoder.embed_tokens.weight"], table[rows])
    assert torch.equal(state["encoder.embed_positions.weight"], torch.cat([positions[:2], positions[2:].repeat(16, 1)]))
    assert torch.equal(state["decoder.embed_positions.weight"][66:], stock["decoder.embed_positions.weight"][2:38])
    assert torch.equal(state["encoder.global_embeddings.weight"][0], positions[2] + table[0])
    assert torch.equal(state["encoder.layers.1.fc1.weight"], stock["encoder.layers.1.fc1.weight"])


def test_stock_bart(corpus: Path, tmp_path: Path) -> None:
    """The whole command, with a dictionary without `<mask>` as in fairseq's fine-tuning recipes."""
    stock = write_stock_checkpoint(corpus, tmp_path / "model.pt")
    data = without_mask(corpus, tmp_path / "data")
    printed = run(
        *("fairseq-train", data, *SUMMARIZATION, *TINY, *FROZEN, "--restore-file", tmp_path / "model.pt", *RESETS),
        *("--save-dir", tmp_path / "out", "--max-target-positions", 100),
    )
    (line,) = re.findall(r"checkpoint brought up to this model: .*", printed)
    assert "source position table of 66 rows made 1,026" in line
    assert "target position table of 66 rows made 102" in line
    assert "(<mask> row)" in line
    assert "global table of 512 rows" in line
    check_stock(load_checkpoint_file(tmp_path / "out" / "checkpoint_last.pt")["model"], stock, slice(0, -1))


def test_stock_bart_and_a_dictionary_with_mask(corpus: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stock = write_stock_checkpoint(corpus, tmp_path / "model.pt")
    with caplog.at_level("INFO", logger="lsg_fairseq"):
        lengths = {"max_source_positions": 1024, "max_target_positions": 100}
        check_stock(load_into_tiny(corpus, tmp_path / "model.pt", **lengths), stock, slice(None))
    assert "<mask>" not in caplog.text
    assert "global table of 512 rows" in caplog.text


def test_own_checkpoint_with_fewer_positions(corpus: Path, checkpoints: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = load_checkpoint_file(checkpoints / "checkpoint_last.pt")["model"]
    with caplog.at_level("INFO", logger="lsg_fairseq"):
        state = load_into_tiny(corpus, checkpoints / "checkpoint_last.pt", max_source_positions=1500)
    assert caplog.messages == ["checkpoint brought up to this model: source position table of 1,026 rows made 1,502"]
    assert torch.equal(state["encoder.global_embeddings.weight"], old["encoder.global_embeddings.weight"])
    assert torch.equal(state["encoder.embed_positions.weight"][1026:], old["encoder.embed_positions.weight"][2:478])


def test_own_checkpoint_is_not_touched(corpus: Path, checkpoints: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = load_checkpoint_file(checkpoints / "checkpoint_last.pt")["model"]
    with caplog.at_level("INFO", logger="lsg_fairseq"):
        state = load_into_tiny(corpus, checkpoints / "checkpoint_last.pt", max_source_positions=1024)
    assert caplog.messages == []
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
