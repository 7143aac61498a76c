"""Configurations of Hugging Face checkpoints in fairseq's arguments, and back."""

from __future__ import annotations

import json

import pytest
import torch
from reference_checkpoints import MODELS, REFERENCE, open_model

from lsg_fairseq.huggingface.config import read_config, write_config
from lsg_fairseq.huggingface.config_fields import lsg_config_from_hf
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError

needs_reference = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs {REFERENCE}")
BART = {"model_type": "bart"}
PEGASUS = {"model_type": "pegasus", "activation_function": "relu", "scale_embedding": True}


def test_bart_large_arguments():
    args = read_config(BART)[1]
    expected = {
        "arch": "lsg_bart_large",
        "encoder_embed_dim": 1024,
        "decoder_embed_dim": 1024,
        "encoder_layers": 12,
        "decoder_ffn_embed_dim": 4096,
        "encoder_attention_heads": 16,
        "dropout": 0.1,
        "attention_dropout": 0.0,
        "activation_fn": "gelu",
        "encoder_normalize_before": False,
        "encoder_learned_pos": True,
        "layernorm_embedding": True,
        "no_scale_embedding": True,
        "share_all_embeddings": True,
        "max_source_positions": 1024,
        "max_target_positions": 1024,
        "lsg_block_size": 128,
        "lsg_sparsity_type": "norm",
    }
    assert {name: args[name] for name in expected} == expected


def test_pegasus_arguments():
    args = read_config(PEGASUS)[1]
    expected = {
        "arch": "lsg_pegasus_large",
        "activation_fn": "relu",
        "encoder_normalize_before": True,
        "decoder_normalize_before": True,
        "encoder_learned_pos": False,
        "layernorm_embedding": False,
        "no_scale_embedding": False,
    }
    assert {name: args[name] for name in expected} == expected


def test_stated_values_win():
    config = BART | {
        "d_model": 64,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_ffn_dim": 100,
        "decoder_ffn_dim": 200,
        "max_position_embeddings": 300,
        "vocab_size": 77,
        "dropout": 0,
        "attention_dropout": 0.25,
        "encoder_layerdrop": 0.5,
        "classifier_dropout": 0.3,
        "scale_embedding": True,
    }
    args, spec = read_config(config)[1], read_config(config)[0]
    assert (spec.vocab_size, spec.encoder_layers, spec.decoder_layers, spec.max_source_positions) == (77, 2, 3, 300)
    assert (spec.encoder_ffn_dim, spec.decoder_ffn_dim) == (100, 200)
    assert (args["dropout"], args["attention_dropout"], args["encoder_layerdrop"]) == (0.0, 0.25, 0.5)
    assert args["pooler_dropout"] == 0.3
    assert args["no_scale_embedding"] is False


@pytest.mark.parametrize(
    "marks",
    [
        {"architectures": ["LSGBartForConditionalGeneration"]},
        {"base_model_prefix": "lsg", "architectures": None},
        {"model_type": "lsg_bart"},
    ],
)
def test_marks_of_an_lsg_checkpoint(marks):
    assert read_config(BART | marks)[0].is_lsg
    assert read_config(BART | marks)[0].family == "bart"
    assert not read_config(BART | {"architectures": ["BartModel"]})[0].is_lsg


def test_lsg_fields():
    config = PEGASUS | {"sparsity_type": None, "lsg_num_pre_rounds": 3, "num_global_tokens": 7, "block_size": 64}
    expected = LSGConfig(sparsity_type="none", lsh_num_pre_rounds=3, num_global_tokens=7, block_size=64)
    assert lsg_config_from_hf(config) == expected
    args = read_config(config)[1]
    assert (args["lsg_lsh_num_pre_rounds"], args["lsg_sparsity_type"]) == (3, "none")
    with pytest.raises(LSGError, match="num_global_tokens"):
        read_config(config | {"num_global_tokens": 513})[1]


def test_the_cards_name_of_attention_dropout():
    stated = BART | {"attention_dropout": 0.1, "attention_probs_dropout_prob": 0.2}
    assert read_config(stated | {"base_model_prefix": "lsg"})[1]["attention_dropout"] == 0.2
    assert read_config(stated)[1]["attention_dropout"] == 0.1


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (BART | {"normalize_before": True}, "normalize_before=True"),
        (BART | {"add_final_layer_norm": True}, "add_final_layer_norm=True"),
        (BART | {"normalize_embedding": False}, "normalize_embedding=False"),
        (BART | {"static_position_embeddings": True}, "static_position_embeddings=True"),
        (PEGASUS | {"normalize_before": False}, "normalize_before=False"),
        (PEGASUS | {"normalize_embedding": True}, "normalize_embedding=True"),
        (BART | {"d_model": "64"}, "d_model"),
        (BART | {"encoder_layers": 0}, "encoder_layers"),
        (BART | {"vocab_size": None}, "vocab_size"),
        (BART | {"decoder_layers": True}, "decoder_layers"),
        (BART | {"dropout": 1.5}, "dropout"),
        (BART | {"dropout": "0.1"}, "dropout"),
        (BART | {"activation_function": "silu"}, "'silu'"),
        (BART | {"activation_function": "quick_gelu"}, "'quick_gelu'"),
        ({"model_type": "t5"}, "'t5'"),
        ({}, "no model_type"),
    ],
)
def test_what_cannot_be_built_is_named(config, name):
    with pytest.raises(LSGError, match=name):
        read_config(config)[1]


@pytest.mark.parametrize(
    "name", ["gelu", "gelu_python", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "relu", "tanh", "linear"]
)
def test_activations_compute_what_transformers_computes(name):
    activations = pytest.importorskip("transformers.activations")
    from fairseq.utils import get_activation_fn

    x = torch.linspace(-8, 8, 1000)
    ours = get_activation_fn(read_config(BART | {"activation_function": name})[1]["activation_fn"])
    torch.testing.assert_close(ours(x), activations.ACT2FN[name](x), rtol=0, atol=2e-6)


@needs_reference
@pytest.mark.parametrize("name", MODELS)
def test_exported_configuration_says_what_the_original_said(name):
    checkpoint, spec, _ = open_model(name)
    exported = write_config(read_config(checkpoint.config)[1], spec, {}, original=checkpoint.config)
    written_here = {"auto_map"}
    assert {k: v for k, v in exported.items() if k not in written_here} == {
        k: v for k, v in checkpoint.config.items() if k not in written_here
    }
    assert json.loads(json.dumps(exported)) == exported
    assert read_config(exported)[0] == spec


@needs_reference
def test_exported_configuration_without_an_original():
    checkpoint, spec, _ = open_model("pegasus_lsg")
    exported = write_config(read_config(checkpoint.config)[1], spec, {})
    assert read_config(exported)[1] == read_config(checkpoint.config)[1]
    assert (exported["pad_token_id"], exported["eos_token_id"], exported["decoder_start_token_id"]) == (0, 1, 0)


def test_exported_classifier_and_unknown_activation():
    spec, args = read_config(BART)
    exported = write_config(args, spec, {"classification_head.dense.weight": torch.zeros(1, 1)})
    assert exported["architectures"] == ["BartForSequenceClassification"]
    with pytest.raises(LSGError, match="relu_squared"):
        write_config(args | {"activation_fn": "relu_squared"}, spec, {})
