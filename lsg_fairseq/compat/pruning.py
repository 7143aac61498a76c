"""Pruning: --encoder-layers-to-keep and --decoder-layers-to-keep, as lists as well as text."""

from __future__ import annotations

import re
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from fairseq import checkpoint_utils
from omegaconf import DictConfig, open_dict
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError

SIDES = ("encoder", "decoder")

# --- the flag is parsed to a list and then split as text; a checkpoint loses the layers of a side that is not pruned,
# --- and one that was pruned before is pruned again.


def layers_to_keep_are_text() -> bool:
    return checkpoint_utils.prune_state_dict is not prune_state_dict


def keep_listed_layers() -> None:
    checkpoint_utils.prune_state_dict = prune_state_dict


def layers_to_keep(settings: Any, side: str) -> list[int] | None:
    """The layers of a side that are kept, in order; None where all are.

    Raises:
        LSGError: the setting is not a list of layer numbers.
    """
    value = getattr(settings, f"{side}_layers_to_keep", None)
    if not value and value != 0:
        return None
    try:
        numbers = value.split(",") if isinstance(value, str) else value
        kept = sorted({int(number) for number in ([numbers] if isinstance(numbers, int) else numbers)})
    except (TypeError, ValueError):
        kept = [-1]
    if not kept or kept[0] < 0:
        raise LSGError(f"--{side}-layers-to-keep must be layer numbers with commas between, as 0,2,4, not {value!r}")
    return kept


def count_kept_layers(settings: Namespace | DictConfig) -> None:
    """Set the numbers of layers to those that are kept, as fairseq's models do where the setting is text."""
    for side in SIDES:
        kept = layers_to_keep(settings, side)
        if kept is not None:
            _set(settings, f"{side}_layers", len(kept))


def forget_kept_layers(settings: Namespace | DictConfig) -> None:
    """Clear the setting: a pruned checkpoint has the layers that its sizes state."""
    for side in SIDES:
        if hasattr(settings, f"{side}_layers_to_keep"):
            _set(settings, f"{side}_layers_to_keep", None)


def prune_state_dict(state_dict: Mapping[str, Tensor], model_cfg: Any) -> Mapping[str, Tensor]:
    """A state dict of the layers that the settings keep, numbered from 0.

    A side that has as many layers as are kept has been pruned already. The settings forget what was kept, as in
    fairseq, so that what is saved next is not pruned again.

    Raises:
        LSGError: a layer that is to be kept is not there.
    """
    if model_cfg is None:
        return state_dict
    for side in SIDES:
        kept = layers_to_keep(model_cfg, side)
        if kept is not None:
            state_dict = _prune_side(state_dict, side, kept)
    forget_kept_layers(model_cfg)
    return state_dict


def _prune_side(state_dict: Mapping[str, Tensor], side: str, kept: list[int]) -> Mapping[str, Tensor]:
    pattern = re.compile(rf"^({side}\b.*?\.layers\.)(\d+)(?=\.)")
    found = {name: pattern.match(name) for name in state_dict}
    layers = {int(match[2]) for match in found.values() if match}
    if len(layers) == len(kept) or not layers:
        return state_dict
    if not layers.issuperset(kept):
        raise LSGError(
            f"--{side}-layers-to-keep names layer {max(set(kept) - layers)}, but the checkpoint has {len(layers)} "
            f"layers: 0 to {max(layers)}"
        )
    new_number = {layer: str(index) for index, layer in enumerate(kept)}
    return {
        name if match is None else match[1] + new_number[int(match[2])] + name[match.end() :]: state_dict[name]
        for name, match in found.items()
        if match is None or int(match[2]) in new_number
    }


def _set(settings: Namespace | DictConfig, name: str, value: Any) -> None:
    if isinstance(settings, DictConfig):
        with open_dict(settings):
            settings[name] = value
    else:
        setattr(settings, name, value)
