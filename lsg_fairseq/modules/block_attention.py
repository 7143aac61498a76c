"""How the blocks of regular queries attend to globals, sparse and local keys in one softmax.

`block_attention` is the one entrance; the backends behind it compute the same numbers. `reference` gathers the keys of
each block and leaves the rest to torch's scaled_dot_product_attention: it runs on every device, in every dtype, with
dropout and gradients, and it is what other backends are checked against. `fused_cpu` needs no copies on CPUs; `flex` is
FlexAttention, for CUDA. The environment variable LSG_ATTENTION_BACKEND forces one of them, or `auto`.
"""

from __future__ import annotations

import os
import warnings
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lsg_fairseq.modules import flex_block_attention, fused_cpu_attention
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.modules.sparse_tokens import SparseTokens


class Tokens(NamedTuple):
    """The projected sequence, globals in front: query, key, value (B,H,G+T,D); padding_mask (B,G+T) bool or None."""

    query: Tensor
    key: Tensor
    value: Tensor
    padding_mask: Tensor | None

    def rows(self, start: int, stop: int | None = None) -> Tokens:
        """The tokens from `start` to `stop`."""
        mask = None if self.padding_mask is None else self.padding_mask[:, start:stop]
        return Tokens(*(x[:, :, start:stop] for x in self[:3]), mask)


def full_attention(query: Tensor, tokens: Tokens, dropout_p: float) -> Tensor:
    """Attend from `query` (B,H,n,D) to every key of `tokens`; returns (B,H,n,D)."""
    mask = tokens.padding_mask
    present = None if mask is None else ~mask[:, None, None]
    return F.scaled_dot_product_attention(query, tokens.key, tokens.value, present, dropout_p)


def block_attention(tokens: Tokens, sparse: SparseTokens | None, config: LSGConfig, dropout_p: float) -> Tensor:
    """Attend from the regular tokens, T a multiple of b, to what their blocks see; returns (B,H,T,D).

    Raises:
        LSGError: LSG_ATTENTION_BACKEND is no backend, or the one it names cannot do this.
    """
    backend = choose_backend(tokens, dropout_p)
    if backend == "reference":
        return reference_block_attention(tokens, sparse, config, dropout_p)
    try:
        return FUSED_BACKENDS[backend](*_sequences(tokens, sparse, config), config)
    except Exception as error:  # torch's compiler raises many kinds where a device, a size or an installation is amiss
        if backend != "flex" or _forced_backend() == "flex" or isinstance(error, torch.OutOfMemoryError):
            raise
        FAILED_BACKENDS.add(backend)
        warnings.warn(f"FlexAttention failed ({error}); the slower reference attention takes over", stacklevel=2)
        return reference_block_attention(tokens, sparse, config, dropout_p)


def choose_backend(tokens: Tokens, dropout_p: float) -> str:
    """The backend for these tokens: the forced one, or the fastest that applies."""
    forced = _forced_backend()
    if forced == "reference" or torch.compiler.is_compiling():
        return "reference"
    if forced == "flex":
        fitting = "flex"
    else:
        fitting = _fitting_backend(tokens)
        if forced == "fused_cpu" and fitting != "fused_cpu":
            kind = f"{tokens.query.dtype} on {tokens.query.device}"
            raise LSGError(f"LSG_ATTENTION_BACKEND=fused_cpu cannot serve {kind}; use auto")
    if fitting != "reference" and dropout_p > 0:
        _warn_of_dropout()
        return "reference"
    return fitting


def _forced_backend() -> str:
    forced = os.environ.get("LSG_ATTENTION_BACKEND", "auto")
    if forced not in ("auto", "reference", *FUSED_BACKENDS):
        raise LSGError(f"LSG_ATTENTION_BACKEND must be auto, reference, {' or '.join(FUSED_BACKENDS)}, not {forced!r}")
    return forced


def _fitting_backend(tokens: Tokens) -> str:
    query = tokens.query
    if tokens.value.size(-1) != query.size(-1):
        return "reference"
    if query.device.type == "cuda":
        # FlexAttention's kernels want 16 and more, a power of two.
        width = query.size(-1)
        fits = width >= 16 and width & (width - 1) == 0 and query.dtype != torch.float64
        return "flex" if fits and "flex" not in FAILED_BACKENDS else "reference"
    fits = query.device.type == "cpu" and query.dtype in (torch.float32, torch.float64, torch.bfloat16)
    return "fused_cpu" if fits and fused_cpu_attention.is_available() else "reference"


def _warn_of_dropout() -> None:
    # Python shows a warning once for each place it comes from.
    warnings.warn(
        "attention dropout is above 0: the fused attentions have none, so training takes the reference attention, "
        "which is slower and needs more memory; --attention-dropout 0 avoids that",
        stacklevel=2,
    )


