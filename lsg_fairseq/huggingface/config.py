"""config.json and fairseq's model arguments, each read out of the other by one table."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from lsg_fairseq.huggingface.config_fields import (
    LSG_FIELDS,
    activation_of,
    epsilon_of,
    hf_activation,
    is_lsg_config,
    lsg_config_from_hf,
    plain_model_type,
    rate_of,
    size_of,
)
from lsg_fairseq.huggingface.encoder_keys import key_layout_of, parts_of_hf
from lsg_fairseq.huggingface.folder_kinds import advise_model_type
from lsg_fairseq.modules.lsg_config import FIELD_ALIASES, LSGError
from lsg_fairseq.weights.families import MODEL_TYPES, Family, ModelType
from lsg_fairseq.weights.model_spec import ModelSpec, spec_of_family

BERT_EPS = 1e-12
# The names of the tensors' dtype: every version of transformers reads the first, version 5 writes the other.
DTYPE_FIELDS = ("torch_dtype", "dtype")
SEQ2SEQ_POSITIONS, ENCODER_POSITIONS = 1024, 512  # what transformers assumes
CONFIG_KINDS = ("seq2seq", "bert", "distilbert")
# Fields of an encoder's config.json of which one value alone can be built.
ENCODER_FIXED: dict[str, Any] = {
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
}


# One row a setting: fairseq's name, its name in each kind of config.json ("": it has none), and, for a rate, what
# transformers assumes in each (None: the dropout). What it assumes of sizes is in the families table.
# fmt: off
CONFIG_TABLE: tuple[tuple[str, dict[str, str], dict[str, float | None]], ...] = tuple(
    (fairseq, dict(zip(CONFIG_KINDS, names, strict=True)), dict(zip(CONFIG_KINDS, rates, strict=False)))
    for fairseq, names, rates in (
        # fairseq                    seq2seq                    bert                            distilbert
        ("encoder_embed_dim",       ("d_model",                 "hidden_size",                  "dim"), ()),
        ("encoder_layers",          ("encoder_layers",          "num_hidden_layers",            "n_layers"), ()),
        ("encoder_ffn_embed_dim",   ("encoder_ffn_dim",         "intermediate_size",            "hidden_dim"), ()),
        ("encoder_attention_heads", ("encoder_attention_heads", "num_attention_heads",          "n_heads"), ()),
        ("decoder_layers",          ("decoder_layers",          "",                             ""), ()),
        ("decoder_ffn_embed_dim",   ("decoder_ffn_dim",         "",                             ""), ()),
        ("decoder_attention_heads", ("decoder_attention_heads", "",                             ""), ()),
        ("dropout",                 ("dropout",                 "hidden_dropout_prob",          "dropout"),
                                    (0.1,                       0.1,                            0.1)),
        ("attention_dropout",       ("attention_dropout",       "attention_probs_dropout_prob", "attention_dropout"),
                                    (0.0,                       0.1,                            0.1)),
        ("activation_dropout",      ("activation_dropout",      "",                             ""), (0.0,)),
        ("encoder_layerdrop",       ("encoder_layerdrop",       "",                             ""), (0.0,)),
        ("decoder_layerdrop",       ("decoder_layerdrop",       "",                             ""), (0.0,)),
        ("pooler_dropout",          ("classifier_dropout",      "classifier_dropout",           "seq_classif_dropout"),
                                    (0.0,                       None,                           0.2)),
        ("activation_fn",           ("activation_function",     "hidden_act",                   "activation"), ()),
        ("layer_norm_eps",          ("",                        "layer_norm_eps",               ""), ()),
    )
)
# fmt: on


def config_names(kind: ModelType) -> dict[str, str]:
    """fairseq's names of the settings that this kind of config.json has, each with its name there."""
    return {fairseq: names[kind.config] for fairseq, names, _ in CONFIG_TABLE if names[kind.config]}


# --- config.json -> fairseq -----------------------------------------------------------------------------------------


