"""Block attention on a CPU without gathering keys: torch's fused kernel on overlapping views, merged exactly.

The kernel behind scaled_dot_product_attention on CPUs takes strided keys and returns each query's log-sum-exp. So
local and sparse windows are views, one kernel call covers all blocks of a kind, and results over disjoint sets of keys
merge by their log-sum-exp. Its backward gives exact gradients for each set of keys when it is handed the merged output
and the merged log-sum-exp, so training keeps no score matrix either. Both ops are private to torch: `is_available`
probes them.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from lsg_fairseq.modules.gathered_cpu_attention import gathered_block_attention
from lsg_fairseq.modules.key_windows import BlockWindows, Piece, add_windows, windows
from lsg_fairseq.modules.lsg_config import LSGConfig


@functools.lru_cache(maxsize=256)
def block_layout(num_blocks: int, num_sparse: int, config: LSGConfig) -> BlockWindows:
    """Which keys each block sees: globals, local windows, sparse windows; whole ones, and those cut at an edge."""
    size = config.block_size
    # The pieces that write first and cover every block once; the others are merged into them.
    pieces = [Piece("local", 1, num_blocks - 2, 0, 3 * size, size)]
    pieces.append(Piece("local", 0, 1, 0, 2 * size, 0))
    pieces.append(Piece("local", num_blocks - 1, 1, (num_blocks - 2) * size, 2 * size, 0))
    pieces.append(Piece("global", 0, num_blocks, 0, config.num_global_tokens, 0))
    if num_sparse:
        pieces += sparse_pieces(num_blocks, num_sparse, config.sparse_step, config.sparse_block_size)
    return BlockWindows(size, tuple(pieces))


def sparse_pieces(num_blocks: int, num_sparse: int, step: int, size: int) -> Iterator[Piece]:
    """Windows [(i-1)st-s, (i-1)st) and [(i+2)st, (i+2)st+s) of every block i, where they are not empty."""
    for first, offset in ((2, -step - size), (0, 2 * step)):
        whole = []
        for block in range(first, num_blocks):
            start, stop = block * step + offset, block * step + offset + size
            if start >= 0 and stop <= num_sparse:
                whole.append(block)
            elif max(start, 0) < min(stop, num_sparse):
                yield Piece("sparse", block, 1, max(start, 0), min(stop, num_sparse) - max(start, 0), 0)
        if whole:
            yield Piece("sparse", whole[0], len(whole), whole[0] * step + offset, size, step)


def fits(query: Tensor, config: LSGConfig) -> bool:
    """Whether queries (B,H,T,D) like this one are served; keys and values have to be like it."""
    dtypes = (torch.float32, torch.float64, torch.bfloat16)
    return query.device.type == "cpu" and query.dtype in dtypes and is_available()


def fused_cpu_block_attention(
    query: Tensor, keys: dict[str, Tensor], values: dict[str, Tensor], masks: dict[str, Tensor], config: LSGConfig
) -> Tensor:
    """Attend from regular queries (B,H,T,D), T >= 3b, to what their blocks see; returns (B,H,T,D).

    keys, values: (B,H,n,D) of the sequences "global", "local" (n = T) and, if there are any, "sparse".
    masks: (B or 1,H or 1,n) bool, True = absent, of those sequences in which anything is.
    """
    num_sparse = keys["sparse"].size(2) if "sparse" in keys else 0
    layout = block_layout(query.size(2) // config.block_size, num_sparse, config)
    if query.dtype == torch.bfloat16 and not torch.is_grad_enabled():
        biases = {name: _finite_bias(mask, query) for name, mask in masks.items()}
        return gathered_block_attention(query, keys, values, biases, layout)
    names = tuple(keys)
    biases = {name: _bias(mask, query) for name, mask in masks.items()}
    tensors = [x.flatten(0, 1) for name in names for x in (keys[name], values[name])]
    attended = _BlockAttention.apply(layout, names, biases, query.flatten(0, 1), *tensors)
    return attended.unflatten(0, query.shape[:2])


def _bias(mask: Tensor, query: Tensor) -> Tensor:
    """(B*H,n) to add to scores. Finite, so that a window of padding alone keeps a defined log-sum-exp."""
    return _finite_bias(mask, query).expand(*query.shape[:2], -1).flatten(0, 1)


def _finite_bias(mask: Tensor, query: Tensor) -> Tensor:
    lowest = torch.finfo(query.dtype).min / 2
    return torch.zeros(mask.shape, dtype=query.dtype, device=query.device).masked_fill(mask, lowest)


class _BlockAttention(torch.autograd.Function):
    """The pieces' kernel calls, and their gradients summed back onto the sequences."""

    @staticmethod
    def forward(
        ctx: Any, layout: BlockWindows, names: tuple[str, ...], biases: dict, query: Tensor, *tensors: Tensor
    ) -> Tensor:
        """query (B*H,T,D) and key, value (B*H,n,D) for each name; returns (B*H,T,D)."""
        blocks = query.unflatten(1, (-1, layout.block_size))
        sequences = {name: (tensors[2 * i], tensors[2 * i + 1]) for i, name in enumerate(names)}
        output = torch.empty_like(blocks, memory_format=torch.contiguous_format)
        log_sums = blocks.new_empty(blocks.shape[:3], dtype=torch.promote_types(query.dtype, torch.float32))
        for piece in layout.pieces:
            keys, values = (windows(x, piece) for x in sequences[piece.sequence])
            rows = slice(piece.first, piece.first + piece.count)
            part, part_log_sums = _ATTEND(blocks[:, rows], keys, values, attn_mask=_window_bias(biases, piece))
            if piece.sequence == "local":
                output[:, rows], log_sums[:, rows] = part, part_log_sums
            else:
                merge(output[:, rows], log_sums[:, rows], part, part_log_sums)
        if biases:
            unseen = log_sums < torch.finfo(query.dtype).min / 4
            output.masked_fill_(unseen[..., None], 0.0)
        ctx.layout, ctx.names, ctx.biases = layout, names, biases
        ctx.save_for_backward(query, output, log_sums, *tensors)
        return output.flatten(1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Each piece's share, from the merged output and log-sum-exp."""
        query, output, log_sums, *tensors = ctx.saved_tensors
        blocks, grad = (x.unflatten(1, (-1, ctx.layout.block_size)) for x in (query, grad))
        if ctx.biases:
            unseen = log_sums < torch.finfo(query.dtype).min / 4
            grad = grad.masked_fill(unseen[..., None], 0.0)
        grad_query = torch.zeros_like(output)
        grads = [torch.zeros_like(x, memory_format=torch.contiguous_format) for x in tensors]
        for piece in ctx.layout.pieces:
            i = 2 * ctx.names.index(piece.sequence)
            rows = slice(piece.first, piece.first + piece.count)
            keys, values = windows(tensors[i], piece), windows(tensors[i + 1], piece)
            arguments = (grad[:, rows], blocks[:, rows], keys, values, output[:, rows], log_sums[:, rows], 0.0, False)
            shares = _ATTEND_BACKWARD(*arguments, attn_mask=_window_bias(ctx.biases, piece))
            grad_query[:, rows] += shares[0]
            add_windows(grads[i], shares[1], piece)
            add_windows(grads[i + 1], shares[2], piece)
        return None, None, None, grad_query.flatten(1, 2), *grads


def merge(output: Tensor, log_sums: Tensor, part: Tensor, part_log_sums: Tensor) -> None:
    """Merge a part (…,D) and its log-sum-exp (…) over other keys into output and log_sums, in place."""
    merged = torch.logaddexp(log_sums, part_log_sums)
    output.mul_((log_sums - merged).exp_()[..., None])
    output.addcmul_(part, (part_log_sums - merged).exp_()[..., None].to(part.dtype))
    log_sums.copy_(merged)


def _window_bias(biases: dict[str, Tensor], piece: Piece) -> Tensor | None:
    """(B*H,count,1,size) to add to the scores of a piece, or None."""
    if piece.sequence not in biases:
        return None
    return windows(biases[piece.sequence][..., None], piece).transpose(-1, -2)


def _op(name: str) -> Any:
    packet = getattr(torch.ops.aten, name, None)
    return getattr(packet, "default", None)


_ATTEND = _op("_scaled_dot_product_flash_attention_for_cpu")
_ATTEND_BACKWARD = _op("_scaled_dot_product_flash_attention_for_cpu_backward")


@functools.lru_cache(maxsize=1)
def is_available() -> bool:
    """Whether this torch has both ops and they merge as relied on here: a tiny result and gradient are compared."""
    if _ATTEND is None or _ATTEND_BACKWARD is None:
        return False
    try:
        # Whoever asks first decides for the process, and may do so in inference mode, where nothing has a gradient.
        with torch.inference_mode(False), torch.enable_grad():
            return _probe()
    except (RuntimeError, TypeError, ValueError):
        return False


def _probe() -> bool:
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, 9, 8, generator=generator).requires_grad_() for _ in range(3))
    layout = BlockWindows(3, (Piece("local", 0, 3, 0, 5, 0), Piece("sparse", 0, 3, 5, 4, 0)))
    flat = [x.flatten(0, 1) for x in (query, key, value)]
    merged = _BlockAttention.apply(layout, ("local", "sparse"), {}, flat[0], *flat[1:], *flat[1:])
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    if not torch.allclose(merged.unflatten(0, (1, 2)), expected, atol=1e-5):
        return False
    inputs = (query, key, value)
    gradients = (torch.autograd.grad(x.square().sum(), inputs, retain_graph=True) for x in (merged, expected))
    return all(torch.allclose(one, other, atol=1e-4) for one, other in zip(*gradients, strict=True))
