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
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from lsg_fairseq.modules.lsg_config import LSGConfig

# Finite, so that a query that sees nothing keeps a defined softmax, and far below any score in half precision.
MASKED_SCORE = -3e4


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
    return create_block_mask(mask_mod, None, None, num_tokens, num_keys, device=device)


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
    """Compiled where it is fused; eager FlexAttention materialises all scores, which only tests on a CPU can afford."""
    return torch.compile(flex_attention, dynamic=False) if device == "cuda" else flex_attention
