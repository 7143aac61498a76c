"""LSG block attention as Triton kernels: globals, local and sparse windows read where they lie, forward and backward.

A program computes one tile: of queries in `attend_kernel` and `query_gradient_kernel`, of keys in
`key_gradient_kernel`, so that every gradient is written once and without atomics. A tile of queries lies within a
block; windows are then ranges of keys, and no tile that a block cannot see is visited. Sums are fp32. Scores are in
units of log 2, because exp2 is what GPUs have. The softmax is carried over the tiles of keys, and computed again from
its log-sum in the backward: "FlashAttention-2", Dao, arXiv 2307.08691, algorithms 1 and 2.
"""

from __future__ import annotations

import triton
import triton.language as tl

from lsg_fairseq.modules.counter_dropout import Dropout
from lsg_fairseq.modules.triton_tiles import (
    LOCAL,
    SPARSE,
    Heads,
    Layout,
    Queries,
    Sequence,
    Sequences,
    by_query,
    dropped,
    load_keys,
    only_there,
    rows_at,
)


@triton.jit
def local_window(block: tl.tensor, sequence: Sequence, layout: Layout) -> tl.tuple:
    """A block sees the tokens of its own block and of one on each side."""
    start = tl.maximum(block - 1, 0) * layout.block
    return start, tl.minimum((block + 2) * layout.block, sequence.length)


@triton.jit
def sparse_window(block: tl.tensor, offset: tl.constexpr, sequence: Sequence, layout: Layout) -> tl.tuple:
    """The sparse window at an offset, clipped to the sequence; empty if stop <= start."""
    start = block * layout.step + offset
    return tl.maximum(start, 0), tl.minimum(start + layout.size, sequence.length)


@triton.jit
def attend_window(
    carry: tl.tuple, tile: tl.tuple, sequence: Sequence, window: tl.tuple, draws: tl.tuple, layout: Layout
) -> tl.tuple:
    """Continue the online softmax (output, highest score, sum) of a tile of queries over keys [start, stop)."""
    output, highest, total = carry
    query, queries = tile
    start, stop = window
    for first in range(start, stop, sequence.tile):
        key, value, within = load_keys(sequence, first, stop, layout.head_dim)
        scores = tl.dot(query, tl.trans(key)) * layout.log2_scale
        scores = only_there(scores, within[None, :], sequence, float("-inf"))
        new_highest = tl.maximum(highest, tl.max(scores, 1))
        # Tiles without a visible key must not subtract one infinity from another.
        subtracted = tl.where(new_highest == float("-inf"), 0.0, new_highest)
        weights = tl.exp2(scores - subtracted[:, None])
        shrink = tl.exp2(highest - subtracted)
        total = total * shrink + tl.sum(weights, 1)
        keys = sequence.position + first + tl.arange(0, sequence.tile)
        weights = dropped(weights, draws, queries[:, None], keys[None, :])
        output = tl.dot(weights.to(value.dtype), value, output * shrink[:, None])
        highest = new_highest
    return output, highest, total


@triton.jit(do_not_specialize=["seed"])
def attend_kernel(
    query: Heads, sequences: Sequences, results: tl.tuple, seed: int, dropout: Dropout, layout: Layout
) -> None:
    """Write the output (B,H,T,D) and, by query, the log of the sum that its softmax divides by."""
    output, log_sums = results
    draws = seed, dropout
    first = tl.program_id(0) * layout.tile
    block = first // layout.block
    tile = tl.load(rows_at(query, first, layout.tile, layout.head_dim)), first + tl.arange(0, layout.tile)
    nothing = tl.zeros([layout.tile], tl.float32)
    carry = tl.zeros([layout.tile, layout.head_dim], tl.float32), nothing - float("inf"), nothing
    carry = attend_window(carry, tile, sequences.globals, (0, sequences.globals.length), draws, layout)
    local = local_window(block, sequences.local, layout)
    carry = attend_window(carry, tile, sequences.local, local, draws, layout)
    if sequences.sparse is not None:
        left = sparse_window(block, layout.left, sequences.sparse, layout)
        right = sparse_window(block, layout.right, sequences.sparse, layout)
        carry = attend_window(carry, tile, sequences.sparse, left, draws, layout)
        carry = attend_window(carry, tile, sequences.sparse, right, draws, layout)
    values, highest, total = carry
    seen = total > 0
    total = tl.where(seen, total, 1.0)
    # Infinite where nothing is seen: the backward's weights exp2(score - log_sum) are 0 there.
    log_sum = tl.where(seen, highest + tl.log2(total), float("inf"))
    values = (values / total[:, None]).to(output.pointer.dtype.element_ty)
    tl.store(rows_at(output, first, layout.tile, layout.head_dim), values)
    tl.store(by_query(log_sums, first, sequences.local.length, layout.tile), log_sum)


