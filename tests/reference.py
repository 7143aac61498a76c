"""A second, independent implementation of LSG attention: dense, slow and written to be checked by eye.

One list of keys (globals, regular tokens, sparse tokens) and one boolean pattern that says which query sees which key.
It shares no code with lsg_fairseq; `config` is any object with the fields of LSGConfig.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Sparse(NamedTuple):
    """The sparse tokens of one head: keys (S,D), values (S,D) and which of them are masked (S)."""

    key: Tensor
    value: Tensor
    masked: Tensor


def dense_lsg_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    config: Any,
    key_padding_mask: Tensor | None = None,
    projections: Sequence[Tensor] | None = None,
    factors: Tensor | None = None,
) -> Tensor:
    """LSG attention of (B,H,G+T,D) tensors, one (batch, head) pair at a time, in the dtype of the input.

    factors: (B,H,T,G+T+S) to multiply the regular queries' probabilities by, which is what dropout does.
    """
    batch, heads, rows, _ = query.shape
    if key_padding_mask is None:
        key_padding_mask = torch.zeros(batch, rows, dtype=torch.bool)
    outputs = [
        _attend(
            query[n, h],
            key[n, h],
            value[n, h],
            key_padding_mask[n],
            h,
            config,
            projections,
            None if factors is None else factors[n, h],
        )
        for n in range(batch)
        for h in range(heads)
    ]
    return torch.stack(outputs).view(batch, heads, rows, -1)


def _attend(query, key, value, masked, head, config, projections, factors) -> Tensor:
    rows, dim = query.shape
    num_globals = config.num_global_tokens
    num_tokens = rows - num_globals
    keys, values, absent = key, value, masked
    pattern = torch.ones(rows, rows, dtype=torch.bool)
    if num_tokens > 2 * config.block_size:
        sparse = Sparse(key[:0], value[:0], masked[:0])
        if config.sparsity_type != "none" and config.sparsity_factor > 0 and config.sparse_block_size > 0:
            g = num_globals
            sparse = sparse_reference(query[g:], key[g:], value[g:], masked[g:], head, config, projections)
        keys = torch.cat([key, sparse.key])
        values = torch.cat([value, sparse.value])
        absent = torch.cat([masked, sparse.masked])
        pattern = lsg_pattern(num_tokens, len(sparse.key), config)
    scores = query @ keys.T / math.sqrt(dim)
    scores = scores.masked_fill(~pattern | absent, -math.inf)
    weights = torch.softmax(scores, dim=-1)
    if factors is not None:
        weights = torch.cat([weights[:num_globals], weights[num_globals:] * factors])
    return weights @ values


def lsg_pattern(num_tokens: int, num_sparse: int, config: Any) -> Tensor:
    """Which of the G + T + S keys each of the G + T queries sees (T > 2b): section 3 of the semantics, literally."""
    g, b, s = config.num_global_tokens, config.block_size, config.sparse_block_size
    pattern = torch.zeros(g + num_tokens, g + num_tokens + num_sparse, dtype=torch.bool)
    pattern[:g, : g + num_tokens] = True
    pattern[g:, :g] = True
    for t in range(num_tokens):
        i = t // b
        for j in range(num_tokens):
            pattern[g + t, g + j] = (i - 1) * b <= j < (i + 2) * b
        for j in range(num_sparse):
            st = b // config.sparsity_factor
            left = (i - 1) * st - s <= j < (i - 1) * st
            right = (i + 2) * st <= j < (i + 2) * st + s
            pattern[g + t, g + num_tokens + j] = left or right
    return pattern


def sparse_reference(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    masked: Tensor,
    head: int,
    config: Any,
    projections: Sequence[Tensor] | None = None,
) -> Sparse:
    """The T/f sparse tokens of one head, from its regular tokens (T,D): section 4 of the semantics."""
    kind, factor = config.sparsity_type, config.sparsity_factor
    if factor == 1:
        return Sparse(key, value, masked)
    if kind == "norm":
        return _pick(key, value, masked, _largest_norms(key, masked, config))
    if kind == "stride":
        return _pick(key, value, masked, [j * factor + head % factor for j in range(len(key) // factor)])
    if kind == "block_stride":
        return _pick(key, value, masked, _block_stride(len(key), head, config))
    if kind == "lsh" and factor != config.sparse_block_size:
        return _hash(key, value, masked, head, config, projections)
    if kind == "pooling":
        return _pool(key, value, masked, factor)
    if kind in ("bos_pooling", "lsh"):
        return _bos_pool(query[0], key, value, masked, factor)
    raise ValueError(f"the reference does not know {kind}")


def _pick(key: Tensor, value: Tensor, masked: Tensor, chosen: list[int]) -> Sparse:
    return Sparse(key[chosen], value[chosen], masked[chosen])


def _largest_norms(key: Tensor, masked: Tensor, config: Any) -> list[int]:
    chunk = min(config.block_size, config.sparse_block_size)
    norms = [0.0 if masked[t] else key[t].norm().item() for t in range(len(key))]
    chosen = []
    for start in range(0, len(key), chunk):
        ascending = sorted(range(start, start + chunk), key=lambda t: norms[t])
        chosen += ascending[chunk - chunk // config.sparsity_factor :]
    return chosen


def _block_stride(num_tokens: int, head: int, config: Any) -> list[int]:
    b, st = config.block_size, config.block_size // config.sparsity_factor
    offset = (head * st) % b
    return [start + offset + j for start in range(0, num_tokens, b) for j in range(st)]


def _pool(key: Tensor, value: Tensor, masked: Tensor, factor: int) -> Sparse:
    keys, values, empty = [], [], []
    for start in range(0, len(key), factor):
        members = [t for t in range(start, start + factor) if not masked[t]]
        keys.append(key[members].sum(0) / (len(members) + 1e-6))
        values.append(value[members].sum(0) / (len(members) + 1e-6))
        empty.append(not members)
    return Sparse(torch.stack(keys), torch.stack(values), torch.tensor(empty))


def _bos_pool(first_query: Tensor, key: Tensor, value: Tensor, masked: Tensor, factor: int) -> Sparse:
    keys, values, empty = [], [], []
    for start in range(0, len(key), factor):
        members = [t for t in range(start, start + factor) if not masked[t]]
        weights = torch.softmax(key[members] @ first_query / math.sqrt(key.shape[1]), dim=0)
        keys.append(weights @ key[members])
        values.append(weights @ value[members])
        empty.append(not members)
    return Sparse(torch.stack(keys), torch.stack(values), torch.tensor(empty))


def lsh_half_buckets(config: Any) -> list[int]:
    """o//2 of each round of lsh in order: what the projections of one layer must be drawn for."""
    chunk = min(config.block_size, config.sparse_block_size)
    return [chunk // 2] * config.lsh_num_pre_rounds + [chunk // config.sparsity_factor // 2]


def _hash(key, value, masked, head, config, projections) -> Sparse:
    chunk = min(config.block_size, config.sparse_block_size)
    rounds = [chunk] * config.lsh_num_pre_rounds + [chunk // config.sparsity_factor]
    keys, values, empty = [], [], []
    for start in range(0, len(key), chunk):
        weight = (~masked[start : start + chunk]).to(key.dtype)
        k = key[start : start + chunk] * weight[:, None]
        v = value[start : start + chunk] * weight[:, None]
        for size, projection in zip(rounds, projections, strict=True):
            k, v, weight = _hash_round(k, v, weight, size, projection[head].to(k.dtype))
        keys.append(k / (weight + 1e-8)[:, None])
        values.append(v / (weight + 1e-8)[:, None])
        empty.append(weight == 0)
    return Sparse(torch.cat(keys), torch.cat(values), torch.cat(empty))


def _hash_round(k: Tensor, v: Tensor, weight: Tensor, size: int, projection: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    # An odd size leaves its last bucket empty (2 * (size // 2) hash values); a size of 1 has one bucket for everything.
    zero = torch.zeros_like(k[0])
    new_k, new_v, new_weight = [zero] * size, [zero] * size, [torch.zeros_like(weight[0])] * size
    for t in range(len(k)):
        if weight[t] == 0:
            continue
        a = k[t].detach() / k[t].detach().norm() @ projection
        bucket = torch.cat([a, -a]).argmax().item() if size > 1 else 0
        new_k[bucket] = new_k[bucket] + k[t]
        new_v[bucket] = new_v[bucket] + v[t]
        new_weight[bucket] = new_weight[bucket] + weight[t]
    return torch.stack(new_k), torch.stack(new_v), torch.stack(new_weight)
