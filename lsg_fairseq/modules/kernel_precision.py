"""Which dtype and which kernel attention is fastest in on a CPU."""

from __future__ import annotations

import math

import torch
from torch import Tensor

HALF_PRECISIONS = (torch.bfloat16, torch.float16)
# Up to this many queries a head (the beams of a document) the fused kernel is slower than plain products.
FEW_QUERIES = {torch.bfloat16: 16, torch.float32: 4}


def in_kernel_dtype(
    heads: tuple[Tensor, Tensor, Tensor], training: bool, dropout_p: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, widened to float32 if they are half precision, on a CPU and in training.

    The gradient of torch's fused attention on CPUs takes longer in bfloat16 than in float32
    (benchmarks/training_precision.py), though matrix products take less: so only attention is widened. Nothing changes
    with dropout, which has a kernel of its own, or under autocast, where torch would narrow them again.

    Args:
        training: the module's mode rather than whether gradients are recorded: activation checkpointing computes a
            layer without gradients first, and both passes must agree.
    """
    query = heads[0]
    is_slow = query.device.type == "cpu" and query.dtype in HALF_PRECISIONS and not torch.is_autocast_enabled("cpu")
    if training and is_slow and not dropout_p:
        return tuple(x.float() for x in heads)
    return heads


def is_faster_unfused(query: Tensor) -> bool:
    """Whether plain matrix products attend faster from (B,H,n,D) to a long source than torch's fused kernel.

    Where queries are few, the fused kernel on CPUs calls products that are too small to read at the memory's speed, and
    widens keys and values of bfloat16.
    """
    return query.device.type == "cpu" and query.size(2) <= FEW_QUERIES.get(query.dtype, 0)


def few_queries_attention(query: Tensor, key: Tensor, value: Tensor, present: Tensor | None) -> Tensor:
    """Attention (B,H,n,D) from a few queries to a long source (B,H,S,D): two products that read it once each.

    In float32 the scores are made a row a key, which takes MKL half the time of a row a query.
    """
    queries, keys, values = (x.flatten(0, 1) for x in (query / math.sqrt(query.size(-1)), key, value))
    if query.dtype == torch.float32:
        scores = torch.bmm(keys, queries.transpose(1, 2)).transpose(1, 2).contiguous()
    else:
        scores = torch.bmm(queries, keys.transpose(1, 2))
    if present is not None:
        scores.view(*query.shape[:3], -1).masked_fill_(~present, -math.inf)
    return torch.bmm(scores.softmax(-1), values).view(query.shape)
