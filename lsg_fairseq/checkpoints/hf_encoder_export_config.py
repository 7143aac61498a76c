"""The config.json of an exported encoder: fairseq's arguments in Hugging Face's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from lsg_fairseq.huggingface.config_fields import LSG_FIELDS, hf_activation
from lsg_fairseq.huggingface.encoder_config import (
    COMMON_NAMES,
    ENCODER_TYPES,
    encoder_args_from_hf,
    encoder_spec_from_hf,
)
from lsg_fairseq.huggingface.encoder_heads import parts_of_hf
from lsg_fairseq.huggingface.encoder_keys import layout_of
from lsg_fairseq.modules.lsg_config import FIELD_ALIASES, LSGError
from lsg_fairseq.weights.model_spec import ModelSpec

# Where transformers finds the public modelling files of an exported LSG model (trust_remote_code=True). None is known
# for ELECTRA.
REMOTE_CODE = {
    "bert": "ccdv/lsg-bert-base-uncased-4096--modeling_lsg_bert.LSGBert",
    "roberta": "ccdv/lsg-distilroberta-base-4096--modeling_lsg_roberta.LSGRoberta",
    "camembert": "ccdv/lsg-camembert-base-4096--modeling_lsg_camembert.LSGCamembert",
    "xlm-roberta": "ccdv/lsg-xlm-roberta-base-4096--modeling_lsg_xlm_roberta.LSGXLMRoberta",
    "distilbert": "ccdv/lsg-distilbert-base-uncased-4096--modeling_lsg_distilbert.LSGDistilBert",
}
# Fields that describe LSG attention; a decoder's is not among an encoder's.
ENCODER_LSG_FIELDS = tuple(name for name in LSG_FIELDS if name != "pass_global_tokens_to_decoder")


def exported_spec(spec: ModelSpec, args: Mapping[str, Any], original: Mapping[str, Any] | None) -> ModelSpec:
    """The spec with Hugging Face's model_type and token types: the original's, else those of the head's activation."""
    if original:
        before = encoder_spec_from_hf(original, _type_of(original))
        return replace(spec, model_type=before.model_type, token_types=before.token_types)
    fitting = [
        name
        for name, kind in ENCODER_TYPES.items()
        if (kind.family, kind.head_activation) == (spec.family, args["pooler_activation_fn"])
    ]
    model_type = fitting[0] if fitting else spec.family
    return replace(spec, model_type=model_type, token_types=ENCODER_TYPES[model_type].token_types)


def encoder_config_from_args(
    args: Mapping[str, Any],
    spec: ModelSpec,
    tensors: Mapping[str, Tensor],
    token_ids: Mapping[str, int],
    original: Mapping[str, Any] | None = None,
) -> dict[str, object]:
    """Make the config.json of an exported encoder.

    Args:
        spec: as exported_spec returns it.
        tensors: what is exported, which says which heads there are.
        token_ids: Hugging Face ids of the special tokens, by the names that config.json has for them.
        original: the config.json that the model came from, if any: it supplies labels and what else is not ours, and
            keeps its own words where they still say the same.

    Raises:
        LSGError: an activation or the padding id is not what transformers' model has.
    """
    kind, layout = ENCODER_TYPES[spec.model_type], layout_of(spec)
    parts = parts_of_hf(tensors, layout)
    _check(args, spec, layout.classes in parts, layout.lm in parts, token_ids)
    lsg_only = {*LSG_FIELDS, *FIELD_ALIASES, "auto_map", "base_model_prefix"}
    config: dict[str, object] = {name: value for name, value in (original or {}).items() if name not in lsg_only}
    stated = encoder_args_from_hf(original, encoder_spec_from_hf(original, spec.model_type)) if original else {}
    for fairseq, name in (kind.names or COMMON_NAMES).items():
        if args[fairseq] != stated.get(fairseq):
            config[name] = hf_activation(args[fairseq]) if fairseq == "activation_fn" else args[fairseq]
    config = {**token_ids, **config, "model_type": spec.model_type, "vocab_size": spec.vocab_size}
    config["max_position_embeddings"] = spec.max_source_positions + kind.position_offset
    config |= {"type_vocab_size": spec.token_types} if spec.token_types else {}
    config |= {"embedding_size": spec.embed_dim} if spec.model_type == "electra" else {}
    config |= _labels(tensors, config) if layout.classes in parts else {}
    config["architectures"] = [
        f"{'LSG' if spec.is_lsg else ''}{kind.class_name}{_task(parts, layout.lm, layout.classes)}"
    ]
    return config | (_lsg_layout(args, spec.model_type) if spec.is_lsg else {})


def _type_of(config: Mapping[str, Any]) -> str:
    return str(config["model_type"]).removeprefix("lsg_").removeprefix("lsg-")


def _check(
    args: Mapping[str, Any], spec: ModelSpec, has_classes: bool, has_lm: bool, token_ids: Mapping[str, int]
) -> None:
    kind = ENCODER_TYPES[spec.model_type]
    found = {"pooler_activation_fn": has_classes, "activation_fn": has_lm}
    needed = {
        "pooler_activation_fn": kind.head_activation,
        "activation_fn": kind.lm_activation or args["activation_fn"],
    }
    for name, matters in found.items():
        if matters and args[name] != needed[name]:
            raise LSGError(
                f"{name} is {args[name]!r}, and the head of a Hugging Face {spec.model_type} always applies "
                f"{needed[name]}: a model without that head can be exported"
            )
    if args["layer_norm_eps"] != 1e-12 and spec.model_type == "distilbert":
        raise LSGError(f"layer_norm_eps is {args['layer_norm_eps']}, and transformers' DistilBERT is fixed to 1e-12")
    if kind.position_offset and token_ids["pad_token_id"] != 1:
        raise LSGError(
            f"the padding token has id {token_ids['pad_token_id']}, and a Hugging Face {spec.model_type} counts "
            "positions from it: only 1 can be exported"
        )


def _task(parts: frozenset[str], lm: str, classes: str) -> str:
    """The end of the class name that has these heads."""
    if classes in parts:
        return "ForSequenceClassification"
    if "nsp" in parts:
        return "ForPreTraining" if lm in parts else "ForNextSentencePrediction"
    return "ForMaskedLM" if lm in parts else "Model"


def _labels(tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, object]:
    """Names of the classes, where the original's are not as many: transformers counts them to build the head."""
    name = "classifier.out_proj.bias" if "classifier.out_proj.bias" in tensors else "classifier.bias"
    count = len(tensors[name])
    if len(config.get("id2label") or "ab") == count:
        return {}
    return {
        "id2label": {str(i): f"LABEL_{i}" for i in range(count)},
        "label2id": {f"LABEL_{i}": i for i in range(count)},
    }


def _lsg_layout(args: Mapping[str, Any], model_type: str) -> dict[str, object]:
    layout = {**{name: args[f"lsg_{name}"] for name in ENCODER_LSG_FIELDS}, "base_model_prefix": "lsg"}
    if model_type not in REMOTE_CODE:
        return layout
    classes = {
        "AutoConfig": "Config",
        "AutoModel": "Model",
        "AutoModelForMaskedLM": "ForMaskedLM",
        "AutoModelForSequenceClassification": "ForSequenceClassification",
    }
    return layout | {"auto_map": {auto: REMOTE_CODE[model_type] + name for auto, name in classes.items()}}
