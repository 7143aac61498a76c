"""What the public LSG-BERT and LSG-RoBERTa compute (benchmarks/make_encoder_reference.py), reproduced in fp32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from encoder_models import convert_and_load
from safetensors.torch import load_file

from lsg_fairseq.weights.state_dicts import HEAD_NAME

FOLDER = Path(__file__).parent / "data" / "encoder_reference"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
TOLERANCE = 2e-5
SHORT = ["bert_mlm", "bert_classifier", "roberta_mlm", "roberta_classifier"]
PREFIX = "encoder.sentence_encoder."


@pytest.fixture(scope="module")
def arrays() -> dict[str, torch.Tensor]:
    return load_file(FOLDER / "cases.safetensors")


@torch.no_grad()
@pytest.mark.parametrize("case", MANIFEST["cases"], ids=lambda case: case["name"])
def test_outputs(case: dict[str, Any], arrays: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """Hidden states of real tokens, masked-LM logits, and those of a classifier."""
    model, rows = convert_and_load(FOLDER / case["model"], tmp_path / "out", MANIFEST["positions"], **case["settings"])
    ids, mask, hidden, logits = (
        arrays[f"{case['name']}.{name}"] for name in ("input_ids", "attention_mask", "hidden", "logits")
    )
    tokens, kept = rows[ids.long()], mask.bool()
    found = model(tokens, features_only=True)[0]
    assert found.shape == hidden.shape
    assert (found - hidden)[kept].abs().max() <= TOLERANCE
    if case["head"] == "classification":
        difference = model(tokens, classification_head_name=HEAD_NAME)[0] - logits
    else:
        step = MANIFEST["logits_step"]
        difference = (model(tokens)[0][:, ::step, rows] - logits)[kept[:, ::step]]
    assert difference.abs().max() <= TOLERANCE


@torch.no_grad()
def test_pooled_output(arrays: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """BERT's pooler is the first half of the head that stands for next-sentence prediction."""
    case = next(case for case in MANIFEST["cases"] if case["name"] == "bert_mlm_norm")
    model, rows = convert_and_load(FOLDER / "bert_mlm", tmp_path / "out", MANIFEST["positions"], **case["settings"])
    features = model(rows[arrays["bert_mlm_norm.input_ids"].long()], features_only=True)[0]
    pooled = model.classification_heads["next_sentence"].dense(features[:, 0]).tanh()
    assert (pooled - arrays["bert_mlm_norm.pooler_output"]).abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", SHORT)
def test_tables_of_a_longer_model(name: str, tmp_path: Path) -> None:
    """The global table bit for bit; positions up to the rounding of the token type that is added to them."""
    tables = load_file(FOLDER / "tables.safetensors")
    tensors = load_file(FOLDER / name / "model.safetensors")
    token_type = next(tensors[key] for key in tensors if "token_type" in key)[0]
    state = convert_and_load(FOLDER / name, tmp_path / "out", MANIFEST["positions"])[0].state_dict()
    assert torch.equal(state[f"{PREFIX}global_embeddings.weight"], tables[f"{name}.global_embeddings"])
    expected = tables[f"{name}.position_embeddings"][-MANIFEST["positions"] :]
    torch.testing.assert_close(state[f"{PREFIX}embed_positions.weight"][2:], expected + token_type, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["bert_lsg", "roberta_lsg"])
def test_trained_global_table_is_kept(name: str, tmp_path: Path) -> None:
    tensors = load_file(FOLDER / name / "model.safetensors")
    trained = next(tensors[key] for key in tensors if "global_embeddings" in key)
    state = convert_and_load(FOLDER / name, tmp_path / "out", 1500)[0].state_dict()
    assert torch.equal(state[f"{PREFIX}global_embeddings.weight"], trained)
    positions = state[f"{PREFIX}embed_positions.weight"]
    assert len(positions) == 1502
    assert torch.equal(positions[1026:], positions[2 : 1502 - 1024])