def read_config(config: Mapping[str, Any]) -> tuple[ModelSpec, dict[str, object]]:
    """Return the sizes of a config.json and fairseq's model arguments; every LSG field is there as `lsg_<field>`.

    The architecture among the arguments only names the family: every size that it would choose is spelled out.

    Raises:
        LSGError: another model_type, a layer layout that is not the family's, a size that is not a positive integer, or
            an activation that fairseq does not have.
    """
    family, kind = MODEL_TYPES[model_type_of(config)]
    _check_fixed(config, family, kind)
    args = _settings(config, family, kind)
    args |= _encoder_decoder(config, family, args) if family.has_decoder else _encoder(config, kind, args)
    if not family.has_classifier:
        del args["pooler_dropout"]
    vocab_size = size_of(config, "vocab_size", kind.vocab_size)
    spec = spec_of_family(family, args.__getitem__, vocab_size, is_lsg_config(config))
    if not family.has_decoder:
        types = size_of(config, "type_vocab_size", kind.token_types) if kind.token_types else 0
        spec = replace(spec, model_type=kind.name, token_types=types)
    if family.has_decoder and spec.is_lsg and config.get("attention_probs_dropout_prob") is not None:
        # The LSG model cards tell users to set this name; the public code never reads it.
        args["attention_dropout"] = rate_of(config, "attention_probs_dropout_prob", 0.0)
    lsg = {f"lsg_{name}": value for name, value in asdict(lsg_config_from_hf(config)).items()}
    # An encoder has no decoder to pass anything to, and its public configurations are without the field.
    return spec, {**args, **lsg, **({} if family.has_decoder else {"lsg_pass_global_tokens_to_decoder": False})}


def model_type_of(config: Mapping[str, Any]) -> str:
    """Return one of MODEL_TYPES, the plain name where config.json has an LSG one.

    Raises:
        LSGError: model_type is missing or another one.
    """
    model_type = plain_model_type(config)
    if config.get("model_type") is None:
        raise LSGError(f"config.json states no model_type, the kind of the weights: {advise_model_type(config)}")
    if model_type not in MODEL_TYPES:
        *others, last = MODEL_TYPES
        raise LSGError(
            f"model_type {config.get('model_type')!r} is not supported: give a checkpoint whose config.json says "
            f"{', '.join(others)} or {last} (short originals and their LSG versions)"
        )
    return model_type


def _settings(config: Mapping[str, Any], family: Family, kind: ModelType) -> dict[str, Any]:
    """The fields that both sides have, in fairseq's words."""
    args: dict[str, Any] = {"arch": family.arch}
    for fairseq, names, rates in CONFIG_TABLE:
        hf = names[kind.config]
        if not hf:
            continue
        if fairseq in kind.sizes:
            args[fairseq] = size_of(config, hf, kind.sizes[fairseq])
        elif rates:
            assumed = rates[kind.config]
            args[fairseq] = rate_of(config, hf, args["dropout"] if assumed is None else assumed)
        else:
            args[fairseq] = (
                epsilon_of(config, hf, BERT_EPS) if fairseq == "layer_norm_eps" else activation_of(config, hf)
            )
    return args


def _encoder_decoder(config: Mapping[str, Any], family: Family, args: Mapping[str, Any]) -> dict[str, Any]:
    """What an encoder-decoder has beside `args`."""
    positions = size_of(config, "max_position_embeddings", SEQ2SEQ_POSITIONS)
    width = args["encoder_embed_dim"]
    own = dict.fromkeys(("decoder_embed_dim", "decoder_input_dim", "decoder_output_dim"), width)
    own |= {**family.layout, "no_scale_embedding": not config.get("scale_embedding", False)}
    own |= dict.fromkeys(("max_source_positions", "max_target_positions"), positions)
    return own | ({"pooler_activation_fn": "tanh"} if family.has_classifier else {})


def _encoder(config: Mapping[str, Any], kind: ModelType, args: Mapping[str, Any]) -> dict[str, Any]:
    """What an encoder-only model has beside `args`.

    fairseq's classification head also drops features in front of its first layer, as transformers' RoBERTa does and its
    BERT does not. This concerns training alone.
    """
    rows = size_of(config, "max_position_embeddings", ENCODER_POSITIONS)
    if rows <= kind.position_offset:
        raise LSGError(
            f"config.json must state max_position_embeddings above {kind.position_offset} for model_type "
            f"{kind.name!r}, whose first rows stand for no position, not {rows}: correct the file"
        )
    own = {"activation_dropout": 0.0, "encoder_layerdrop": 0.0, "untie_weights_roberta": False}
    own["layer_norm_eps"] = args.get("layer_norm_eps", BERT_EPS)
    return own | {"pooler_activation_fn": kind.head_activation, "max_positions": rows - kind.position_offset}


