"""The Triton kernels' arguments besides tensors, and which sizes they support."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from lsg_fairseq.modules.counter_dropout import Dropout
from lsg_fairseq.modules.lsg_config import LSGConfig

# tl.dot needs at least 16; beyond 64, tiles of the widest heads exceed the shared memory of sm86.
SMALLEST_TILE, LARGEST_TILE = 16, 64
HEAD_DIMS = (16, 32, 64, 128)
# CUDA's limit on the second and third dimension of a grid.
MAX_GRID = 65535


class Call(NamedTuple):
    """Everything the kernels depend on besides the tensors that have gradients.

    absent: each sequence's mask (B,H,n) uint8, in the sequences' order; None: every key is present.
    """

    config: LSGConfig
    absent: tuple[Tensor | None, ...]
    seed: int
    dropout: Dropout | None


def fits_sizes(shape: tuple[int, ...], config: LSGConfig) -> bool:
    """Whether tiles can be made for queries of a shape (B,H,T,D)."""
    batch, heads, _, head_dim = shape
    return head_dim in HEAD_DIMS and query_tile(config.block_size) >= SMALLEST_TILE and max(batch, heads) <= MAX_GRID


def query_tile(block_size: int) -> int:
    """Queries in a tile: the largest power of two that divides a block, up to LARGEST_TILE."""
    return math.gcd(block_size, LARGEST_TILE)


def key_tile(num_keys: int) -> int:
    """Keys in a tile for windows of this many keys: the next power of two within the limits."""
    return min(max(1 << (num_keys - 1).bit_length(), SMALLEST_TILE), LARGEST_TILE)
