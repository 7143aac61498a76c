"""From tensors to the Triton kernels' arguments and back: grids, sizes of tiles, and where results go.

Imports triton, so it is imported only when a kernel is about to run.
"""

from __future__ import annotations

import math

import torch
import triton.language as tl
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.triton_call import Call, key_tile, query_tile
from lsg_fairseq.modules.triton_kernels import attend_kernel, key_gradient_kernel, query_gradient_kernel
from lsg_fairseq.modules.triton_tiles import GLOBAL, LOCAL, SPARSE, Heads, Layout, Queries, Sequence, Sequences

# Tiles of queries that one program reads for the gradient of a tile of globals, which every query sees.
PART_TILES = 8


def attend(call: Call, query: Tensor, tensors: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Output (B,H,T,D) and log-sums (B,H,T) of queries over the keys and values of each sequence."""
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    log_sums = query.new_empty(query.shape[:3], dtype=torch.float32)
    layout, sequences = layout_of(call.config, query.size(-1)), sequences_of(call, tensors)
    results = heads_of(output), log_sums
    options = compile_options("attend_kernel", query.size(-1))
    attend_kernel[_grid(query, layout)](heads_of(query), sequences, results, call.seed, call.dropout, layout, **options)
    return output, log_sums


def gradients(
    call: Call, query: Tensor, tensors: list[Tensor], attended: tuple[Tensor, Tensor, Tensor]
) -> list[Tensor]:
    """Gradients of query and tensors from `attended`: output, log-sums and the output's gradient."""
    output, log_sums, grad = attended
    layout, sequences = layout_of(call.config, query.size(-1)), sequences_of(call, tensors)
    queries = Queries(heads_of(query), heads_of(grad), log_sums, torch.empty_like(log_sums), query.size(2))
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    results = heads_of(output), heads_of(grad_query)
    options = compile_options("query_gradient_kernel", query.size(-1))
    # First, because it writes the deltas that the others read.
    query_gradient_kernel[_grid(query, layout)](queries, sequences, results, call.seed, call.dropout, layout, **options)
    grads = [grad_query]
    for sequence, key in zip(sequences, tensors[::2], strict=False):
        grads += _key_gradients(call, queries, sequence, key)
    return grads


def _key_gradients(call: Call, queries: Queries, sequence: Sequence, key: Tensor) -> list[Tensor]:
    """Gradients (B,H,n,D) of a sequence's keys and values; those of globals are summed over parts, in fp32."""
    batch, heads, length, head_dim = key.shape
    layout = layout_of(call.config, head_dim)
    is_global = sequence.kind == GLOBAL
    parts = -(-queries.length // layout.part.value) if is_global else 1
    dtype = torch.float32 if is_global else key.dtype
    grads = [key.new_empty(batch, heads, parts * length, head_dim, dtype=dtype) for _ in range(2)]
    results = tuple(heads_of(x) for x in grads)
    grid = (-(-length // sequence.tile.value) * parts, heads, batch)
    options = compile_options("key_gradient_kernel", head_dim)
    key_gradient_kernel[grid](queries, sequence, results, call.seed, call.dropout, layout, **options)
    return [x.unflatten(2, (parts, length)).sum(2).to(key.dtype) for x in grads] if is_global else grads


def _grid(query: Tensor, layout: Layout) -> tuple[int, int, int]:
    batch, heads, num_queries, _ = query.shape
    return num_queries // layout.tile.value, heads, batch


def heads_of(x: Tensor) -> Heads:
    """A (B,H,n,...) tensor as kernels take it."""
    return Heads(x, *x.stride()[:3])


def layout_of(config: LSGConfig, head_dim: int) -> Layout:
    """A kernel's compile-time sizes; without sparse tokens, step and size are 1 and unused."""
    tile = query_tile(config.block_size)
    global_tiles = -(-config.num_global_tokens // key_tile(config.num_global_tokens))
    step = size = 1
    if config.has_sparse_tokens:
        step, size = config.sparse_step, config.sparse_block_size
    scale = head_dim**-0.5
    sizes = (head_dim, tile, PART_TILES * tile * global_tiles, config.block_size, step, size, -step - size, 2 * step)
    return Layout(*map(tl.constexpr, (*sizes, scale, scale * math.log2(math.e))))


def sequences_of(call: Call, tensors: list[Tensor]) -> Sequences:
    """Keys, values and masks of each sequence with its place in the row of keys and its tile."""
    config = call.config
    num_globals, num_tokens = tensors[0].size(2), tensors[2].size(2)
    tile = query_tile(config.block_size)
    kinds = [(GLOBAL, 0, key_tile(num_globals), num_globals), (LOCAL, num_globals, tile, tile)]
    if len(tensors) > 4:
        # Windows consist of whole tiles if all of them begin and end on a tile's edge.
        aligned = math.gcd(config.sparse_step, config.sparse_block_size)
        kinds.append((SPARSE, num_globals + num_tokens, key_tile(config.sparse_block_size), aligned))
    sequences: list[Sequence | None] = [None, None, None]
    for i, (kind, position, tile, aligned) in enumerate(kinds):
        key, value = (heads_of(x) for x in tensors[2 * i : 2 * i + 2])
        absent = None if call.absent[i] is None else heads_of(call.absent[i])
        constants = map(tl.constexpr, (kind, tile, aligned % tile != 0))
        sequences[i] = Sequence(key, value, absent, tensors[2 * i].size(2), position, *constants)
    return Sequences(*sequences)


def compile_options(kernel: str, head_dim: int) -> dict[str, int]:
    """Warps and pipeline stages with which accumulators stay in registers (benchmarks/triton_targets.py)."""
    if kernel == "key_gradient_kernel":
        return {"num_warps": 8 if head_dim > 64 else 4, "num_stages": 2}
    return {"num_warps": 4, "num_stages": 3 if kernel == "attend_kernel" and head_dim <= 64 else 2}
