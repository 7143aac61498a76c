"""Generating: tasks learn which checkpoints they generate with; searches get positions in the batch, as documented."""

from __future__ import annotations

import functools
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

# --- load_model_ensemble: the task has no way to the files that are beside a checkpoint.


def task_does_not_know_checkpoints() -> bool:
    return not hasattr(checkpoint_utils.load_model_ensemble, "lsg_fairseq_fix")


def tell_task_its_checkpoints() -> None:
    upstream = checkpoint_utils.load_model_ensemble

    @functools.wraps(upstream)
    def load_model_ensemble(filenames: Any, *args: Any, **kwargs: Any) -> Any:
        task = kwargs.get("task", args[1] if len(args) > 1 else None)
        if hasattr(task, "checkpoint_paths"):
            task.checkpoint_paths = tuple(filenames)
        return upstream(filenames, *args, **kwargs)

    load_model_ensemble.lsg_fairseq_fix = True
    checkpoint_utils.load_model_ensemble = load_model_ensemble


# --- a search is promised positions in the batch and gets the data set's ids (--diverse-beam-groups: IndexError).


def searches_get_data_set_ids() -> bool:
    return not _wraps("positions_in_batch")


def give_searches_positions() -> None:
    def positions_in_batch(generator: SequenceGenerator, sample: dict[str, Any]) -> dict[str, Any]:
        size = len(next(iter(sample["net_input"].values())))
        return {**sample, "id": torch.arange(size, device=_device(sample))}

    _before_generation(positions_in_batch)


# --- --match-source-len asks a decoder for as many tokens as the source has, and it may have fewer positions.


def matched_length_is_unlimited() -> bool:
    return not _wraps("matched_length_limited")


def limit_matched_length() -> None:
    def matched_length_limited(generator: SequenceGenerator, sample: dict[str, Any]) -> dict[str, Any]:
        net_input = sample["net_input"]
        if not generator.match_source_len or "src_lengths" not in net_input:
            return sample
        lengths = net_input["src_lengths"].clamp(max=generator.max_len - 1)
        return {**sample, "net_input": {**net_input, "src_lengths": lengths}}

    _before_generation(matched_length_limited)


def _before_generation(prepare: Any) -> None:
    upstream = SequenceGenerator._generate

    @functools.wraps(upstream)
    def _generate(generator: SequenceGenerator, sample: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        return upstream(generator, prepare(generator, sample), *args, **kwargs)

    _generate.lsg_fairseq_fixes = {*getattr(upstream, "lsg_fairseq_fixes", ()), prepare.__name__}
    SequenceGenerator._generate = _generate


def _wraps(name: str) -> bool:
    return name in getattr(SequenceGenerator._generate, "lsg_fairseq_fixes", ())


def _device(sample: dict[str, Any]) -> torch.device:
    return next(value.device for value in sample["net_input"].values() if isinstance(value, Tensor))
