"""fairseq's masked_lm and sentence_prediction with lsg_roberta on long documents, run as a user runs them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from conftest import BLOCK, ENCODER_SIZES, MASKED_LM, PLUGIN, RESETS, TINY_ENCODER, TRAINING, run
from fairseq import checkpoint_utils
from fairseq.data import Dictionary, data_utils
from hub_checkpoints import write_roberta_of_2019

from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.compat.loading import load_checkpoint_file

PREFIX = "encoder.sentence_encoder."


def test_documents_are_longer_than_two_blocks(labelled: Path) -> None:
    dataset = data_utils.load_indexed_dataset(str(labelled / "input0" / "train"))
    assert max(dataset.sizes) > 4 * BLOCK


def weights_of(path: Path) -> dict[str, torch.Tensor]:
    return load_checkpoint_file(path)["model"]


def loss_of(printed: str) -> float:
    return float(re.search(r"valid on 'valid' subset \| loss ([\d.]+)", printed)[1])


# --- masked_lm ------------------------------------------------------------------------------------------------------


def test_resumed_pretraining_equals_uninterrupted(labelled: Path, pretrained: Path, tmp_path: Path) -> None:
    shutil.copy(pretrained / "checkpoint1.pt", tmp_path / "checkpoint_last.pt")
    # Recomputed activations change nothing but memory.
    printed = run("fairseq-train", labelled / "input0", *MASKED_LM, *TINY_ENCODER, *TRAINING, "--max-epoch", 2,
                  "--checkpoint-activations", "--save-dir", tmp_path)  # fmt: skip
    assert "begin training epoch 1\n" not in printed
    resumed, uninterrupted, before = (
        weights_of(path)
        for path in (tmp_path / "checkpoint_last.pt", pretrained / "checkpoint2.pt", pretrained / "checkpoint1.pt")
    )
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[name], uninterrupted[name]) for name in resumed)
    table = PREFIX + "global_embeddings.weight"
    assert not torch.equal(before[table][0], resumed[table][0])
    assert resumed[PREFIX + "embed_positions.weight"].size(0) == 4096 + 2


def test_validate_and_overrides(labelled: Path, pretrained: Path) -> None:
    command = ["fairseq-validate", labelled / "input0", "--user-dir", PLUGIN, "--task", "masked_lm", "--cpu"]
    command += ["--batch-size", 2, "--path", pretrained / "checkpoint_best.pt"]
    losses = [
        loss_of(run(*command, "--model-overrides", overrides))
        for overrides in ("{}", "{'layer_norm_eps': 0.5, 'lsg_sparsity_type': 'pooling'}")
    ]
    assert losses[0] != losses[1]
    saved = load_checkpoint_file(pretrained / "checkpoint_best.pt")["cfg"]["model"]
    assert (saved.lsg_block_size, saved.layer_norm_eps, saved.lsg_pass_global_tokens_to_decoder) == (BLOCK, 1e-5, False)
    assert saved.lsg_sparsity_type == "norm"


def test_hydra_train(labelled: Path, tmp_path: Path) -> None:
    config = {
        "common": {"user_dir": str(PLUGIN), "cpu": True},
        "task": {"_name": "masked_lm", "data": str(labelled / "input0"), "sample_break_mode": "complete_doc"},
        "model": {"_name": "lsg_roberta_small", **ENCODER_SIZES, "lsg_block_size": 32, "layer_norm_eps": 1e-12},
        "dataset": {"batch_size": 4, "num_workers": 0},
        "criterion": {"_name": "masked_lm"},
        "optimizer": {"_name": "adam"},
        "lr_scheduler": {"_name": "fixed"},
        "optimization": {"max_update": 1, "lr": [0.001]},
        "checkpoint": {"save_dir": str(tmp_path / "saved")},
    }
    config["task"]["tokens_per_sample"] = 1000
    (tmp_path / "mlm.yaml").write_text("# @package _group_\n" + json.dumps(config))
    run("fairseq-hydra-train", "--config-dir", tmp_path, "--config-name", "mlm", cwd=tmp_path)
    saved = load_checkpoint_file(tmp_path / "saved" / "checkpoint_last.pt")
    assert (saved["cfg"]["model"]["lsg_block_size"], saved["cfg"]["model"]["layer_norm_eps"]) == (32, 1e-12)
    assert saved["model"][PREFIX + "embed_positions.weight"].size(0) == 4096 + 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "--lsg-pass-global-tokens-to-decoder true",
            "pass_global_tokens_to_decoder must be false for an encoder-only model",
        ),
        ("--max-positions 512 --restore-file", "position table cannot be cut from the 4096 positions it was trained"),
    ],
)
def test_mistakes_are_one_sentence(labelled: Path, pretrained: Path, tmp_path: Path, flags: str, message: str) -> None:
    restored = [pretrained / "checkpoint_last.pt", *RESETS] if "--restore-file" in flags else []
    printed = run("fairseq-train", labelled / "input0", *MASKED_LM, *TINY_ENCODER, *TRAINING, *flags.split(), *restored,
                  "--save-dir", tmp_path / "saved", check=False)  # fmt: skip
    assert printed.startswith("1\n")
    assert message in printed
    assert "Traceback" not in printed


# --- sentence_prediction --------------------------------------------------------------------------------------------


def test_validate_classifier(labelled: Path, classifier: Path) -> None:
    command = ["fairseq-validate", labelled, "--user-dir", PLUGIN, "--task", "sentence_prediction", "--cpu"]
    printed = run(*command, "--criterion", "sentence_prediction", "--batch-size", 2, "--path", classifier)
    assert re.search(r"\| loss [\d.]+ .*\| accuracy [\d.]+", printed)
    assert printed.count("bsz 5") == 1, "each of the five documents is validated"


# --- checkpoints from elsewhere, and for elsewhere -------------------------------------------------------------------


def test_roberta_base_model_pt(labelled: Path, tmp_path: Path) -> None:
    dictionary = Dictionary.load(str(labelled / "input0" / "dict.txt"))
    mask = dictionary.add_symbol("<mask>")
    stock = write_roberta_of_2019(dictionary, tmp_path / "model.pt")
    # A learning rate of 0: what is saved is what was loaded.
    frozen = ["--lr", 0, "--max-update", 1, "--disable-validation", "--save-dir", tmp_path / "out"]
    printed = run("fairseq-train", labelled / "input0", *MASKED_LM, *TINY_ENCODER, *TRAINING, *frozen,
                  "--restore-file", tmp_path / "model.pt", *RESETS)  # fmt: skip
    assert "position table of 66 rows made 4,098; global table of 512 rows made from its positions" in printed
    state = weights_of(tmp_path / "out" / "checkpoint_last.pt")
    positions, tokens = stock[PREFIX + "embed_positions.weight"][2:], stock[PREFIX + "embed_tokens.weight"]
    assert torch.equal(state[PREFIX + "embed_positions.weight"][2:], positions.repeat(64, 1))
    table = state[PREFIX + "global_embeddings.weight"]
    assert torch.equal(table[0], positions[0] + tokens[0])
    # 64 positions are drawn out to 512 and read with a stride of 64: the ninth global is the second position.
    assert torch.equal(table[8], positions[1] + tokens[mask])
    assert all(torch.equal(state[key], stock[key]) for key in stock.keys() - {PREFIX + "embed_positions.weight"})


@pytest.mark.parametrize("length", [None, 4000, 6000])
def test_a_checkpoint_file_is_rebuilt(
    corpus: Path, labelled: Path, pretrained: Path, classifier: Path, length: int | None
) -> None:
    for path, data in ((pretrained / "checkpoint_best.pt", labelled / "input0"), (classifier, labelled)):
        files = CheckpointFiles(model=path, vocabulary=data, tokenizer=corpus / "tokenizer")
        task, model, _ = load_task_and_model(files, Overrides(max_source_positions=length))
        (expected,), _, _ = checkpoint_utils.load_model_ensemble_and_task([str(path)])
        trained = expected.max_positions()
        assert task.max_positions() == (length or trained)
        assert model.max_positions() == max(length or 0, trained)
        assert task.sequence_format.source_bos
        rows = model.encoder.sentence_encoder.embed_positions.weight
        assert torch.equal(rows[:4098], expected.encoder.sentence_encoder.embed_positions.weight[:4098])
        tokens = torch.randint(4, len(task.source_dictionary), (2, 150), generator=torch.Generator().manual_seed(0))
        heads = list(expected.classification_heads)
        assert (
            list(model.classification_heads) == heads == (["sentence_classification_head"] if data == labelled else [])
        )
        for head in (None, *heads):
            outputs = [each.eval()(tokens, classification_head_name=head)[0] for each in (model, expected)]
            assert torch.equal(*outputs)
