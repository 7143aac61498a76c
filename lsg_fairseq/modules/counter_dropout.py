"""Dropout by a counter-based hash: whether a probability is kept is a function of a seed and of its position.

A kernel recomputes the decision with the probability, in the forward and in the backward, so no mask is stored;
`keep_mask` makes the same decisions as a tensor. The mixing function is lowbias32 of Chris Wellons'
"hash prospector" (https://nullprogram.com/blog/2018/07/31/), found by a search for functions in which each bit of the
input flips each bit of the output half of the time.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

# lowbias32: x ^= x >> 16; x *= FIRST_FACTOR; x ^= x >> 15; x *= SECOND_FACTOR; x ^= x >> 16.
OUTER_SHIFT, INNER_SHIFT = 16, 15
FIRST_FACTOR, SECOND_FACTOR = 0x7FEB352D, 0x846CA68B
# 2^32 over the golden ratio, odd: neighbouring keys differ in many bits before they are mixed.
KEY_FACTOR = 0x9E3779B1
# Decisions compare 31 bits, so that seeds and thresholds are non-negative int32 in every kernel language.
DECISION_BITS = 31
WORD = 0xFFFFFFFF


class Dropout(NamedTuple):
    """A kernel's constants: a probability is kept, times `scale`, if its 31 random bits reach `threshold`."""

    threshold: int
    scale: float


def dropout_of(dropout_p: float) -> Dropout | None:
    """The kernels' form of a dropout probability; None: no dropout."""
    if dropout_p <= 0.0:
        return None
    threshold = min(round(dropout_p * 2**DECISION_BITS), 2**DECISION_BITS - 1)
    return Dropout(threshold, 1.0 / (1.0 - dropout_p) if dropout_p < 1.0 else 0.0)


def draw_seed() -> int:
    """A 31-bit seed from torch's default CPU generator: checkpointing restores it, and no GPU is synchronised."""
    return int(torch.randint(2**DECISION_BITS, ()))


def keep_mask(seed: int, shape: tuple[int, int, int, int], dropout_p: float, device: str = "cpu") -> Tensor:
    """Which probabilities are kept, as bool of `shape` (B,H,queries,keys); keys: globals, tokens, sparse tokens.

    The hash mixes the seed, the (batch, head) row, the query's index and the key's index, in this order.
    """
    batch, heads, num_queries, num_keys = shape
    kept = dropout_of(dropout_p)
    if kept is None:
        return torch.ones(shape, dtype=torch.bool, device=device)
    rows = torch.arange(batch * heads, device=device)[:, None, None]
    queries, keys = torch.arange(num_queries, device=device)[:, None], torch.arange(num_keys, device=device)
    stream = mix(mix(torch.tensor(seed, device=device)) ^ rows)
    bits = mix(mix(stream ^ queries) ^ (keys * KEY_FACTOR & WORD)) >> (32 - DECISION_BITS)
    return (bits >= kept.threshold).view(shape)


def mix(x: Tensor) -> Tensor:
    """lowbias32 of 32-bit words held in int64; products may wrap around, their low 32 bits stay right."""
    x = x ^ (x >> OUTER_SHIFT)
    x = x * FIRST_FACTOR & WORD
    x = x ^ (x >> INNER_SHIFT)
    x = x * SECOND_FACTOR & WORD
    return x ^ (x >> OUTER_SHIFT)
