"""Block attention through torch's FlexAttention: one fused kernel over globals, tokens and sparse tokens in a row.

The block mask holds the structure alone and is cached, so nothing is rebuilt for a batch or a layer; what is masked
goes in as a bias on the scores. Meant for CUDA, where forward and backward are fused; a CPU has the forward alone,
which is how it is tested. It has no dropout.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from lsg_fairseq.modules.lsg_config import LSGConfig

# Finite, so that a query that sees nothing keeps a defined softmax, and far below any score in half precision.
MASKED_SCORE = -3e4
# Rows and columns of the mask's tiles that a kernel skips or computes: FlexAttention's own default.
TILE = 128


def flex_block_attention(
    query: Tensor, keys: dict[str, Tensor], values: dict[str, Tensor], masks: dict[str, Tensor], config: LSGConfig
) -> Tensor:
    """Attend from regular queries (B,H,T,D), T >= 3b, to what their blocks see; returns (B,H,T,D).

    keys, values: (B,H,n,D) of the sequences "global", "local" (n = T) and, if there are any, "sparse".
    masks: (B or 1,H or 1,n) bool, True = absent, of those sequences in which anything is.
    """
    order = [name for name in ("global", "local", "sparse") if name in keys]
    key, value = (torch.cat([parts[name] for name in order], dim=2) for parts in (keys, values))
    num_sparse = keys["sparse"].size(2) if "sparse" in keys else 0
    block_mask = structure(query.size(2), num_sparse, config, str(query.device))
    score_mod = _masking([masks.get(name) for name in order], [keys[name].size(2) for name in order], query)
    return _kernel(query.device.type)(query, key, value, score_mod=score_mod, block_mask=block_mask)


@functools.lru_cache(maxsize=64)
def structure(num_tokens: int, num_sparse: int, config: LSGConfig, device: str) -> BlockMask:
    """Which keys [globals, tokens, sparse tokens] each regular query sees, padding aside."""
    mask_mod = visible(num_tokens, config)
    num_keys = config.num_global_tokens + num_tokens + num_sparse
    some, every = tiles(mask_mod, num_tokens, num_keys, torch.device(device))
    blocks = (part for tile in (some & ~every, every) for part in _as_block_lists(tile))
    return BlockMask.from_kv_blocks(*blocks, BLOCK_SIZE=TILE, mask_mod=mask_mod, seq_lengths=(num_tokens, num_keys))


def tiles(
    mask_mod: Callable[..., Tensor], num_tokens: int, num_keys: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Of each tile of the mask, whether it is seen in part and whether it is seen as a whole: (rows,columns) bool.

    One row of tiles at a time: torch's create_block_mask holds the whole mask at once, in gigabytes for long sources.
    """
    rows = []
    zero, keys = torch.zeros((), dtype=torch.long, device=device), torch.arange(num_keys, device=device)
    for start in range(0, num_tokens, TILE):
        queries = torch.arange(start, min(start + TILE, num_tokens), device=device)[:, None]
        seen = mask_mod(zero, zero, queries, keys)
        seen = torch.nn.functional.pad(seen, (0, -num_keys % TILE, 0, TILE - len(queries))).unflatten(1, (-1, TILE))
        rows.append((seen.any(2).any(0), seen.all(2).all(0)))
    some, every = zip(*rows, strict=True)
    return torch.stack(some), torch.stack(every)


def _as_block_lists(tile: Tensor) -> tuple[Tensor, Tensor]:
    """(rows,columns) bool -> how many columns each row has (1,1,rows), and which, these first (1,1,rows,columns)."""
    count = tile.sum(1, dtype=torch.int32)
    columns = tile.int().argsort(dim=1, descending=True, stable=True).int()
    return count[None, None], columns[None, None]


def visible(num_tokens: int, config: LSGConfig) -> Callable[..., Tensor]:
    """The mask_mod of `structure`: section 3's windows, of positions in the row of keys."""
    size, num_globals = config.block_size, config.num_global_tokens
    step = config.sparse_step if config.has_sparse_tokens else 1
    sparse_size = config.sparse_block_size

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        block = query // size
        token, sparse = key - num_globals, key - num_globals - num_tokens
        local = (token >= (block - 1) * size) & (token < (block + 2) * size) & (token >= 0) & (sparse < 0)
        left = (sparse >= (block - 1) * step - sparse_size) & (sparse < (block - 1) * step)
        right = (sparse >= (block + 2) * step) & (sparse < (block + 2) * step + sparse_size)
        return (token < 0) | local | ((sparse >= 0) & (left | right))

    return mask_mod


def _masking(masks: list[Tensor | None], lengths: list[int], query: Tensor) -> Callable[..., Tensor] | None:
    """A score_mod that pushes absent keys out of the softmax, or None if every key is present."""
    if all(mask is None for mask in masks):
        return None
    batch, heads = query.shape[:2]
    parts = [
        query.new_zeros(1, 1, n, dtype=torch.bool) if mask is None else mask
        for mask, n in zip(masks, lengths, strict=True)
    ]
    absent = torch.cat([part.expand(batch, heads, -1) for part in parts], dim=-1)
    bias = torch.zeros(absent.shape, dtype=torch.float32, device=query.device).masked_fill(absent, MASKED_SCORE)

    def score_mod(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + bias[batch, head, key]

    return score_mod


@functools.lru_cache(maxsize=2)
def _kernel(device: str) -> Any:
    """Compiled where it is fused; eager FlexAttention materialises all scores, which only tests on a CPU can afford.

    Sizes are compiled as symbols from the second one on: documents differ in length, and a compilation for each would
    soon pass dynamo's limit. `fullgraph` makes what is beyond that limit an error rather than eager.
    """
    return torch.compile(flex_attention, fullgraph=True) if device == "cuda" else flex_attention
