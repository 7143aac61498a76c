"""How the blocks of regular queries attend to globals, sparse and local keys in one softmax.

`block_attention` is the one entrance; the backends behind it compute the same numbers, and those that have dropout drop
the same probabilities. The first that fits is taken: `fused_cpu` needs no copies on CPUs; `flex` is FlexAttention, for
CUDA, without dropout; `triton` has kernels with dropout for GPUs of compute capability 8.0 and later; `chunked` runs on
every device, in every dtype, with dropout. `reference` gathers the keys of each block and leaves the rest to torch's
scaled_dot_product_attention: it is what others are checked against, and what compilers and exporters are given. The
environment variable LSG_ATTENTION_BACKEND forces one of them, or `auto`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lsg_fairseq.modules import (
    backend_probe,
    chunked_block_attention,
    flex_block_attention,
    fused_cpu_attention,
    triton_block_attention,
)
from lsg_fairseq.modules.backend_probe import Kind
from lsg_fairseq.modules.kernel_precision import few_queries_attention, is_faster_unfused
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
    # A few global tokens in bfloat16: the fused kernel would widen all keys and values for them.
    if query.dtype == torch.bfloat16 and not torch.is_grad_enabled() and not dropout_p and is_faster_unfused(query):
        return few_queries_attention(query, tokens.key, tokens.value, present)
    return F.scaled_dot_product_attention(query, tokens.key, tokens.value, present, dropout_p)


class Backend(NamedTuple):
    """One way to attend. `fits` looks at the query (B,H,T,D) and the configuration alone."""

    attend: Callable[..., Tensor]
    fits: Callable[[Tensor, LSGConfig], bool]
    has_dropout: bool
    is_probed: bool

    def serve(
        self, query: Tensor, keys: dict, values: dict, masks: dict, config: LSGConfig, dropout_p: float
    ) -> Tensor:
        """Attend from the queries of some Sequences; returns (B,H,T,D)."""
        return self.attend(query, keys, values, masks, config, *([dropout_p] if self.has_dropout else []))


def block_attention(tokens: Tokens, sparse: SparseTokens | None, config: LSGConfig, dropout_p: float) -> Tensor:
    """Attend from the regular tokens, T a multiple of b, to what their blocks see; returns (B,H,T,D).

    Raises:
        LSGError: LSG_ATTENTION_BACKEND is no backend, or the one it names cannot do this.
    """
    sequences = _sequences(tokens, sparse, config)
    name = choose_backend(sequences, config, dropout_p)
    if name == "reference":
        return reference_block_attention(tokens, sparse, config, dropout_p)
    # In a backward an exception may be checkpointing's own signal that it has recomputed enough.
    if _forced_backend() != "auto" or not BACKENDS[name].is_probed or backend_probe.within_backward():
        return BACKENDS[name].serve(*sequences, config, dropout_p)
    # The fallback must draw the same seed: a checkpointed layer may be recomputed without the failure.
    random_state = torch.get_rng_state() if dropout_p > 0 else None
    try:
        return BACKENDS[name].serve(*sequences, config, dropout_p)
    except torch.OutOfMemoryError:  # fairseq's trainer knows what to do
        raise
    except Exception as error:  # torch's compiler raises many types for unsupported devices, sizes or installations
        backend_probe.note_failure(_kind(name, sequences, config, dropout_p), error)
    if random_state is not None:
        torch.set_rng_state(random_state)
    return BACKENDS["chunked"].serve(*sequences, config, dropout_p)


def choose_backend(sequences: Sequences, config: LSGConfig, dropout_p: float) -> str:
    """The backend for these sequences: the forced one, or the first that fits, has dropout if needed, and works.

    Raises:
        LSGError: LSG_ATTENTION_BACKEND is no backend, or one that cannot serve this dtype or device.
    """
    forced, query = _forced_backend(), sequences.query
    if forced == "reference" or torch.compiler.is_compiling():
        return "reference"
    if forced != "auto":
        if not BACKENDS[forced].fits(query, config) and forced != "flex":
            raise LSGError(f"LSG_ATTENTION_BACKEND={forced} cannot serve {query.dtype} on {query.device}; use auto")
        # Forcing a backend must not turn dropout off.
        return forced if BACKENDS[forced].has_dropout or not dropout_p else "chunked"
    if sequences.values["local"].size(-1) != query.size(-1):
        return "chunked"
    for name, backend in BACKENDS.items():
        if not (backend.has_dropout or not dropout_p) or not backend.fits(query, config):
            continue
        if not backend.is_probed or backend_probe.passes(_kind(name, sequences, config, dropout_p), backend.serve):
            return name
    return "chunked"


def _kind(name: str, sequences: Sequences, config: LSGConfig, dropout_p: float) -> Kind:
    query, masked = sequences.query, bool(sequences.masks)
    return Kind(name, query.device, query.dtype, query.size(3), config, query.size(0) == 1, masked, dropout_p > 0)


def _forced_backend() -> str:
    forced, names = os.environ.get("LSG_ATTENTION_BACKEND", "auto"), ["auto", "reference", *BACKENDS]
    if forced not in names:
        raise LSGError(f"LSG_ATTENTION_BACKEND must be {', '.join(names[:-1])} or {names[-1]}, not {forced!r}")
    return forced


class Sequences(NamedTuple):
    """The regular queries (B,H,T,D); keys and values (B,H,n,D) of the sequences "global", "local" and "sparse" by name.

    masks: (B or 1,H or 1,n) bool, True = absent, of those sequences in which anything may be.
    """

    query: Tensor
    keys: dict[str, Tensor]
    values: dict[str, Tensor]
    masks: dict[str, Tensor]


def _sequences(tokens: Tokens, sparse: SparseTokens | None, config: LSGConfig) -> Sequences:
    parts = {"global": tokens.rows(0, config.num_global_tokens), "local": tokens.rows(config.num_global_tokens)}
    masks = {name: part.padding_mask[:, None] for name, part in parts.items() if part.padding_mask is not None}
    keys, values = ({name: part[i] for name, part in parts.items()} for i in (1, 2))
    if sparse is not None:
        keys["sparse"], values["sparse"] = sparse.key, sparse.value
        if sparse.padding_mask is not None:
            masks["sparse"] = sparse.padding_mask
    return Sequences(parts["local"].query, keys, values, masks)


# In the order in which they are tried.
BACKENDS = {
    "fused_cpu": Backend(
        fused_cpu_attention.fused_cpu_block_attention, fused_cpu_attention.fits, has_dropout=False, is_probed=False
    ),
    "flex": Backend(
        flex_block_attention.flex_block_attention, flex_block_attention.fits, has_dropout=False, is_probed=True
    ),
    "triton": Backend(
        triton_block_attention.triton_block_attention, triton_block_attention.fits, has_dropout=True, is_probed=True
    ),
    "chunked": Backend(
        chunked_block_attention.chunked_block_attention,
        lambda query, config: True,
        has_dropout=True,
        is_probed=False,
    ),
}


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
