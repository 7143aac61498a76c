"""What a Hugging Face config.json says, in fairseq's words: sizes, model arguments and LSG settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from lsg_fairseq.huggingface.config_fields import activation_of, is_lsg_config, lsg_config_from_hf, rate_of, size_of
from lsg_fairseq.huggingface.encoder_config import ENCODER_TYPES, encoder_args_from_hf, encoder_spec_from_hf
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.model_spec import ModelSpec

SUPPORTED_MODEL_TYPES = ("bart", "pegasus", *ENCODER_TYPES)

# One row a setting: Hugging Face's name, fairseq's name, and the value transformers' BartConfig and PegasusConfig
# assume where config.json says nothing.
SIZE_NAMES: tuple[tuple[str, str, int], ...] = (
    ("d_model", "encoder_embed_dim", 1024),
    ("encoder_layers", "encoder_layers", 12),
    ("encoder_ffn_dim", "encoder_ffn_embed_dim", 4096),
    ("encoder_attention_heads", "encoder_attention_heads", 16),
    ("decoder_layers", "decoder_layers", 12),
    ("decoder_ffn_dim", "decoder_ffn_embed_dim", 4096),
    ("decoder_attention_heads", "decoder_attention_heads", 16),
)
RATE_NAMES: tuple[tuple[str, str, float], ...] = (
    ("dropout", "dropout", 0.1),
    ("attention_dropout", "attention_dropout", 0.0),
    ("activation_dropout", "activation_dropout", 0.0),
    ("encoder_layerdrop", "encoder_layerdrop", 0.0),
    ("decoder_layerdrop", "decoder_layerdrop", 0.0),
    ("classifier_dropout", "pooler_dropout", 0.0),  # BART's alone
)
# Fields of older configurations that describe another layer layout: only the family's own value can be built, here as
# in today's transformers (which ignores them in silence).
FIXED_LAYOUT: dict[str, dict[str, bool]] = {
    "bart": {
        "normalize_before": False,
        "add_final_layer_norm": False,
        "normalize_embedding": True,
        "static_position_embeddings": False,
    },
    "pegasus": {
        "normalize_before": True,
        "add_final_layer_norm": True,
        "normalize_embedding": False,
        "static_position_embeddings": True,
    },
}


def family_of(config: Mapping[str, Any]) -> str:
    """Return "bart", "pegasus", "bert" or "roberta".

    Raises:
        LSGError: model_type is missing or another one.
    """
    model_type = model_type_of(config)
    return ENCODER_TYPES[model_type].family if model_type in ENCODER_TYPES else model_type


def model_type_of(config: Mapping[str, Any]) -> str:
    """Return one of SUPPORTED_MODEL_TYPES, the plain name where config.json has an LSG one.

    Raises:
        LSGError: model_type is missing or another one.
    """
    stated = config.get("model_type")
    model_type = stated.removeprefix("lsg_").removeprefix("lsg-") if isinstance(stated, str) else None
    if model_type not in SUPPORTED_MODEL_TYPES:
        *others, last = SUPPORTED_MODEL_TYPES
        raise LSGError(
            f"model_type {stated!r} is not supported: give a checkpoint whose config.json says "
            f"{', '.join(others)} or {last} (short originals and their LSG versions)"
        )
    return model_type


def spec_from_hf_config(config: Mapping[str, Any]) -> ModelSpec:
    """Read the sizes out of a config.json.

    Raises:
        LSGError: another model_type, a layer layout that is not the family's, or a size that is no positive integer.
    """
    family = model_type_of(config)
    if family in ENCODER_TYPES:
        return encoder_spec_from_hf(config, family)
    _check_layout(config, family)
    size = {hf: size_of(config, hf, default) for hf, _, default in SIZE_NAMES}
    positions = size_of(config, "max_position_embeddings", 1024)
    return ModelSpec(
        family=family,
        vocab_size=size_of(config, "vocab_size", 50265),
        embed_dim=size["d_model"],
        encoder_layers=size["encoder_layers"],
        decoder_layers=size["decoder_layers"],
        encoder_ffn_dim=size["encoder_ffn_dim"],
        decoder_ffn_dim=size["decoder_ffn_dim"],
        max_source_positions=positions,
        max_target_positions=positions,
        is_lsg=is_lsg_config(config),
    )


def fairseq_args_from_hf(config: Mapping[str, Any]) -> dict[str, object]:
    """Translate config.json into fairseq's model arguments; every LSG field is there as `lsg_<field>`.

    `arch` only names the family: every size that the architecture would choose is spelled out beside it.

    Raises:
        LSGError: as spec_from_hf_config, or an activation that fairseq does not have.
    """
    spec = spec_from_hf_config(config)
    if not spec.has_decoder:
        return encoder_args_from_hf(config, spec)
    args: dict[str, object] = {fairseq: size_of(config, hf, default) for hf, fairseq, default in SIZE_NAMES}
    args |= {fairseq: rate_of(config, hf, default) for hf, fairseq, default in RATE_NAMES}
    if spec.family == "bart":
        args["pooler_activation_fn"] = "tanh"
    else:
        del args["pooler_dropout"]
    if spec.is_lsg and config.get("attention_probs_dropout_prob") is not None:
        # The LSG model cards tell users to set this name; the public code never reads it.
        args["attention_dropout"] = rate_of(config, "attention_probs_dropout_prob", 0.0)
    args |= _family_args(spec)
    args["activation_fn"] = activation_of(config, "activation_function")
    args["no_scale_embedding"] = not config.get("scale_embedding", False)
    args |= {f"lsg_{name}": value for name, value in asdict(lsg_config_from_hf(config)).items()}
    return args


def _family_args(spec: ModelSpec) -> dict[str, object]:
    is_bart = spec.family == "bart"
    return {
        "arch": "lsg_bart_large" if is_bart else "lsg_pegasus_large",
        "decoder_embed_dim": spec.embed_dim,
        "decoder_input_dim": spec.embed_dim,
        "decoder_output_dim": spec.embed_dim,
        "encoder_normalize_before": not is_bart,
        "decoder_normalize_before": not is_bart,
        "encoder_learned_pos": is_bart,
        "decoder_learned_pos": is_bart,
        "layernorm_embedding": is_bart,
        "share_decoder_input_output_embed": True,
        "share_all_embeddings": True,
        "max_source_positions": spec.max_source_positions,
        "max_target_positions": spec.max_target_positions,
    }


def _check_layout(config: Mapping[str, Any], family: str) -> None:
    for name, built in FIXED_LAYOUT[family].items():
        if config.get(name) is not None and config[name] != built:
            raise LSGError(
                f"config.json says {name}={config[name]!r}, and only {name}={built!r} can be built for model_type "
                f"{family!r}: use a checkpoint with the family's usual layer layout"
            )