def _sequences(tokens: Tokens, sparse: SparseTokens | None, config: LSGConfig) -> tuple[Tensor, dict, dict, dict]:
    """The regular queries; keys, values and, where anything is absent, masks of each sequence by name."""
    parts = {"global": tokens.rows(0, config.num_global_tokens), "local": tokens.rows(config.num_global_tokens)}
    masks = {name: part.padding_mask[:, None] for name, part in parts.items() if part.padding_mask is not None}
    keys, values = ({name: part[i] for name, part in parts.items()} for i in (1, 2))
    if sparse is not None:
        keys["sparse"], values["sparse"] = sparse.key, sparse.value
        if sparse.padding_mask is not None:
            masks["sparse"] = sparse.padding_mask
    return parts["local"].query, keys, values, masks


# Each takes the regular queries, keys, values and masks by sequence, and the configuration.
FUSED_BACKENDS = {
    "fused_cpu": fused_cpu_attention.fused_cpu_block_attention,
    "flex": flex_block_attention.flex_block_attention,
}
# Not tried again in this process: a failed compilation takes its seconds each time.
FAILED_BACKENDS: set[str] = set()


def reference_block_attention(
    tokens: Tokens, sparse: SparseTokens | None, config: LSGConfig, dropout_p: float
) -> Tensor:
    """Gather each block's keys, (B,H,N,K,D) with K = G + 2s + 3b, then one softmax over them."""
    key, value, masked = block_keys(tokens, sparse, config)
    query = tokens.query[:, :, config.num_global_tokens :].unflatten(2, (-1, config.block_size))
    batch, heads = query.shape[:2]
    # Four dimensions, since torch's fused CPU kernel takes no more.
    query, key, value = (x.flatten(0, 1) for x in (query, key, value))
    present = ~masked.expand(batch, heads, -1, -1).flatten(0, 1)[:, :, None]
    attended = F.scaled_dot_product_attention(query, key, value, present, dropout_p)
    return attended.unflatten(0, (batch, heads)).flatten(2, 3)


def block_keys(tokens: Tokens, sparse: SparseTokens | None, config: LSGConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values (B,H,N,K,D) that each block sees, and which of them are absent (B or 1,H or 1,N,K)."""
    regular = tokens.rows(config.num_global_tokens)
    parts = [global_windows(tokens.rows(0, config.num_global_tokens), regular.key.size(2) // config.block_size)]
    if sparse is not None:
        parts.append(sparse_windows(sparse, config))
    parts.append(local_windows(regular, config.block_size))
    keys, values, masks = zip(*parts, strict=True)
    shape = torch.broadcast_shapes(*(mask.shape[:3] for mask in masks))
    masked = torch.cat([mask.expand(*shape, -1) for mask in masks], dim=-1)
    return torch.cat(keys, dim=3), torch.cat(values, dim=3), masked


def global_windows(tokens: Tokens, num_blocks: int) -> tuple[Tensor, Tensor, Tensor]:
    """Every block sees every global token."""
    key, value = (x[:, :, None].expand(-1, -1, num_blocks, -1, -1) for x in (tokens.key, tokens.value))
    return key, value, _or_nothing_masked(tokens)[:, :, None].expand(-1, -1, num_blocks, -1)


def local_windows(tokens: Tokens, block_size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Block i sees tokens [(i-1)b, (i+2)b) of its sequence."""
    key, value = (_windows(F.pad(x, (0, 0, block_size, block_size)), 3 * block_size, block_size) for x in tokens[1:3])
    mask = F.pad(_or_nothing_masked(tokens), (block_size, block_size), value=True)
    return key, value, mask.unfold(2, 3 * block_size, block_size)


def sparse_windows(sparse: SparseTokens, config: LSGConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Block i sees sparse tokens [(i-1)st-s, (i-1)st) and [(i+2)st, (i+2)st+s), st = b/f."""
    step, size = config.sparse_step, config.sparse_block_size
    num_blocks = sparse.key.size(2) // step
    margin, right_start = step + size, size + 3 * step
    mask = sparse.padding_mask
    if mask is None:
        mask = sparse.key.new_zeros(1, 1, sparse.key.size(2), dtype=torch.bool)
    mask = F.pad(mask, (margin, margin), value=True)
    mask = torch.cat([mask[:, :, a:].unfold(2, size, step)[:, :, :num_blocks] for a in (0, right_start)], dim=3)
    key, value = (F.pad(x, (0, 0, margin, margin)) for x in (sparse.key, sparse.value))
    key, value = (
        torch.cat([_windows(x[:, :, a:], size, step)[:, :, :num_blocks] for a in (0, right_start)], dim=3)
        for x in (key, value)
    )
    return key, value, mask


def _windows(x: Tensor, size: int, step: int) -> Tensor:
    """Overlapping views (B,H,number,size,D) of x (B,H,n,D)."""
    return x.unfold(2, size, step).transpose(-1, -2)


def _or_nothing_masked(tokens: Tokens) -> Tensor:
    if tokens.padding_mask is None:
        return tokens.key.new_zeros(1, 1, tokens.key.size(2), dtype=torch.bool)
    return tokens.padding_mask[:, None]
