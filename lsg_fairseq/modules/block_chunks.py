"""How block attention is cut into chunks: groups of (batch, head) rows, ranges of blocks, and their windows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from lsg_fairseq.modules.key_windows import Piece
from lsg_fairseq.modules.lsg_config import LSGConfig


class Part(NamedTuple):
    """One window of every block: keys [start + i*step, start + i*step + size) of a sequence with `margin` on each side.

    The margin is as wide as windows reach beyond the sequence, so that every window is whole.
    """

    sequence: str
    margin: int
    start: int
    size: int
    step: int

    def piece(self, first: int, count: int) -> Piece:
        """The windows of blocks [first, first + count)."""
        return Piece(self.sequence, first, count, self.start + first * self.step, self.size, self.step)

    def reaches_beyond(self, first: int, count: int, length: int) -> bool:
        """Whether windows of these blocks reach into the margins of a sequence of `length` keys."""
        start = self.start + first * self.step
        return start < self.margin or start + (count - 1) * self.step + self.size > self.margin + length


class Rows(NamedTuple):
    """Every (batch, head) pair of these two ranges."""

    batches: slice
    heads: slice

    def of(self, x: Tensor) -> Tensor:
        """Their part (b,h,…) of x (B,H,…)."""
        return x[self.batches, self.heads]


class Blocks(NamedTuple):
    """Blocks [first, first + count)."""

    first: int
    count: int


def parts_of(names: tuple[str, ...], config: LSGConfig) -> tuple[Part, ...]:
    """The windows of a block, in the sequences' order; section 3 of arXiv 2210.15497."""
    size = config.block_size
    parts = [Part("global", 0, 0, config.num_global_tokens, 0), Part("local", size, 0, 3 * size, size)]
    if "sparse" in names:
        step, sparse_size = config.sparse_step, config.sparse_block_size
        margin = step + sparse_size
        parts += [Part("sparse", margin, start, sparse_size, step) for start in (0, margin + 2 * step)]
    return tuple(parts)


def row_groups(batch: int, heads: int, num_blocks: int, most: int) -> Iterator[Rows]:
    """All rows in groups of at most `most` blocks; single rows where one row has more."""
    heads_each = max(1, min(heads, most // num_blocks))
    batches_each = max(1, most // (num_blocks * heads)) if heads_each == heads else 1
    for first in range(0, batch, batches_each):
        for head in range(0, heads, heads_each):
            batches = slice(first, min(first + batches_each, batch))
            yield Rows(batches, slice(head, min(head + heads_each, heads)))


def block_ranges(num_blocks: int, most: int) -> Iterator[Blocks]:
    """All blocks of a row, at most `most` at a time."""
    for first in range(0, num_blocks, max(1, most)):
        yield Blocks(first, min(max(1, most), num_blocks - first))


def with_margins(x: Tensor, rows: Rows, margin: int, dtype: torch.dtype) -> Tensor:
    """Rows of x (B,H,n,D) as (rows,margin+n+margin,D) of a dtype; the margins are zeros."""
    part = rows.of(x)
    wide = part.new_zeros(*part.shape[:2], part.size(2) + 2 * margin, part.size(3), dtype=dtype)
    without_margins(wide, margin).copy_(part)
    return wide.flatten(0, 1)


def without_margins(x: Tensor, margin: int) -> Tensor:
    """Undo `with_margins` along the tokens (…,margin+n+margin,D)."""
    return x.narrow(-2, margin, x.size(-2) - 2 * margin)
