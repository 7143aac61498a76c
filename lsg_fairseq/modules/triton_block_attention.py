"""Block attention with dropout on NVIDIA GPUs: hand-written Triton kernels, forward and backward.

FlexAttention has no dropout; these kernels do, and they neither copy keys nor store scores or masks: the backward keeps
the inputs, the output, a log-sum for each query and a seed. triton comes with torch's CUDA builds and is imported when
a kernel first runs.
"""

from __future__ import annotations

import contextlib
import importlib.util
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lsg_fairseq.modules import counter_dropout
from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.triton_call import Call, fits_sizes

# Ampere: the first with bf16 products and asynchronous copies to shared memory.
LEAST_CAPABILITY = (8, 0)
# The order of keys in a row, which dropout's decisions depend on.
SEQUENCES = ("global", "local", "sparse")
# CUDA's limit on the second and third dimension of a grid.
MAX_GRID = 65535


def fits(query: Tensor, config: LSGConfig) -> bool:
    """Whether the kernels serve regular queries (B,H,T,D) like this one; keys and values have to be like it."""
    if query.device.type != "cuda" or torch.version.hip or importlib.util.find_spec("triton") is None:
        return False
    if torch.cuda.get_device_capability(query.device) < LEAST_CAPABILITY:
        return False
    return query.dtype in (torch.float16, torch.bfloat16) and fits_sizes(query.shape, config)


def triton_block_attention(
    query: Tensor,
    keys: dict[str, Tensor],
    values: dict[str, Tensor],
    masks: dict[str, Tensor],
    config: LSGConfig,
    dropout_p: float = 0.0,
) -> Tensor:
    """Attend from regular queries (B,H,T,D), T a multiple of b, to what their blocks see; returns (B,H,T,D).

    keys, values: (B,H,n,D) of the sequences "global", "local" (n = T) and, if there are any, "sparse".
    masks: (B or 1,H or 1,n) bool, True = absent, of those sequences in which anything is.
    dropout_p: dropout of the probabilities; counter_dropout.keep_mask is the mask, for a seed from draw_seed.
    """
    dropout = counter_dropout.dropout_of(dropout_p)
    seed = counter_dropout.draw_seed() if dropout else 0
    names = [name for name in SEQUENCES if name in keys]
    absent = tuple(_as_bytes(masks[name], query) if name in masks else None for name in names)
    tensors = [_rows_contiguous(x) for name in names for x in (keys[name], values[name])]
    return _BlockAttention.apply(Call(config, absent, seed, dropout), _rows_contiguous(query), *tensors)


def _rows_contiguous(x: Tensor) -> Tensor:
    """x with contiguous rows of D, which the kernels load at once; they follow any other stride."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _as_bytes(mask: Tensor, query: Tensor) -> Tensor:
    """(B,H,n) uint8 of a mask that broadcasts to it, without a copy."""
    return _rows_contiguous(mask).view(torch.uint8).expand(*query.shape[:2], -1)


class _BlockAttention(torch.autograd.Function):
    """The kernels' launches, on the tensors' own device."""

    @staticmethod
    def forward(ctx: Any, call: Call, query: Tensor, *tensors: Tensor) -> Tensor:
        """query (B,H,T,D) and key, value (B,H,n,D) for each name; returns (B,H,T,D)."""
        with _on(query):
            output, log_sums = _launches().attend(call, query, tensors)
        ctx.call = call
        ctx.save_for_backward(query, output, log_sums, *tensors)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the query and of each sequence's keys and values."""
        query, output, log_sums, *tensors = ctx.saved_tensors
        with _on(query):
            attended = (output, log_sums, _rows_contiguous(grad))
            return None, *_launches().gradients(ctx.call, query, tensors, attended)


def _on(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Make x's device the current one: kernels are launched there."""
    return torch.cuda.device(x.device) if x.device.type == "cuda" else contextlib.nullcontext()


def _launches() -> ModuleType:
    from lsg_fairseq.modules import triton_launches

    return triton_launches
