"""Batching: the last batch is kept, length buckets need no --max-tokens, shortening leaves room for `<s>`, `</s>`."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
from fairseq.data import FairseqDataset, data_utils
from fairseq.tasks import denoising, masked_lm, span_masked_lm

from lsg_fairseq.compat.patch import Patch, patches
from lsg_fairseq.modules.lsg_config import LSGError

# --- batch_by_size: the last batch, which holds the longest examples, is discarded if its size is no multiple of 8.


def last_batch_is_dropped() -> bool:
    batches = data_utils.batch_by_size(
        np.arange(3), lambda index: 1, np.ones(3, np.int64), required_batch_size_multiple=8
    )
    return sum(len(batch) for batch in batches) < 3


@patches(data_utils, "batch_by_size", last_batch_is_dropped)
def keep_last_batch(upstream: Callable[..., Any], indices: Any, *args: Any, **kwargs: Any) -> list[Any]:
    indices = np.fromiter(indices, dtype=np.int64, count=-1)
    if not len(indices):
        return []
    try:
        batches = list(upstream(indices, *args, **kwargs))
    except AssertionError as error:
        too_long = _too_long(upstream, indices, args, kwargs)
        if too_long is None:
            raise
        raise too_long from error
    if _keyword(upstream, "fixed_shapes", args, kwargs) is not None:
        return batches
    # Batches follow the order of the indices, so what is missing is the tail, and it is one batch.
    tail = indices[sum(len(batch) for batch in batches) :]
    return [*batches, tail] if len(tail) else batches


def _too_long(
    upstream: Callable[..., Any], indices: np.ndarray, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> LSGError | None:
    """The error of examples above --max-tokens, which would not fit a batch of their own."""
    lengths, limit = (_keyword(upstream, name, args, kwargs) for name in ("num_tokens_vec", "max_tokens"))
    if lengths is None or limit is None or not (lengths > limit).any():
        return None
    return LSGError(
        f"{(lengths > limit).sum():,} of {len(indices):,} examples have up to {lengths.max():,} tokens, and a batch "
        f"may have {limit:,}: use --max-tokens {lengths.max()} or more (--max-tokens-valid where given), or cut them "
        "(--max-source-positions, or --shorten-method where a task has it)"
    )


def _keyword(function: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    bound = inspect.signature(function).bind_partial(None, *args, **kwargs)
    return bound.arguments.get(name)


# --- --num-batch-buckets asks for --max-tokens, though --batch-size says how large a batch is.


@patches(FairseqDataset, "batch_by_size")
def bucket_by_batch_size(
    upstream: Callable[..., Any],
    dataset: FairseqDataset,
    indices: Any,
    max_tokens: int | None = None,
    max_sentences: int | None = None,
    required_batch_size_multiple: int = 1,
) -> list[Any]:
    shapes = dataset.get_batch_shapes()
    if shapes is not None and max_tokens is None and max_sentences is not None:
        # So large that --batch-size alone decides.
        max_tokens = max_sentences * max(int(length) for _, length in shapes)
    return upstream(dataset, indices, max_tokens, max_sentences, required_batch_size_multiple)


# --- documents are cut to --tokens-per-sample, and then get <s> (and </s>): one or two too long, so that they are
# --- skipped (masked_lm), or longer than the model (denoising).

# What each task adds after cutting. masked_lm cuts documents that end in </s> already, which goes with what is cut.
ADDED_TOKENS = {masked_lm: 1, denoising: 2, span_masked_lm: 2}


def _leave_room_in(module: ModuleType, added: int) -> Patch:
    @patches(module, "maybe_shorten_dataset")
    def leave_room(upstream: Callable[..., FairseqDataset], *args: Any) -> FairseqDataset:
        *others, tokens_per_sample, seed = args
        return upstream(*others, tokens_per_sample - added, seed)

    return leave_room


leave_room_when_cutting = tuple(_leave_room_in(module, added) for module, added in ADDED_TOKENS.items())
