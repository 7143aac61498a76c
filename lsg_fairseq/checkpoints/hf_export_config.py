"""The config.json of an exported model: fairseq's arguments in Hugging Face's words (hf_config.py is the other way)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lsg_fairseq.huggingface.config_fields import LSG_FIELDS, hf_activation
from lsg_fairseq.huggingface.seq2seq_config import RATE_NAMES, SIZE_NAMES
from lsg_fairseq.modules.lsg_config import FIELD_ALIASES
from lsg_fairseq.weights.model_spec import ModelSpec

# The special ids that transformers' config classes assume; an export writes them unless the original says otherwise.
TOKEN_IDS: dict[str, dict[str, int]] = {
    "bart": {
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
    },
    "pegasus": {"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "forced_eos_token_id": 1},
}
# Where transformers finds the public modelling files of an exported LSG model (trust_remote_code=True).
REMOTE_CODE = {
    "bart": ("ccdv/lsg-bart-base-4096--modeling_lsg_bart.LSGBart", True),
    "pegasus": ("ccdv/lsg-pegasus-large-4096--modeling_lsg_pegasus.LSGPegasus", False),
}


def hf_config_from_args(
    args: Mapping[str, Any],
    spec: ModelSpec,
    original: Mapping[str, Any] | None = None,
    has_classification_head: bool = False,
) -> dict[str, object]:
    """Make the config.json of an exported model, the inverse of fairseq_args_from_hf.

    `original` (the config.json that the model came from, if any) supplies token ids, labels and what else is not ours.
    spec.is_lsg chooses the public LSG layout or a plain one. The position count is the longer of the two tables,
    because Hugging Face has one number for both; convert_to_hf lengthens the shorter table accordingly.

    Raises:
        LSGError: the activation has no counterpart in transformers.
    """
    lsg_only = {*LSG_FIELDS, *FIELD_ALIASES, "auto_map", "base_model_prefix", "attention_probs_dropout_prob"}
    config: dict[str, object] = {name: value for name, value in (original or {}).items() if name not in lsg_only}
    config = {**TOKEN_IDS[spec.family], **config, "model_type": spec.family, "is_encoder_decoder": True}
    config |= {hf: args[fairseq] for hf, fairseq, _ in (*SIZE_NAMES, *RATE_NAMES) if fairseq in args}
    config["activation_function"] = hf_activation(args["activation_fn"])
    config["scale_embedding"] = not args["no_scale_embedding"]
    config["num_hidden_layers"] = args["encoder_layers"]
    config["vocab_size"] = spec.vocab_size
    config["max_position_embeddings"] = max(spec.max_source_positions, spec.max_target_positions)
    plain = "Bart" if spec.family == "bart" else "Pegasus"
    task = "SequenceClassification" if has_classification_head else "ConditionalGeneration"
    config["architectures"] = [f"{'LSG' if spec.is_lsg else ''}{plain}For{task}"]
    return config | (_lsg_layout(args, spec.family) if spec.is_lsg else {})


def _lsg_layout(args: Mapping[str, Any], family: str) -> dict[str, object]:
    prefix, has_classifier = REMOTE_CODE[family]
    auto_map = {
        "AutoConfig": f"{prefix}Config",
        "AutoModel": f"{prefix}Model",
        "AutoModelForSeq2SeqLM": f"{prefix}ForConditionalGeneration",
    }
    if has_classifier:
        auto_map["AutoModelForSequenceClassification"] = f"{prefix}ForSequenceClassification"
    return {
        **{name: args[f"lsg_{name}"] for name in LSG_FIELDS},
        "base_model_prefix": "lsg",
        "auto_map": auto_map,
    }