def _check_fixed(config: Mapping[str, Any], family: Family, kind: ModelType) -> None:
    fixed: dict[str, Any] = dict(family.hf_layout if family.has_decoder else ENCODER_FIXED)
    if kind.embedding_size is not None:
        fixed["embedding_size"] = size_of(config, "hidden_size", kind.sizes["encoder_embed_dim"])
        config = {"embedding_size": kind.embedding_size, **config}
    if kind.position_offset:
        fixed["pad_token_id"] = 1  # the offset of the positions is one more
    for name, built in fixed.items():
        if config.get(name) is not None and config[name] != built:
            raise LSGError(
                f"config.json says {name}={config[name]!r}, and only {name}={built!r} can be built for model_type "
                f"{kind.name!r}: use a checkpoint with the family's usual layout"
            )


def check_lm_activation(args: Mapping[str, Any], kind: ModelType) -> None:
    """Make sure that fairseq's masked-LM head, whose activation is the layers', is the checkpoint's.

    Raises:
        LSGError: transformers' head has another one than the layers.
    """
    needed = kind.lm_activation
    if needed is not None and args["activation_fn"] != needed:
        raise LSGError(
            f"the masked-LM head of model_type {kind.name!r} always applies {needed} and its layers "
            f"{args['activation_fn']}, and fairseq has one activation for both: convert a checkpoint without that head"
        )


# --- fairseq -> config.json -----------------------------------------------------------------------------------------


def exported_spec(spec: ModelSpec, args: Mapping[str, Any], original: Mapping[str, Any] | None) -> ModelSpec:
    """The spec with Hugging Face's model_type and token types: the original's, else those of the head's activation."""
    if spec.has_decoder:
        return spec
    if original:
        before, _ = read_config(original)
        return replace(spec, model_type=before.model_type, token_types=before.token_types)
    fitting = [kind for kind in spec.row.types if kind.head_activation == args["pooler_activation_fn"]]
    kind = (fitting or spec.row.types)[0]
    return replace(spec, model_type=kind.name, token_types=kind.token_types)


def write_config(
    args: Mapping[str, Any],
    spec: ModelSpec,
    tensors: Mapping[str, Tensor],
    token_ids: Mapping[str, int] | None = None,
    original: Mapping[str, Any] | None = None,
) -> dict[str, object]:
    """Make the config.json of an exported model, the inverse of read_config.

    The position count is the longer of a decoder's and an encoder's tables, because Hugging Face has one number for
    both; convert_to_hf lengthens the shorter one accordingly.

    Args:
        spec: as exported_spec returns it; is_lsg chooses the public LSG layout or a plain one.
        tensors: what is exported, which says which heads there are, and the dtype.
        token_ids: Hugging Face ids of the special tokens, by config.json's names (default: those that transformers
            assumes); the original's win.
        original: the config.json that the model came from, if any: it supplies labels and what else is not ours, and an
            encoder's keeps its own words where they still say the same.

    Raises:
        LSGError: an activation, an epsilon or the padding id is not what transformers' model has.
    """
    names, kind = config_names(spec.kind), spec.kind
    token_ids = dict(spec.row.token_ids if token_ids is None else token_ids)
    parts = _parts(spec, tensors)
    _check_export(args, spec, parts, token_ids)
    stale = {*LSG_FIELDS, *FIELD_ALIASES, *DTYPE_FIELDS, "auto_map", "base_model_prefix"}
    stale |= {"attention_probs_dropout_prob"} - set(names.values())
    config: dict[str, object] = {name: value for name, value in (original or {}).items() if name not in stale}
    stated = {} if spec.has_decoder or not original else read_config(original)[1]
    for fairseq, hf in names.items():
        if fairseq in args and (fairseq not in stated or args[fairseq] != stated[fairseq]):
            config[hf] = hf_activation(args[fairseq]) if fairseq == "activation_fn" else args[fairseq]
    config = {**token_ids, **config, "model_type": kind.name, "vocab_size": spec.vocab_size}
    config |= _dtype_field(tensors, original or {})
    config["max_position_embeddings"] = max(spec.max_source_positions, spec.max_target_positions) + kind.position_offset
    config |= _encoder_decoder_fields(args) if spec.has_decoder else _encoder_fields(spec, tensors, parts, config)
    config["architectures"] = [f"{'LSG' if spec.is_lsg else ''}{kind.class_name}{_task(spec, parts)}"]
    return config | (_lsg_fields(args, spec) if spec.is_lsg else {})


