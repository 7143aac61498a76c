"""config.json of BERT, RoBERTa and what else has their architecture, in the words of fairseq's RoBERTa."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from lsg_fairseq.huggingface.config_fields import activation_of, is_lsg_config, lsg_config_from_hf, rate_of, size_of
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.model_spec import ModelSpec

# fairseq's name of each setting: Hugging Face's name.
COMMON_NAMES = {
    "encoder_embed_dim": "hidden_size",
    "encoder_layers": "num_hidden_layers",
    "encoder_ffn_embed_dim": "intermediate_size",
    "encoder_attention_heads": "num_attention_heads",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "pooler_dropout": "classifier_dropout",
    "activation_fn": "hidden_act",
    "layer_norm_eps": "layer_norm_eps",
}
DISTILBERT_NAMES = {
    "encoder_embed_dim": "dim",
    "encoder_layers": "n_layers",
    "encoder_ffn_embed_dim": "hidden_dim",
    "encoder_attention_heads": "n_heads",
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "pooler_dropout": "seq_classif_dropout",
    "activation_fn": "activation",
}
# What transformers' configuration classes assume where config.json says nothing.
SIZES = {
    "encoder_embed_dim": 768,
    "encoder_layers": 12,
    "encoder_ffn_embed_dim": 3072,
    "encoder_attention_heads": 12,
}
ELECTRA_SIZES = {**SIZES, "encoder_embed_dim": 256, "encoder_ffn_embed_dim": 1024, "encoder_attention_heads": 4}
VOCAB_SIZE, RATE, EPS = 30522, 0.1, 1e-12


@dataclass(frozen=True)
class EncoderType:
    """What one model_type of Hugging Face is here.

    `position_offset` counts the rows in front of position 0, `token_types` the rows of the token type table that
    transformers assumes; `head_activation` is what its classification head applies; `lm_activation` what its masked-LM
    head does whatever hidden_act says, None where it is hidden_act.
    """

    family: str
    class_name: str
    position_offset: int = 0
    token_types: int = 2
    vocab_size: int = VOCAB_SIZE
    head_activation: str = "tanh"
    lm_activation: str | None = None
    names: Mapping[str, str] | None = None
    sizes: Mapping[str, int] | None = None


ENCODER_TYPES: dict[str, EncoderType] = {
    "bert": EncoderType("bert", "Bert"),
    "roberta": EncoderType("roberta", "Roberta", 2, vocab_size=50265, lm_activation="gelu"),
    "camembert": EncoderType("roberta", "Camembert", 2, lm_activation="gelu"),
    "xlm-roberta": EncoderType("roberta", "XLMRoberta", 2, lm_activation="gelu"),
    "distilbert": EncoderType(
        "bert", "DistilBert", 0, 0, head_activation="relu", names=DISTILBERT_NAMES, sizes={**SIZES, "encoder_layers": 6}
    ),
    "electra": EncoderType("bert", "Electra", head_activation="gelu", lm_activation="gelu", sizes=ELECTRA_SIZES),
}
# Settings of which one value alone can be built.
FIXED: dict[str, Any] = {"is_decoder": False, "add_cross_attention": False, "position_embedding_type": "absolute"}


def encoder_spec_from_hf(config: Mapping[str, Any], model_type: str) -> ModelSpec:
    """Read the sizes out of a config.json; see hf_config.spec_from_hf_config for what is raised."""
    kind = ENCODER_TYPES[model_type]
    _check_fixed(config, model_type)
    size = _sizes(config, kind)
    rows = size_of(config, "max_position_embeddings", 512)
    if rows <= kind.position_offset:
        raise LSGError(
            f"config.json must state max_position_embeddings above {kind.position_offset} for model_type "
            f"{model_type!r}, whose first rows stand for no position, not {rows}: correct the file"
        )
    return ModelSpec(
        family=kind.family,
        vocab_size=size_of(config, "vocab_size", kind.vocab_size),
        embed_dim=size["encoder_embed_dim"],
        encoder_layers=size["encoder_layers"],
        decoder_layers=0,
        encoder_ffn_dim=size["encoder_ffn_embed_dim"],
        decoder_ffn_dim=0,
        max_source_positions=rows - kind.position_offset,
        max_target_positions=0,
        is_lsg=is_lsg_config(config),
        model_type=model_type,
        token_types=size_of(config, "type_vocab_size", kind.token_types) if kind.token_types else 0,
    )


def encoder_args_from_hf(config: Mapping[str, Any], spec: ModelSpec) -> dict[str, object]:
    """Translate config.json into the arguments of an LSG-RoBERTa; see hf_config.fairseq_args_from_hf.

    fairseq's classification head also drops features in front of its first layer, as RoBERTa's does in transformers and
    BERT's does not: this concerns training alone.
    """
    kind = ENCODER_TYPES[spec.model_type]
    names = kind.names or COMMON_NAMES
    args: dict[str, object] = {"arch": f"lsg_{spec.family}_base", **_sizes(config, kind)}
    args |= {name: rate_of(config, names[name], RATE) for name in ("dropout", "attention_dropout")}
    args["activation_dropout"] = args["encoder_layerdrop"] = 0.0
    # Null stands for the hidden layers' rate; DistilBERT has a rate of its own.
    default = 0.2 if spec.model_type == "distilbert" else args["dropout"]
    args["pooler_dropout"] = rate_of(config, names["pooler_dropout"], default)
    args["pooler_activation_fn"] = kind.head_activation
    args["activation_fn"] = activation_of(config, names["activation_fn"])
    args["layer_norm_eps"] = _epsilon(config) if "layer_norm_eps" in names else EPS
    args["untie_weights_roberta"] = False
    args["max_positions"] = spec.max_source_positions
    args |= {f"lsg_{name}": value for name, value in asdict(lsg_config_from_hf(config)).items()}
    # There is no decoder, and the public configurations of encoders do not have this field.
    return args | {"lsg_pass_global_tokens_to_decoder": False}


def check_lm_activation(args: Mapping[str, Any], model_type: str) -> None:
    """Make sure that fairseq's masked-LM head, whose activation is the layers', is the checkpoint's.

    Raises:
        LSGError: transformers' head has another one than the layers.
    """
    needed = ENCODER_TYPES[model_type].lm_activation
    if needed is not None and args["activation_fn"] != needed:
        raise LSGError(
            f"the masked-LM head of model_type {model_type!r} always applies {needed} and its layers "
            f"{args['activation_fn']}, and fairseq has one activation for both: convert a checkpoint without that head"
        )


def _sizes(config: Mapping[str, Any], kind: EncoderType) -> dict[str, int]:
    names = kind.names or COMMON_NAMES
    return {fairseq: size_of(config, names[fairseq], default) for fairseq, default in (kind.sizes or SIZES).items()}


def _check_fixed(config: Mapping[str, Any], model_type: str) -> None:
    fixed = dict(FIXED)
    if model_type == "electra":
        fixed["embedding_size"] = size_of(config, "hidden_size", ELECTRA_SIZES["encoder_embed_dim"])
        config = {"embedding_size": 128, **config}
    if ENCODER_TYPES[model_type].position_offset:
        fixed["pad_token_id"] = 1  # the offset of the positions is one more
    for name, built in fixed.items():
        if config.get(name) is not None and config[name] != built:
            raise LSGError(
                f"config.json says {name}={config[name]!r}, and only {name}={built!r} can be built for model_type "
                f"{model_type!r}: use a checkpoint with that"
            )


def _epsilon(config: Mapping[str, Any]) -> float:
    value = config.get("layer_norm_eps", EPS)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise LSGError(f"config.json must state layer_norm_eps as a number between 0 and 1, not {value!r}: correct it")
    return float(value)
