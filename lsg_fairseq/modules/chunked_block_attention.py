"""Block attention with dropout on every device and dtype: a chunk of blocks at a time, recomputed in the backward.

Scores and probabilities exist only in a small workspace that all chunks reuse. The backward keeps the inputs and a
seed: it recomputes the probabilities once, and whether one is dropped is a function of the seed and its position
(counter_dropout), so the result depends neither on the chunks nor on the device.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from lsg_fairseq.modules import counter_dropout
from lsg_fairseq.modules.block_chunks import Blocks, block_ranges, parts_of, row_groups
from lsg_fairseq.modules.dropout_words import keep_factors
from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.row_group import Call, Chunk, RowGroup

# Scores in a chunk. On a CPU half a dozen arrays of this size should fit the cache; a GPU wants few launches.
MOST_SCORES = {"cpu": 2**20}
MOST_SCORES_ELSEWHERE = 2**23


def chunked_block_attention(
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
    names = tuple(name for name in ("global", "local", "sparse") if name in keys)
    tensors = [x[name] for name in names for x in (keys, values)]
    return _BlockAttention.apply(Call(config, names, masks, seed, dropout), query, *tensors)


class _BlockAttention(torch.autograd.Function):
    """Attention chunk by chunk; the backward sums each chunk's gradients onto the sequences."""

    @staticmethod
    def forward(ctx: Any, call: Call, query: Tensor, *tensors: Tensor) -> Tensor:
        """query (B,H,T,D) and key, value (B,H,n,D) for each name; returns (B,H,T,D)."""
        ctx.call = call
        ctx.save_for_backward(query, *tensors)
        output = query.new_empty(*query.shape[:3], tensors[1].size(3))
        work = Workspace()
        with torch.autocast(query.device.type, enabled=False):
            for group, ranges in _groups(call, query, tensors):
                for blocks in ranges:
                    group.write(output, blocks, _attend(group.chunk(blocks), call.dropout, work))
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the query and of each sequence's keys and values."""
        query, *tensors = ctx.saved_tensors
        grads = [torch.empty_like(x) for x in (query, *tensors)]
        work = Workspace()
        with torch.autocast(query.device.type, enabled=False):
            for group, ranges in _groups(ctx.call, query, tensors):
                sums = group.zero_sums()
                for blocks in ranges:
                    chunk = group.chunk(blocks)
                    rows = group.of_blocks(grad, blocks).flatten(0, 2)
                    grad_query, *shares = _gradients(chunk, rows, ctx.call.dropout, work)
                    group.write(grads[0], blocks, grad_query.mul_(group.scale))
                    for part_sums, share in zip(sums, shares, strict=True):
                        group.add(part_sums, blocks, share)
                group.store(sums, grads[1:])
        return None, *grads


class Workspace:
    """Named buffers that all chunks reuse: allocating them anew would cost as much as the arithmetic."""

    def __init__(self) -> None:
        self._arrays: dict[str, Tensor] = {}

    def take(self, name: str, shape: torch.Size, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """An uninitialised buffer of this shape; the first request for a name must be the largest."""
        if name not in self._arrays:
            self._arrays[name] = like.new_empty(shape, dtype=dtype)
        return self._arrays[name].flatten()[: shape.numel()].view(shape)


def _groups(call: Call, query: Tensor, tensors: tuple[Tensor, ...]) -> Iterator[tuple[RowGroup, Iterator[Blocks]]]:
    """The batch's (batch, head) rows in groups, each with the block ranges of its chunks."""
    batch, heads, num_tokens = query.shape[:3]
    num_keys = sum(part.size for part in parts_of(call.names, call.config))
    most = MOST_SCORES.get(query.device.type, MOST_SCORES_ELSEWHERE) // (call.config.block_size * num_keys)
    num_blocks = num_tokens // call.config.block_size
    for rows in row_groups(batch, heads, num_blocks, most):
        yield RowGroup(call, rows, query, tensors, _product_dtype(query)), block_ranges(num_blocks, most)


def _product_dtype(query: Tensor) -> torch.dtype:
    """Half precision products only on GPUs; sums, softmax and accumulated gradients are at least fp32 everywhere."""
    return query.dtype if query.device.type == "cuda" else torch.promote_types(query.dtype, torch.float32)


def _attend(chunk: Chunk, dropout: counter_dropout.Dropout | None, work: Workspace) -> Tensor:
    """The chunk's output (M,b,D)."""
    probabilities = _probabilities(chunk, work)
    if dropout is not None:
        probabilities.mul_(_kept(chunk, dropout, work))
    output = _product(probabilities, chunk.value)
    if dropout is not None:
        output.mul_(dropout.scale)
    return output if chunk.unseeing is None else output.masked_fill_(chunk.unseeing, 0.0)


def _gradients(
    chunk: Chunk, grad: Tensor, dropout: counter_dropout.Dropout | None, work: Workspace
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the chunk's scaled queries (M,b,D), keys and values (M,K,D), from that of its output (M,b,D)."""
    grad = grad.to(chunk.value.dtype) * (1.0 if dropout is None else dropout.scale)
    if chunk.unseeing is not None:
        grad.masked_fill_(chunk.unseeing, 0.0)
    probabilities = kept = _probabilities(chunk, work)
    grad_kept = _product(grad, chunk.value.transpose(1, 2), work.take("gradient", probabilities.shape, probabilities))
    if dropout is not None:
        factors = _kept(chunk, dropout, work)
        grad_kept.mul_(factors)
        kept = factors.mul_(probabilities)
    grad_value = _product(kept.transpose(1, 2), grad)
    grad_scores = work.take("scores", probabilities.shape, probabilities)
    _softmax_backward(grad_kept, probabilities, -1, probabilities.dtype, grad_input=grad_scores)
    return _product(grad_scores, chunk.key), _product(grad_scores.transpose(1, 2), chunk.query), grad_value


def _probabilities(chunk: Chunk, work: Workspace) -> Tensor:
    """(M,b,K) before dropout, in fp32 at least."""
    shape = torch.Size((*chunk.query.shape[:2], chunk.key.size(1)))
    wide = torch.promote_types(chunk.query.dtype, torch.float32)
    scores = _product(chunk.query, chunk.key.transpose(1, 2), work.take("scores", shape, chunk.query, wide))
    if chunk.bias is not None:
        scores.add_(chunk.bias)
    return torch.softmax(scores, -1, out=work.take("probabilities", shape, scores))


def _kept(chunk: Chunk, dropout: counter_dropout.Dropout, work: Workspace) -> Tensor:
    """1 where a probability (M,b,K) is kept, else 0; overwrites the scores' buffer."""
    queries, keys = chunk.words
    shape = torch.Size((*queries.shape[:2], keys.size(2)))
    words = tuple(work.take(name, shape, queries) for name in ("word", "shifted"))
    return keep_factors(queries, keys, dropout.threshold, words, work.take("scores", shape, queries))


def _product(one: Tensor, other: Tensor, out: Tensor | None = None) -> Tensor:
    """Batched matrix products (M,…), computed in the dtype of `other`."""
    if out is None or out.dtype == other.dtype:
        return torch.bmm(one.to(other.dtype), other, out=out)
    return out.copy_(torch.bmm(one.to(other.dtype), other))


_softmax_backward = torch.ops.aten._softmax_backward_data.out
