"""Hugging Face's generation settings in fairseq's names and meanings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lsg_fairseq.huggingface.config_fields import plain_model_type
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.families import MODEL_TYPES

# The key of task_specific_params that this project's task reads.
TASK = "summarization"
# One limit may be counted with or without the decoder's start token. Naming one drops what an outer level says.
LIMITS = {"min_length": "min_new_tokens", "max_length": "max_new_tokens"}
# What each setting must be: (type, smallest value).
NUMBERS: dict[str, tuple[type, float]] = {
    "num_beams": (int, 1),
    "length_penalty": (float, float("-inf")),
    "no_repeat_ngram_size": (int, 0),
    "min_length": (int, 0),
    "min_new_tokens": (int, 0),
    "max_length": (int, 2),
    "max_new_tokens": (int, 1),
}
# Settings that change transformers' output and have no counterpart in fairseq, with the values that change nothing.
WITHOUT_COUNTERPART: dict[str, tuple[object, ...]] = {
    "do_sample": (False,),
    "num_beam_groups": (1,),
    "diversity_penalty": (0.0,),
    "repetition_penalty": (1.0,),
    "encoder_repetition_penalty": (1.0,),
    "encoder_no_repeat_ngram_size": (0,),
    "penalty_alpha": (0.0,),
    "bad_words_ids": ([],),
    "force_words_ids": ([],),
    "constraints": ([],),
    "sequence_bias": ({}, []),
    "suppress_tokens": ([],),
    "begin_suppress_tokens": ([],),
    "exponential_decay_length_penalty": (),
    "stop_strings": ([],),
    "num_return_sequences": (1,),
}


def generation_settings(
    config: Mapping[str, Any], generation_config: Mapping[str, Any] | None = None
) -> tuple[dict[str, object], list[str]]:
    """Translate what a checkpoint says about generation; returns the settings and what they cannot express.

    A value in generation_config.json wins over config.json, and config.json over its own
    task_specific_params["summarization"] (where older BART configurations keep lengths and beams). What none of them
    states is left out, but for the two forced tokens and the decoder start.

    Settings, with s the decoder's start token, which transformers counts as part of an output and fairseq does not:
        beam = num_beams; lenpen = length_penalty (both divide by (tokens with </s>) ** penalty); no_repeat_ngram_size
        min_len = min_length - 1 (not below 0) or min_new_tokens: tokens before </s>
        max_len_b = max_length - 2 or max_new_tokens - 1: tokens before a forced </s>
        forced_bos_token_id: Hugging Face id of the first token after s, or None
        forced_eos: whether an output that reaches its maximum is closed with </s>, as fairseq always does
        decoder_start_token_id: Hugging Face id of s

    Raises:
        LSGError: a setting is not the number it should be.
    """
    stated = _merge_levels(config, generation_config or {})
    for name, (kind, least) in NUMBERS.items():
        if name in stated:
            _check_number(name, stated[name], kind, least)
    settings: dict[str, object] = {}
    renamed = {"num_beams": "beam", "length_penalty": "lenpen", "no_repeat_ngram_size": "no_repeat_ngram_size"}
    settings |= {fairseq: stated[hf] for hf, fairseq in renamed.items() if hf in stated}
    settings |= _length_limits(stated)
    forced_eos = stated.get("forced_eos_token_id", _end_of_sequence(config))
    settings["forced_bos_token_id"] = _forced_bos(stated)
    settings["forced_eos"] = forced_eos is not None
    settings["decoder_start_token_id"] = _decoder_start(config, stated)
    return settings, _what_is_lost(stated, forced_eos, _end_of_sequence(config))


def source_prefix(config: Mapping[str, Any]) -> str:
    """What transformers' summarization pipeline puts in front of every document; "" where nothing is stated.

    Raises:
        LSGError: it is not a string, or where it stands is no object.
    """
    task_specific = _object(_object(config, "task_specific_params"), TASK)
    stated = next((level["prefix"] for level in (task_specific, config) if level.get("prefix") is not None), "")
    if not isinstance(stated, str):
        raise LSGError(f"config.json must state prefix as a string, not {stated!r:.80}: correct the file")
    return stated


def _merge_levels(config: Mapping[str, Any], generation_config: Mapping[str, Any]) -> dict[str, Any]:
    """Lay the three levels over each other; None means not stated, except for an end that is not forced."""
    task_specific = _object(_object(config, "task_specific_params"), TASK)
    merged: dict[str, Any] = {}
    for level in (task_specific, config, generation_config):
        stated = {k: v for k, v in level.items() if v is not None or k == "forced_eos_token_id"}
        for pair in LIMITS.items():
            if any(name in stated for name in pair):
                for name in pair:
                    merged.pop(name, None)
        merged |= stated
    return merged


def _object(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = config.get(name)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise LSGError(f"config.json must state {name} as an object, not {value!r:.80}: correct the file")
    return value


def _length_limits(stated: Mapping[str, Any]) -> dict[str, object]:
    """Return min_len and max_len_b as far as they are stated; counts of new tokens win, as in transformers."""
    limits: dict[str, object] = {}
    if "min_new_tokens" in stated:
        limits["min_len"] = stated["min_new_tokens"]
    elif "min_length" in stated:
        limits["min_len"] = max(0, stated["min_length"] - 1)
    if "max_new_tokens" in stated:
        limits["max_len_b"] = stated["max_new_tokens"] - 1
    elif "max_length" in stated:
        limits["max_len_b"] = stated["max_length"] - 2
    return limits


def _forced_bos(stated: Mapping[str, Any]) -> int | None:
    """The oldest BART configurations say force_bos_token_to_be_generated instead of naming the token."""
    if "forced_bos_token_id" in stated:
        return stated["forced_bos_token_id"]
    return stated.get("bos_token_id", 0) if stated.get("force_bos_token_to_be_generated") else None


def _end_of_sequence(config: Mapping[str, Any]) -> int:
    """Return the id of </s>, which transformers forces by default."""
    stated = config.get("eos_token_id")
    return _assumed(config)["eos_token_id"] if stated is None else stated


def _decoder_start(config: Mapping[str, Any], stated: Mapping[str, Any]) -> int:
    assumed = _assumed(config)
    same = assumed["decoder_start_token_id"] == assumed["eos_token_id"]
    default = _end_of_sequence(config) if same else assumed["decoder_start_token_id"]
    return stated.get("decoder_start_token_id", default)


def _assumed(config: Mapping[str, Any]) -> Mapping[str, int]:
    """The token ids that transformers' configuration class assumes; BART's for an unknown model_type."""
    return MODEL_TYPES.get(plain_model_type(config) or "", MODEL_TYPES["bart"])[0].token_ids


def _what_is_lost(stated: Mapping[str, Any], forced_eos: object, eos: int) -> list[str]:
    """Return one sentence for each setting whose meaning fairseq's beam search does not have."""
    notes = []
    if stated.get("early_stopping", False) is not True and stated.get("num_beams", 1) > 1:
        notes.append(
            f"early_stopping={stated.get('early_stopping', False)!r} searches on for better hypotheses, and fairseq "
            "stops as soon as `beam` of them are finished (early_stopping=True): outputs can differ from transformers'"
        )
    if forced_eos is None:
        notes.append("forced_eos_token_id is null, and fairseq always closes an output of the maximum length with </s>")
    elif forced_eos not in (eos, [eos]):
        notes.append(f"forced_eos_token_id={forced_eos!r} is not </s> ({eos}), and fairseq can force </s> only")
    for name, neutral in WITHOUT_COUNTERPART.items():
        if name in stated and stated[name] not in neutral:
            notes.append(f"{name}={stated[name]!r} has no counterpart here and is left out")
    return notes


def _check_number(name: str, value: object, kind: type, least: float) -> None:
    types = (int, float) if kind is float else (int,)
    if isinstance(value, bool) or not isinstance(value, types) or value < least:
        raise LSGError(
            f"the generation setting {name} must be {_describe(kind, least)}, not {value!r}: correct the file"
        )


def _describe(kind: type, least: float) -> str:
    return "a number" if kind is float else f"an integer of at least {least}"
