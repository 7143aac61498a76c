"""The six ways to make T/f sparse tokens from T regular ones, each registered by its name.

Every selection has one signature:

    select(query, key, value, key_padding_mask, config, generator) -> SparseTokens

query, key, value (B,H,T,D) are the projected regular tokens (globals excluded), T a multiple of the block size;
key_padding_mask (B,T) is bool, True = masked, or None where nothing is masked; config is the LSGConfig; generator is
the random generator to draw from, or None for torch's default one. sparsity_factor is above 1 when a selection is
called: with a factor of 1 every selection is the identity.

Formulas: "LSG Attention" (arXiv 2210.15497), section 3, with the chunk sizes and orders of the public checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.registry import SPARSE_SELECTIONS, look_up, register_sparse_selection

# Squares of values above LARGE may leave fp32's range; values scaled by SMALLER have none that do.
LARGE, SMALLER = 2.0**60, 2.0**-70


class SparseTokens(NamedTuple):
    """Sparse keys and values (B,H,S,D), S = T/f, and padding_mask (B,H,S), True = absent, or None: all present."""

    key: Tensor
    value: Tensor
    padding_mask: Tensor | None


Selection = Callable[[Tensor, Tensor, Tensor, Tensor | None, LSGConfig, torch.Generator | None], SparseTokens]


def select_sparse_tokens(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    config: LSGConfig,
    generator: torch.Generator | None = None,
) -> SparseTokens:
    """Make the sparse tokens that `config` asks for; shapes as in the module's docstring."""
    if config.sparsity_factor == 1:
        return SparseTokens(key, value, _mask_of_heads(key_padding_mask, key.size(1)))
    select = look_up(SPARSE_SELECTIONS, "sparsity_type", config.sparsity_type)
    return select(query, key, value, key_padding_mask, config, generator)


