"""Checked values of a Hugging Face config.json, and its LSG settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from lsg_fairseq.modules.lsg_config import FIELD_ALIASES, LSGConfig, LSGError

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
# LSGConfig fields of this package that the public LSG configurations lack.
NOT_IN_HF = ("attention", "lsh_seed")
LSG_FIELDS = tuple(f.name for f in fields(LSGConfig) if f.name not in NOT_IN_HF)
# What the public modelling files know (lsg_converter 0.1.9).
PUBLIC_SELECTIONS = ("none", "norm", "pooling", "bos_pooling", "stride", "block_stride", "lsh")


def plain_model_type(config: Mapping[str, Any]) -> str | None:
    """model_type, without the `lsg` prefix of LSG checkpoints; None if it is not a string."""
    stated = config.get("model_type")
    return stated.removeprefix("lsg_").removeprefix("lsg-") if isinstance(stated, str) else None


def is_lsg_config(config: Mapping[str, Any]) -> bool:
    """Whether config.json describes an LSG checkpoint: the public ones say so in two or three places."""
    names = [*stated_names(config), str(config.get("model_type"))]
    return config.get("base_model_prefix") == "lsg" or any(str(name).lower().startswith("lsg") for name in names)


def stated_names(config: Mapping[str, Any]) -> list[Any]:
    """What config.json states as architectures, [] if nothing.

    Raises:
        LSGError: it is no list.
    """
    names = config.get("architectures") or []
    if not isinstance(names, list):
        raise LSGError(f"config.json must state architectures as a list of names, not {names!r:.80}: correct the file")
    return names


def lsg_config_from_hf(config: Mapping[str, Any]) -> LSGConfig:
    """Return the LSG settings that config.json states, defaults elsewhere (a short model's: all defaults).

    Raises:
        LSGError: a stated value is not allowed.
    """
    return LSGConfig.from_dict({name: config[name] for name in (*LSG_FIELDS, *FIELD_ALIASES) if name in config})


def unknown_to_hf(args: Mapping[str, Any]) -> list[str]:
    """Sentences about attention, in fairseq's model arguments, that the public modelling files do not have."""
    notes = []
    if args["lsg_attention"] != "lsg":
        notes.append(
            f"config.json has no field for attention {args['lsg_attention']!r}: transformers will compute LSG attention"
        )
    if args["lsg_sparsity_type"] not in PUBLIC_SELECTIONS:
        notes.append(
            f"transformers' LSG code has no sparsity_type {args['lsg_sparsity_type']!r}: config.json names it, but "
            "only this package computes it, after the module that registers it"
        )
    return notes


def size_of(config: Mapping[str, Any], name: str, default: int) -> int:
    """The setting `name`, a positive integer.

    Raises:
        LSGError: it is not a positive integer.
    """
    value = config.get(name, default)
    if type(value) is not int or value < 1:
        raise LSGError(f"config.json must state {name} as a positive integer, not {value!r}: correct the file")
    return value


def rate_of(config: Mapping[str, Any], name: str, default: float) -> float:
    """The setting `name`, a number from 0 to 1; null counts as missing.

    Raises:
        LSGError: it is not a number from 0 to 1.
    """
    value = default if config.get(name) is None else config[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise LSGError(f"config.json must state {name} as a number from 0 to 1, not {value!r}: correct the file")
    return float(value)


def epsilon_of(config: Mapping[str, Any], name: str, default: float) -> float:
    """The setting `name`, a number between 0 and 1, both excluded.

    Raises:
        LSGError: it is not such a number.
    """
    value = config.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1:
        raise LSGError(f"config.json must state {name} as a number between 0 and 1, not {value!r}: correct it")
    return float(value)


def activation_of(config: Mapping[str, Any], key: str) -> str:
    """Return fairseq's name of the activation that config.json states under `key` (default: gelu).

    Raises:
        LSGError: fairseq has no such activation.
    """
    name = config.get(key, "gelu")
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise LSGError(
            f"{key} {name!r} has no counterpart in fairseq: checkpoints with {', '.join(ACTIVATIONS)} can be converted"
        )
    return ACTIVATIONS[name]


def hf_activation(name: str) -> str:
    """Return transformers' name of an activation of fairseq.

    Raises:
        LSGError: transformers has no such activation.
    """
    for hf, fairseq in ACTIVATIONS.items():
        if name == fairseq:
            return hf
    known = ", ".join(dict.fromkeys(ACTIVATIONS.values()))
    raise LSGError(f"activation_fn {name!r} has no counterpart in transformers: models with {known} can be exported")


def label_names(config: Mapping[str, Any], count: int) -> list[str]:
    """The names of `count` classes by their numbers, out of id2label; [] where it names others, or none."""
    stated = config.get("id2label")
    names = {str(index): name for index, name in stated.items()} if isinstance(stated, Mapping) else {}
    ordered = [names.get(str(index)) for index in range(count)]
    return ordered if len(names) == count and all(isinstance(name, str) for name in ordered) else []