@triton.jit
def query_gradient_window(
    total, tile: tl.tuple, sequence: Sequence, window: tl.tuple, draws: tl.tuple, layout: Layout
) -> tl.tensor:
    """Add the share of the keys [start, stop) to the gradient of a tile of queries, the scale left out."""
    query, grad, log_sum, delta, queries = tile
    start, stop = window
    for first in range(start, stop, sequence.tile):
        key, value, within = load_keys(sequence, first, stop, layout.head_dim)
        weights = tl.exp2(tl.dot(query, tl.trans(key)) * layout.log2_scale - log_sum[:, None])
        weights = only_there(weights, within[None, :], sequence, 0.0)
        keys = sequence.position + first + tl.arange(0, sequence.tile)
        grad_weights = dropped(tl.dot(grad, tl.trans(value)), draws, queries[:, None], keys[None, :])
        grad_scores = weights * (grad_weights - delta[:, None])
        total = tl.dot(grad_scores.to(key.dtype), key, total)
    return total


@triton.jit(do_not_specialize=["seed"])
def query_gradient_kernel(
    queries: Queries, sequences: Sequences, results: tl.tuple, seed: int, dropout: Dropout, layout: Layout
) -> None:
    """Write the gradient of the queries and, for key_gradient_kernel, the deltas: sums of output times its gradient."""
    output, grad_query = results
    draws = seed, dropout
    first = tl.program_id(0) * layout.tile
    block = first // layout.block
    grad = tl.load(rows_at(queries.grad, first, layout.tile, layout.head_dim))
    attended = tl.load(rows_at(output, first, layout.tile, layout.head_dim))
    delta = tl.sum(attended.to(tl.float32) * grad.to(tl.float32), 1)
    tl.store(by_query(queries.deltas, first, queries.length, layout.tile), delta)
    query = tl.load(rows_at(queries.query, first, layout.tile, layout.head_dim))
    log_sum = tl.load(by_query(queries.log_sums, first, queries.length, layout.tile))
    tile = query, grad, log_sum, delta, first + tl.arange(0, layout.tile)
    total = tl.zeros([layout.tile, layout.head_dim], tl.float32)
    total = query_gradient_window(total, tile, sequences.globals, (0, sequences.globals.length), draws, layout)
    local = local_window(block, sequences.local, layout)
    total = query_gradient_window(total, tile, sequences.local, local, draws, layout)
    if sequences.sparse is not None:
        left = sparse_window(block, layout.left, sequences.sparse, layout)
        right = sparse_window(block, layout.right, sequences.sparse, layout)
        total = query_gradient_window(total, tile, sequences.sparse, left, draws, layout)
        total = query_gradient_window(total, tile, sequences.sparse, right, draws, layout)
    total = (total * layout.scale).to(grad_query.pointer.dtype.element_ty)
    tl.store(rows_at(grad_query, first, layout.tile, layout.head_dim), total)


