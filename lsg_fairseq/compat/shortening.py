"""Shortening: --shorten-method must leave room for the `<s>` and `</s>` that a task adds to what it has cut."""

from __future__ import annotations

import functools
from typing import Any

from fairseq.data import FairseqDataset
from fairseq.tasks import denoising, masked_lm, span_masked_lm

# --- documents are cut to --tokens-per-sample, and then get <s> (and </s>): one or two too long, so that they are
# --- skipped (masked_lm), or longer than the model (denoising).

# What each task adds after cutting. masked_lm cuts documents that end in </s> already, which goes with what is cut.
ADDED_TOKENS = {masked_lm: 1, denoising: 2, span_masked_lm: 2}


def cut_documents_are_too_long() -> bool:
    return any(not hasattr(module.maybe_shorten_dataset, "lsg_fairseq_fix") for module in ADDED_TOKENS)


def leave_room_when_cutting() -> None:
    for module, added in ADDED_TOKENS.items():
        module.maybe_shorten_dataset = _with_room(module.maybe_shorten_dataset, added)


def _with_room(upstream: Any, added: int) -> Any:
    @functools.wraps(upstream)
    def maybe_shorten_dataset(
        dataset: FairseqDataset, split: str, splits: str, method: str, tokens_per_sample: int, seed: int
    ) -> FairseqDataset:
        return upstream(dataset, split, splits, method, tokens_per_sample - added, seed)

    maybe_shorten_dataset.lsg_fairseq_fix = True
    return maybe_shorten_dataset