@register_sparse_selection("norm")
def select_by_norm(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    config: LSGConfig,
    generator: torch.Generator | None,
) -> SparseTokens:
    """Keep the c/f keys of largest norm in each chunk of c tokens, in ascending order of norm."""
    chunk = config.chunk_size
    # Half-precision norms tie more often than they should.
    norms = key.detach().to(_at_least_fp32(key)).norm(dim=-1)
    if key_padding_mask is not None:
        norms = norms.masked_fill(key_padding_mask[:, None], 0.0)
    keep = norms.unflatten(-1, (-1, chunk)).topk(chunk // config.sparsity_factor, dim=-1).indices.flip(-1)
    starts = torch.arange(0, norms.size(-1), chunk, device=key.device)
    return _take(key, value, key_padding_mask, (keep + starts[:, None]).flatten(-2))


@register_sparse_selection("pooling")
def pool_by_mean(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    config: LSGConfig,
    generator: torch.Generator | None,
) -> SparseTokens:
    """Average each chunk of f consecutive tokens over its unmasked ones."""
    factor = config.sparsity_factor
    if key_padding_mask is None:
        weights = key.new_full((1, 1, key.size(2) // factor, factor), 1.0 / (factor + 1e-6))
        return _weighted_sums(key, value, weights, None)
    present = ~key_padding_mask[:, None].unflatten(-1, (-1, factor))
    count = present.sum(-1, keepdim=True)
    weights = (present / (count.to(_at_least_fp32(key)) + 1e-6)).to(key.dtype)
    return _weighted_sums(key, value, weights, (count == 0).squeeze(-1))


@register_sparse_selection("bos_pooling")
def pool_by_first_query(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    config: LSGConfig,
    generator: torch.Generator | None,
) -> SparseTokens:
    """Pool each chunk of f tokens by how much regular token 0 attends to them; a chunk of padding alone is absent."""
    scores = (key @ query[:, :, :1].transpose(-1, -2)).squeeze(-1).to(_at_least_fp32(key)) / math.sqrt(key.size(-1))
    scores = scores.unflatten(-1, (-1, config.sparsity_factor))
    if key_padding_mask is None:
        return _weighted_sums(key, value, scores.softmax(-1).to(key.dtype), None)
    masked = key_padding_mask[:, None].unflatten(-1, (-1, config.sparsity_factor))
    absent = masked.all(-1)
    # Finite scores in absent chunks keep their softmax, and its gradient, free of NaN.
    scores = scores.masked_fill(masked & ~absent[..., None], -math.inf)
    weights = scores.softmax(-1).masked_fill(masked, 0.0).to(key.dtype)
    return _weighted_sums(key, value, weights, absent)


@register_sparse_selection("stride")
def select_by_stride(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    config: LSGConfig,
    generator: torch.Generator | None,
) -> SparseTokens:
    """Entry j of head h is token j*f + (h mod f)."""
    num_heads, src_len = key.size(1), key.size(2)
    offsets = torch.arange(num_heads, device=key.device) % config.sparsity_factor
    starts = torch.arange(0, src_len, config.sparsity_factor, device=key.device)
    return _take(key, value, key_padding_mask, (offsets[:, None] + starts)[None])


@register_sparse_selection("block_stride")
def select_block_stride(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    config: LSGConfig,
    generator: torch.Generator | None,
) -> SparseTokens:
    """In each block, head h takes the b/f consecutive tokens at offset (h*b/f) mod b."""
    num_heads, src_len = key.size(1), key.size(2)
    step, block = config.sparse_step, config.block_size
    offsets = torch.arange(num_heads, device=key.device) * step % block
    within = offsets[:, None] + torch.arange(step, device=key.device)
    starts = torch.arange(0, src_len, block, device=key.device)
    return _take(key, value, key_padding_mask, (starts[:, None] + within[:, None]).flatten(-2)[None])


@register_sparse_selection("lsh")
def pool_by_hash(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None,
    config: LSGConfig,
    generator: torch.Generator | None,
) -> SparseTokens:
    """Sum tokens of a chunk whose keys fall into the same random-hash bucket; empty buckets are absent."""
    if config.sparsity_factor == config.sparse_block_size:
        return pool_by_first_query(query, key, value, key_padding_mask, config, generator)
    chunk = config.chunk_size
    weight = torch.ones(key.shape[:-1], dtype=torch.float32, device=key.device)
    if key_padding_mask is not None:
        weight = weight.masked_fill(key_padding_mask[:, None], 0.0)
    # Sums of up to c keys leave half precision's range and exactness, so buckets are summed in fp32 at least.
    dtype = _at_least_fp32(key)
    weight = weight.to(dtype).unflatten(-1, (-1, chunk))
    # A power of two, so that scaled sums are the same but for their exponent, and stay in range where a mean does.
    scale = 2.0 ** -math.ceil(math.log2(chunk))
    pooled_key, pooled_value = (
        x.to(dtype).unflatten(2, (-1, chunk)) * (weight[..., None] * scale) for x in (key, value)
    )
    # Autocast would take the products that sum in half precision all the same.
    with torch.autocast(key.device.type, enabled=False):
        for num_buckets in [chunk] * config.lsh_num_pre_rounds + [chunk // config.sparsity_factor]:
            pooled_key, pooled_value, weight = _hash_round(pooled_key, pooled_value, weight, num_buckets, generator)
    divisor = (weight[..., None] + 1e-8) * scale
    pooled_key, pooled_value = ((x / divisor).flatten(2, 3).to(key.dtype) for x in (pooled_key, pooled_value))
    return SparseTokens(pooled_key, pooled_value, (weight == 0).flatten(2, 3))


def draw_projections(num_heads: int, head_dim: int, half_buckets: int, generator: torch.Generator | None) -> Tensor:
    """Draw the random hyperplanes of one hashing round: standard normal, (H,D,half_buckets), fp32, on the CPU.

    Drawn on the CPU so that a seed gives the same hash on every device.
    """
    return torch.randn(num_heads, head_dim, half_buckets, generator=generator)


def _hash_round(
    key: Tensor, value: Tensor, weight: Tensor, num_buckets: int, generator: torch.Generator | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum (B,H,chunks,n,D) keys and values and (B,H,chunks,n) weights into `num_buckets` per chunk."""
    bucket = _hash_buckets(key.detach(), weight, num_buckets, generator)
    membership = torch.nn.functional.one_hot(bucket, num_buckets).to(key.dtype).transpose(-1, -2)
    return membership @ key, membership @ value, (membership @ weight[..., None]).squeeze(-1)


def _hash_buckets(key: Tensor, weight: Tensor, num_buckets: int, generator: torch.Generator | None) -> Tensor:
    """Bucket of each key (B,H,chunks,n): the argmax of its projections and their negatives."""
    half = num_buckets // 2
    if half == 0:
        return torch.zeros_like(weight, dtype=torch.long)
    projections = draw_projections(key.size(1), key.size(-1), half, generator)
    # Not waiting is safe: the driver has taken the numbers when it returns.
    projections = projections.to(key, non_blocking=True).reshape(1, key.size(1), 1, key.size(-1), half)
    direction = torch.nn.functional.normalize(key, dim=-1)
    # Squares of large keys leave fp32's range, and a key divided by an infinite norm has no direction.
    is_large = key.abs().amax(-1, keepdim=True) > LARGE
    direction = torch.where(is_large, torch.nn.functional.normalize(key * SMALLER, dim=-1), direction)
    scores = (direction @ projections).masked_fill(weight[..., None] == 0, 0.0)
    return torch.cat([scores, -scores], dim=-1).argmax(-1)


def _take(key: Tensor, value: Tensor, key_padding_mask: Tensor | None, index: Tensor) -> SparseTokens:
    """Gather tokens by `index` (B or 1, H, S)."""
    batch, heads, _, head_dim = key.shape
    index = index.expand(batch, heads, -1)
    mask = _mask_of_heads(key_padding_mask, heads)
    mask = None if mask is None else mask.gather(2, index)
    if key.device.type == "cpu" and not torch.is_grad_enabled():
        return SparseTokens(_rows(key, index), _rows(value, index), mask)
    rows = index[..., None].expand(-1, -1, -1, head_dim)
    return SparseTokens(key.gather(2, rows), value.gather(2, rows), mask)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """The rows `index` (B,H,S) of x (B,H,T,D), which a CPU copies whole: gather looks at an index for each element."""
    batch, heads, _, head_dim = x.shape
    places = index * (batch * heads) + torch.arange(batch * heads).view(batch, heads, 1)
    # As (T,B,H,D), which is how projections lie in memory.
    return x.permute(2, 0, 1, 3).reshape(-1, head_dim).index_select(0, places.flatten()).view(*index.shape, head_dim)


def _weighted_sums(key: Tensor, value: Tensor, weights: Tensor, absent: Tensor | None) -> SparseTokens:
    """Sum each chunk of f tokens with `weights` (B or 1, H or 1, S, f)."""
    factor = weights.size(-1)
    weights = weights[..., None, :]
    pooled = ((weights @ x.unflatten(2, (-1, factor))).squeeze(-2) for x in (key, value))
    return SparseTokens(*pooled, None if absent is None else absent.expand(-1, key.size(1), -1))


def _at_least_fp32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _mask_of_heads(key_padding_mask: Tensor | None, num_heads: int) -> Tensor | None:
    return None if key_padding_mask is None else key_padding_mask[:, None].expand(-1, num_heads, -1)