@triton.jit
def queries_at(
    first: tl.tensor, offset: tl.constexpr, sequence: Sequence, num_queries: tl.tensor, layout: Layout
) -> tl.tuple:
    """The queries [start, stop) of the blocks whose sparse window at an offset meets a tile of keys."""
    # i*step + offset <= last key and i*step + offset + size > first key; signs apart, since // rounds towards zero.
    last, before = first + sequence.tile - 1 - offset, first - offset - layout.size
    start = tl.where(before < 0, 0, before // layout.step + 1) * layout.block
    stop = tl.where(last < 0, 0, last // layout.step + 1) * layout.block
    return start, tl.minimum(stop, num_queries)


@triton.jit
def queries_of(
    sequence: Sequence, first: tl.tensor, part: tl.tensor, num_queries: tl.tensor, layout: Layout
) -> tl.tuple:
    """Two ranges (start, count, start, count) of the queries that see a tile of keys; globals: those of a part."""
    if sequence.kind == SPARSE:
        start, stop = queries_at(first, layout.right, sequence, num_queries, layout)
        second, second_stop = queries_at(first, layout.left, sequence, num_queries, layout)
        # Both windows of a block may meet a tile that is wider than what lies between them.
        second = tl.maximum(second, stop)
        return start, tl.maximum(stop - start, 0), second, tl.maximum(second_stop - second, 0)
    if sequence.kind == LOCAL:
        block = first // layout.block
        start, stop = tl.maximum(block - 1, 0) * layout.block, (block + 2) * layout.block
    else:
        start, stop = part * layout.part, (part + 1) * layout.part
    return start, tl.minimum(stop, num_queries) - start, 0, 0


@triton.jit
def only_windows(
    weights: tl.tensor, keys: tl.tensor, first_query: tl.tensor, sequence: Sequence, layout: Layout
) -> tl.tensor:
    """0 in place of a weight (keys,queries) whose key lies in none of the sparse windows of the queries' block."""
    if sequence.kind == SPARSE and sequence.ragged:
        place = keys - first_query // layout.block * layout.step
        left = (place >= layout.left) & (place < layout.left + layout.size)
        right = (place >= layout.right) & (place < layout.right + layout.size)
        weights = tl.where((left | right)[:, None], weights, 0.0)
    return weights


@triton.jit
def key_gradients(
    tile: tl.tuple, sequence: Sequence, ranges: tl.tuple, queries: Queries, draws: tl.tuple, layout: Layout
) -> tl.tuple:
    """Sums (keys,D) over the queries that see a tile of keys: of the keys' gradient, unscaled, and of the values'."""
    key, value, within, keys = tile
    start, count, second_start, second_count = ranges
    grad_key = tl.zeros([sequence.tile, layout.head_dim], tl.float32)
    grad_value = tl.zeros([sequence.tile, layout.head_dim], tl.float32)
    # A tile of padding alone has no gradient.
    count_all = (count + second_count) * tl.max(within.to(tl.int32), 0)
    for i in range(0, count_all, layout.tile):
        first = tl.where(i < count, start + i, second_start + i - count)
        query = tl.load(rows_at(queries.query, first, layout.tile, layout.head_dim))
        grad = tl.load(rows_at(queries.grad, first, layout.tile, layout.head_dim))
        log_sum = tl.load(by_query(queries.log_sums, first, queries.length, layout.tile))
        delta = tl.load(by_query(queries.deltas, first, queries.length, layout.tile))
        # Transposed, (keys,queries), so that both sums over queries take it as it is.
        weights = tl.exp2(tl.dot(key, tl.trans(query)) * layout.log2_scale - log_sum[None, :])
        weights = only_windows(only_there(weights, within[:, None], sequence, 0.0), keys, first, sequence, layout)
        columns, rows = first + tl.arange(0, layout.tile), sequence.position + keys
        kept = dropped(weights, draws, columns[None, :], rows[:, None])
        grad_value = tl.dot(kept.to(grad.dtype), grad, grad_value)
        grad_weights = dropped(tl.dot(value, tl.trans(grad)), draws, columns[None, :], rows[:, None])
        grad_scores = weights * (grad_weights - delta[None, :])
        grad_key = tl.dot(grad_scores.to(query.dtype), query, grad_key)
    return grad_key, grad_value


@triton.jit(do_not_specialize=["seed"])
def key_gradient_kernel(
    queries: Queries, sequence: Sequence, results: tl.tuple, seed: int, dropout: Dropout, layout: Layout
) -> None:
    """Write the gradients of a tile of keys and values; globals: of one part of the queries after another."""
    grad_key, grad_value = results
    num_tiles = tl.cdiv(sequence.length, sequence.tile)
    first, part = tl.program_id(0) % num_tiles * sequence.tile, tl.program_id(0) // num_tiles
    key, value, within = load_keys(sequence, first, sequence.length, layout.head_dim)
    keys = first + tl.arange(0, sequence.tile)
    ranges = queries_of(sequence, first, part, queries.length, layout)
    tile = key, value, within, keys
    key_sum, value_sum = key_gradients(tile, sequence, ranges, queries, (seed, dropout), layout)
    row = part * sequence.length + first
    there = (keys < sequence.length)[:, None]
    key_sum = (key_sum * layout.scale).to(grad_key.pointer.dtype.element_ty)
    value_sum = value_sum.to(grad_value.pointer.dtype.element_ty)
    tl.store(rows_at(grad_key, row, sequence.tile, layout.head_dim), key_sum, there)
    tl.store(rows_at(grad_value, row, sequence.tile, layout.head_dim), value_sum, there)