def _dtype_field(tensors: Mapping[str, Tensor], original: Mapping[str, Any]) -> dict[str, object]:
    """The narrowest dtype that every tensor fits in, by torch's name: transformers 5 loads in the one stated.

    Under one name, the original's if it has one: two could contradict each other later.
    """
    name = next((name for name in DTYPE_FIELDS if name in original), DTYPE_FIELDS[0])
    kinds = {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()}
    return {name: str(functools.reduce(torch.promote_types, kinds or {torch.float32})).removeprefix("torch.")}


def _parts(spec: ModelSpec, tensors: Mapping[str, Tensor]) -> frozenset[str]:
    """Which of "classes", "lm" and "nsp" the tensors have a head for."""
    if spec.has_decoder:
        return frozenset({"classes"} if any(key.startswith("classification_head.") for key in tensors) else ())
    layout = key_layout_of(spec)
    parts = parts_of_hf(tensors, layout)
    tags = {"classes": layout.classes, "lm": layout.lm, "nsp": "nsp"}
    return frozenset(part for part, tag in tags.items() if tag in parts)


def _encoder_decoder_fields(args: Mapping[str, Any]) -> dict[str, object]:
    return {
        "is_encoder_decoder": True,
        "scale_embedding": not args["no_scale_embedding"],
        "num_hidden_layers": args["encoder_layers"],
    }


def _encoder_fields(
    spec: ModelSpec, tensors: Mapping[str, Tensor], parts: frozenset[str], config: Mapping[str, Any]
) -> dict[str, object]:
    fields: dict[str, object] = {"type_vocab_size": spec.token_types} if spec.token_types else {}
    fields |= {"embedding_size": spec.embed_dim} if spec.kind.embedding_size is not None else {}
    return fields | (_labels(tensors, config) if "classes" in parts else {})


def _check_export(
    args: Mapping[str, Any], spec: ModelSpec, parts: frozenset[str], token_ids: Mapping[str, int]
) -> None:
    kind = spec.kind
    if spec.has_decoder:
        return
    found = {"pooler_activation_fn": "classes" in parts, "activation_fn": "lm" in parts}
    needed = {
        "pooler_activation_fn": kind.head_activation,
        "activation_fn": kind.lm_activation or args["activation_fn"],
    }
    for name, matters in found.items():
        if matters and args[name] != needed[name]:
            raise LSGError(
                f"{name} is {args[name]!r}, and the head of a Hugging Face {kind.name} always applies "
                f"{needed[name]}: a model without that head can be exported"
            )
    if args["layer_norm_eps"] != BERT_EPS and "layer_norm_eps" not in config_names(kind):
        raise LSGError(
            f"layer_norm_eps is {args['layer_norm_eps']}, and transformers' {kind.class_name} is fixed to {BERT_EPS}"
        )
    if kind.position_offset and token_ids["pad_token_id"] != 1:
        raise LSGError(
            f"the padding token has id {token_ids['pad_token_id']}, and a Hugging Face {kind.name} counts "
            "positions from it: only 1 can be exported"
        )


def _task(spec: ModelSpec, parts: frozenset[str]) -> str:
    """The end of the class name that has these heads."""
    if "classes" in parts:
        return "ForSequenceClassification"
    if spec.has_decoder:
        return "ForConditionalGeneration"
    if "nsp" in parts:
        return "ForPreTraining" if "lm" in parts else "ForNextSentencePrediction"
    return "ForMaskedLM" if "lm" in parts else "Model"


def _labels(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, object]:
    """Names of the classes, where the original's are not as many: transformers counts them to build the head."""
    name = "classifier.out_proj.bias" if "classifier.out_proj.bias" in tensors else "classifier.bias"
    count = len(tensors[name])
    stated = config.get("id2label")
    if (len(stated) if isinstance(stated, Mapping) and stated else 2) == count:
        return {}
    return {
        "id2label": {str(i): f"LABEL_{i}" for i in range(count)},
        "label2id": {f"LABEL_{i}": i for i in range(count)},
    }


def _lsg_fields(args: Mapping[str, Any], spec: ModelSpec) -> dict[str, object]:
    """What a public LSG configuration has; an encoder's has no field about a decoder."""
    names = [name for name in LSG_FIELDS if spec.has_decoder or name != "pass_global_tokens_to_decoder"]
    fields: dict[str, object] = {**{name: args[f"lsg_{name}"] for name in names}, "base_model_prefix": "lsg"}
    return fields | ({"auto_map": spec.kind.auto_map} if spec.kind.auto_map else {})
