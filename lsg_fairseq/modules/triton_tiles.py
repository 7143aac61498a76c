"""What the Triton kernels share: their arguments, and loading, masking and dropout of a tile.

A program of the grid (tiles, H, B) works on one (batch, head). Imported, as triton_kernels is, only when a kernel is
about to run: triton comes with torch's CUDA builds, not with others.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import triton
import triton.language as tl

from lsg_fairseq.modules import counter_dropout

FIRST_FACTOR, SECOND_FACTOR = tl.constexpr(counter_dropout.FIRST_FACTOR), tl.constexpr(counter_dropout.SECOND_FACTOR)
OUTER_SHIFT, INNER_SHIFT = tl.constexpr(counter_dropout.OUTER_SHIFT), tl.constexpr(counter_dropout.INNER_SHIFT)
KEY_FACTOR, UNUSED_BITS = tl.constexpr(counter_dropout.KEY_FACTOR), tl.constexpr(32 - counter_dropout.DECISION_BITS)

# Which keys a sequence holds.
GLOBAL, LOCAL, SPARSE = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)


class Heads(NamedTuple):
    """A (B,H,n,D) tensor, D contiguous, or a contiguous-in-n (B,H,n) mask: where it begins and its strides."""

    pointer: Any
    batch_stride: int
    head_stride: int
    row_stride: int


class Sequence(NamedTuple):
    """One of the three kinds of keys.

    absent: (B,H,n) uint8, or None: every key is there. position: of its first key in the row of all keys. kind: GLOBAL,
    LOCAL or SPARSE. tile: keys in a tile. ragged: windows may begin or end within a tile.
    """

    key: Heads
    value: Heads
    absent: Heads | None
    length: int
    position: int
    kind: tl.constexpr
    tile: tl.constexpr
    ragged: tl.constexpr


class Sequences(NamedTuple):
    """The three kinds of keys; sparse is None without sparse tokens."""

    globals: Sequence
    local: Sequence
    sparse: Sequence | None


class Queries(NamedTuple):
    """A backward's inputs by query; log_sums (base 2) and deltas are contiguous (B,H,T) fp32."""

    query: Heads
    grad: Heads
    log_sums: Any
    deltas: Any
    length: int


class Layout(NamedTuple):
    """Sizes known when a kernel is compiled.

    tile: queries in a tile; part: queries that a program of the globals' gradients takes; block: b. Block i sees the
    sparse tokens [i*step + offset, i*step + offset + size) with the two offsets left and right. scale is 1/sqrt(D),
    log2_scale that over log 2.
    """

    head_dim: tl.constexpr
    tile: tl.constexpr
    part: tl.constexpr
    block: tl.constexpr
    step: tl.constexpr
    size: tl.constexpr
    left: tl.constexpr
    right: tl.constexpr
    scale: tl.constexpr
    log2_scale: tl.constexpr


@triton.jit
def mix(x: tl.tensor) -> tl.tensor:
    """counter_dropout.mix of uint32."""
    x ^= x >> OUTER_SHIFT
    x *= FIRST_FACTOR
    x ^= x >> INNER_SHIFT
    x *= SECOND_FACTOR
    return x ^ (x >> OUTER_SHIFT)


@triton.jit
def dropped(x: tl.tensor, draws: tl.tuple, queries: tl.tensor, keys: tl.tensor) -> tl.tensor:
    """Dropout of a tile of this program's (batch, head), at `queries` and `keys`, which broadcast to its shape.

    draws: the seed, and counter_dropout's Dropout or None.
    """
    seed, dropout = draws
    if dropout is None:
        return x
    row = tl.program_id(2) * tl.num_programs(1) + tl.program_id(1)
    stream = mix(mix(seed.to(tl.uint32)) ^ row.to(tl.uint32))
    bits = mix(mix(stream ^ queries.to(tl.uint32)) ^ (keys.to(tl.uint32) * KEY_FACTOR)) >> UNUSED_BITS
    return tl.where(bits.to(tl.int32) >= dropout.threshold, x * dropout.scale, 0.0)


@triton.jit
def head_of(x: Heads) -> tl.tensor:
    """Pointer to the first row of this program's (batch, head)."""
    return x.pointer + tl.program_id(2).to(tl.int64) * x.batch_stride + tl.program_id(1).to(tl.int64) * x.head_stride


@triton.jit
def rows_at(x: Heads, first: tl.tensor, rows: tl.constexpr, width: tl.constexpr) -> tl.tensor:
    """Pointers (rows,width) to rows from `first` on; 64 bits up to the tile, 32 within it."""
    start = head_of(x) + tl.cast(first, tl.int64) * x.row_stride
    return start + (tl.arange(0, rows)[:, None] * x.row_stride + tl.arange(0, width)[None, :])


@triton.jit
def by_query(x: tl.tensor, first: tl.tensor, length: tl.tensor, tile: tl.constexpr) -> tl.tensor:
    """Pointers (tile) into a contiguous (B,H,T) tensor."""
    row = tl.program_id(2).to(tl.int64) * tl.num_programs(1) + tl.program_id(1)
    return x + row * length + first + tl.arange(0, tile)


@triton.jit
def load_keys(sequence: Sequence, first: tl.tensor, stop: tl.tensor, head_dim: tl.constexpr) -> tl.tuple:
    """A tile of keys and values, (tile,D) each, and which of its rows are there, (tile) bool."""
    within = first + tl.arange(0, sequence.tile) < stop
    keys = rows_at(sequence.key, first, sequence.tile, head_dim)
    values = rows_at(sequence.value, first, sequence.tile, head_dim)
    if sequence.ragged:
        key, value = tl.load(keys, within[:, None], 0.0), tl.load(values, within[:, None], 0.0)
    else:
        key, value = tl.load(keys), tl.load(values)
    if sequence.absent is not None:
        absent = tl.load(head_of(sequence.absent) + first + tl.arange(0, sequence.tile), within, 1)
        within = within & (absent == 0)
    return key, value, within


@triton.jit
def only_there(x: tl.tensor, within: tl.tensor, sequence: Sequence, other: tl.constexpr) -> tl.tensor:
    """x with `other` where a key is absent; x itself if every key is present."""
    if sequence.ragged or sequence.absent is not None:
        return tl.where(within, x, other)
    return x
