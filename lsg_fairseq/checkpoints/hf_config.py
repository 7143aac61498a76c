"""What a Hugging Face config.json says, in fairseq's words: sizes, model arguments and LSG settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from lsg_fairseq.modules.lsg_config import FIELD_ALIASES, LSGConfig, LSGError

SUPPORTED_MODEL_TYPES = ("bart", "pegasus")

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
# transformers' activations -> fairseq's. The first name of each fairseq value is the one an export writes.
# fairseq's gelu_accurate is the tanh approximation; its swish cannot be built (fairseq returns the class).
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_accurate",
    "gelu_fast": "gelu_accurate",
    "gelu_accurate": "gelu_accurate",
    "gelu_pytorch_tanh": "gelu_accurate",
    "gelu_python_tanh": "gelu_accurate",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
}
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
# LSGConfig fields that are this package's own and unknown to the public LSG configurations.
NOT_IN_HF = ("attention", "lsh_seed")
LSG_FIELDS = tuple(f.name for f in fields(LSGConfig) if f.name not in NOT_IN_HF)


@dataclass(frozen=True)
class ModelSpec:
    """Everything that fixes the shapes of a checkpoint.

    vocab_size counts Hugging Face's embedding rows; fairseq's table has one more where `rows` leaves `<pad>` free.
    Positions are usable ones: BART's two offset rows are not counted.
    """

    family: str
    vocab_size: int
    embed_dim: int
    encoder_layers: int
    decoder_layers: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    max_source_positions: int
    max_target_positions: int
    is_lsg: bool = False

    @property
    def position_offset(self) -> int:
        """Rows in front of position 0: BART's tables keep fairseq's two (positions started at padding_idx + 1)."""
        return 2 if self.family == "bart" else 0


def family_of(config: Mapping[str, Any]) -> str:
    """Return "bart" or "pegasus".

    Raises:
        LSGError: model_type is missing or another one.
    """
    model_type = config.get("model_type")
    family = model_type.removeprefix("lsg_").removeprefix("lsg-") if isinstance(model_type, str) else None
    if family not in SUPPORTED_MODEL_TYPES:
        raise LSGError(
            f"model_type {model_type!r} is not supported: give a checkpoint whose config.json says "
            f"{' or '.join(SUPPORTED_MODEL_TYPES)} (short originals and their LSG versions)"
        )
    return family


def is_lsg_config(config: Mapping[str, Any]) -> bool:
    """Whether config.json describes an LSG checkpoint: the public ones say so in two or three places."""
    names = [*(config.get("architectures") or []), str(config.get("model_type"))]
    return config.get("base_model_prefix") == "lsg" or any(str(name).lower().startswith("lsg") for name in names)


def spec_from_hf_config(config: Mapping[str, Any]) -> ModelSpec:
    """Read the sizes out of a config.json.

    Raises:
        LSGError: another model_type, a layer layout that is not the family's, or a size that is no positive integer.
    """
    family = family_of(config)
    _check_layout(config, family)
    size = {hf: _size(config, hf, default) for hf, _, default in SIZE_NAMES}
    positions = _size(config, "max_position_embeddings", 1024)
    return ModelSpec(
        family=family,
        vocab_size=_size(config, "vocab_size", 50265),
        embed_dim=size["d_model"],
        encoder_layers=size["encoder_layers"],
        decoder_layers=size["decoder_layers"],
        encoder_ffn_dim=size["encoder_ffn_dim"],
        decoder_ffn_dim=size["decoder_ffn_dim"],
        max_source_positions=positions,
        max_target_positions=positions,
        is_lsg=is_lsg_config(config),
    )


def spec_from_fairseq_args(args: Mapping[str, Any], vocab_size: int, is_lsg: bool = True) -> ModelSpec:
    """Read the sizes out of a fairseq model's arguments (`vars(args)`), the inverse of fairseq_args_from_hf."""
    return ModelSpec(
        family="pegasus" if "pegasus" in str(args["arch"]) else "bart",
        vocab_size=vocab_size,
        embed_dim=args["encoder_embed_dim"],
        encoder_layers=args["encoder_layers"],
        decoder_layers=args["decoder_layers"],
        encoder_ffn_dim=args["encoder_ffn_embed_dim"],
        decoder_ffn_dim=args["decoder_ffn_embed_dim"],
        max_source_positions=args["max_source_positions"],
        max_target_positions=args["max_target_positions"],
        is_lsg=is_lsg,
    )


def lsg_config_from_hf(config: Mapping[str, Any]) -> LSGConfig:
    """Return the LSG settings that config.json states, defaults elsewhere (a short model's: all defaults).

    Raises:
        LSGError: a stated value is not allowed.
    """
    return LSGConfig.from_dict({name: config[name] for name in (*LSG_FIELDS, *FIELD_ALIASES) if name in config})


def fairseq_args_from_hf(config: Mapping[str, Any]) -> dict[str, object]:
    """Translate config.json into fairseq's model arguments; every LSG field is there as `lsg_<field>`.

    `arch` only names the family: every size that the architecture would choose is spelled out beside it.

    Raises:
        LSGError: as spec_from_hf_config, or an activation that fairseq does not have.
    """
    spec = spec_from_hf_config(config)
    args: dict[str, object] = {fairseq: _size(config, hf, default) for hf, fairseq, default in SIZE_NAMES}
    args |= {fairseq: _rate(config, hf, default) for hf, fairseq, default in RATE_NAMES}
    if spec.family == "bart":
        args["pooler_activation_fn"] = "tanh"
    else:
        del args["pooler_dropout"]
    if spec.is_lsg and config.get("attention_probs_dropout_prob") is not None:
        # The LSG model cards tell users to set this name; the public code never reads it.
        args["attention_dropout"] = _rate(config, "attention_probs_dropout_prob", 0.0)
    args |= _family_args(spec)
    args["activation_fn"] = _activation(config)
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


def _size(config: Mapping[str, Any], name: str, default: int) -> int:
    value = config.get(name, default)
    if type(value) is not int or value < 1:
        raise LSGError(f"config.json must state {name} as a positive integer, not {value!r}: correct the file")
    return value


def _rate(config: Mapping[str, Any], name: str, default: float) -> float:
    value = default if config.get(name) is None else config[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise LSGError(f"config.json must state {name} as a number from 0 to 1, not {value!r}: correct the file")
    return float(value)


def _activation(config: Mapping[str, Any]) -> str:
    name = config.get("activation_function", "gelu")
    if name not in ACTIVATIONS:
        raise LSGError(
            f"activation_function {name!r} has no counterpart in fairseq: checkpoints with "
            f"{', '.join(ACTIVATIONS)} can be converted"
        )
    return ACTIVATIONS[name]
