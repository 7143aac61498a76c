"""Generating: tasks learn which checkpoints they generate with; searches get positions in the batch, as documented."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.sequence_generator import SequenceGenerator
from torch import Tensor

from lsg_fairseq.compat.patch import patches

# --- load_model_ensemble: the task has no way to the files that are beside a checkpoint.


@patches(checkpoint_utils, "load_model_ensemble")
def tell_task_its_checkpoints(upstream: Callable[..., Any], filenames: Any, *args: Any, **kwargs: Any) -> Any:
    task = kwargs.get("task", args[1] if len(args) > 1 else None)
    if hasattr(task, "checkpoint_paths"):
        task.checkpoint_paths = tuple(filenames)
    return upstream(filenames, *args, **kwargs)


# --- a search is promised positions in the batch and gets the data set's ids (--diverse-beam-groups: IndexError).


@patches(SequenceGenerator, "_generate")
def give_searches_positions(
    upstream: Callable[..., Any], generator: SequenceGenerator, sample: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    first = next(value for value in sample["net_input"].values() if isinstance(value, Tensor))
    sample = {**sample, "id": torch.arange(len(first), device=first.device)}
    return upstream(generator, sample, *args, **kwargs)


# --- --match-source-len asks a decoder for as many tokens as the source has, and it may have fewer positions.


@patches(SequenceGenerator, "_generate")
def limit_matched_length(
    upstream: Callable[..., Any], generator: SequenceGenerator, sample: dict[str, Any], *args: Any, **kwargs: Any
) -> Any:
    net_input = sample["net_input"]
    if generator.match_source_len and "src_lengths" in net_input:
        lengths = net_input["src_lengths"].clamp(max=generator.max_len - 1)
        sample = {**sample, "net_input": {**net_input, "src_lengths": lengths}}
    return upstream(generator, sample, *args, **kwargs)
