"""The dtype in which attention is computed, where the model's own would be slower."""

from __future__ import annotations

import torch
from torch import Tensor

HALF_PRECISIONS = (torch.bfloat16, torch.float16)
# Queries of a head that are few: the beams of a document. More of them make up for what the fused kernel loses.
FEW_QUERIES = {torch.bfloat16: 16, torch.float32: 4}


def in_kernel_dtype(
    heads: tuple[Tensor, Tensor, Tensor], training: bool, dropout_p: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values: as float32 if they are of half precision, on a CPU and in training; else as they are.

    The gradient of torch's fused attention on CPUs takes longer in bfloat16 than in float32
    (benchmarks/training_precision.py), though matrix products take less: so only attention is widened. With dropout
    another kernel is used, and under autocast torch would narrow them again: nothing is changed then.

    Args:
        training: the module's mode, not whether gradients are recorded: activation checkpointing computes a layer
            without them first, and both times have to give the same.
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
