"""Block attention through torch's FlexAttention: one fused kernel over tokens, sparse tokens and globals in a row.

The block mask holds the structure alone and is cached, so nothing is rebuilt for a batch or a layer; padding enters as
a bias on the scores. It has no dropout. Meant for CUDA, where forward and backward are fused; tests run it on CPUs,
where only the forward is.

Globals come last, and every sequence is padded to whole tiles: globals in front would shift all windows off the tile
grid, and sizes that are no multiple of a tile take other, slower kernels.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, flex_attention

from lsg_fairseq.modules.lsg_config import LSGConfig

# Finite, so that a query that sees nothing keeps a defined softmax, and far below any score in half precision.
MASKED_SCORE = -3e4
# Rows and columns of the mask's tiles that a kernel skips or computes: FlexAttention's own default. Tiles of 64 keys
# would be fewer (676 columns a row instead of 856, of 613 needed), but kernels tuned for H100 want 128.
TILE = 128
# Graphs that dynamo may compile of the kernel: one for each backend_probe.Kind, with and without gradients; lengths
# after the first are symbolic. The default, 8, is less than one training with validation needs.
MOST_GRAPHS = 64


class Lengths(NamedTuple):
    """How many regular, sparse and global keys there are, and where the sparse and global ones begin in the row."""

    tokens: int
    sparse: int
    globals: int

    @property
    def first_sparse(self) -> int:
        """Regular tokens come first, filled up to whole tiles."""
        return _whole_tiles(self.tokens)

    @property
    def first_global(self) -> int:
        """Globals begin a tile."""
        return self.first_sparse + _whole_tiles(self.sparse)

    @property
    def keys(self) -> int:
        """The length of the row, a multiple of the tile."""
        return self.first_global + _whole_tiles(self.globals)


def fits(query: Tensor, config: LSGConfig) -> bool:
    """Whether queries (B,H,T,D) like this one are served; keys and values have to be like it."""
    width = query.size(-1)
    # The kernels want 16 and more, a power of two.
    return query.device.type == "cuda" and width >= 16 and width & (width - 1) == 0 and query.dtype != torch.float64


def flex_block_attention(
    query: Tensor, keys: dict[str, Tensor], values: dict[str, Tensor], masks: dict[str, Tensor], config: LSGConfig
) -> Tensor:
    """Attend from regular queries (B,H,T,D), T >= 3b, to what their blocks see; returns (B,H,T,D).

    keys, values: (B,H,n,D) of the sequences "global", "local" (n = T) and, if there are any, "sparse".
    masks: (B or 1,H or 1,n) bool, True = absent, of those sequences in which anything is.
    """
    num_tokens = query.size(2)
    order = [name for name in ("local", "sparse", "global") if name in keys]
    key, value = (torch.cat([_filled(parts[name]) for name in order], dim=2) for parts in (keys, values))
    num_sparse = keys["sparse"].size(2) if "sparse" in keys else 0
    block_mask = structure(num_tokens, num_sparse, config, str(query.device))
    score_mod = _masking([(masks.get(name), keys[name].size(2)) for name in order], query) if masks else None
    return _kernel(query.device.type)(_filled(query), key, value, score_mod, block_mask)[:, :, :num_tokens]


def _whole_tiles(length: int) -> int:
    return -(-length // TILE) * TILE


def _filled(x: Tensor) -> Tensor:
    """(B,H,n,D) padded with zeros to whole tiles."""
    missing = _whole_tiles(x.size(2)) - x.size(2)
    return F.pad(x, (0, 0, 0, missing)) if missing else x


@functools.lru_cache(maxsize=256)
def structure(num_tokens: int, num_sparse: int, config: LSGConfig, device: str) -> BlockMask:
    """Which keys of the row each regular query sees, padding aside. Computed on the CPU, in a handful of operations."""
    lengths = Lengths(num_tokens, num_sparse, config.num_global_tokens)
    # A mask that was made in inference mode could not be used in training afterwards.
    with torch.inference_mode(False):
        some, every = tiles(lengths, config)
        blocks = (part for tile in (some & ~every, every) for part in _as_block_lists(tile))
        sizes = (_whole_tiles(num_tokens), lengths.keys)
        mask = BlockMask.from_kv_blocks(*blocks, BLOCK_SIZE=TILE, mask_mod=visible(lengths, config), seq_lengths=sizes)
        return mask.to(device)


def tiles(lengths: Lengths, config: LSGConfig) -> tuple[Tensor, Tensor]:
    """Which tiles of the mask are seen at least in part, and which as a whole: (rows,columns) bool each.

    All queries of a block see the same keys, so one row for each block is enough.
    """
    num_rows, size = _whole_tiles(lengths.tokens) // TILE, config.block_size
    last = num_rows * TILE - 1
    queries = torch.arange(0, last + 1, size)[:, None]
    zero = torch.zeros((), dtype=torch.long)
    seen = visible(lengths, config)(zero, zero, queries, torch.arange(lengths.keys)).unflatten(1, (-1, TILE))
    # The blocks whose queries a row of tiles holds; a block listed twice changes nothing.
    first = torch.arange(num_rows) * TILE
    blocks = (first[:, None] // size + torch.arange(-(-TILE // size) + 1)).minimum((first[:, None] + TILE - 1) // size)
    return seen.any(2)[blocks].any(1), seen.all(2)[blocks].all(1)


def _as_block_lists(tile: Tensor) -> tuple[Tensor, Tensor]:
    """(rows,columns) bool -> how many columns each row has (1,1,rows), and which, these first (1,1,rows,columns)."""
    count = tile.sum(1, dtype=torch.int32)
    columns = tile.int().argsort(dim=1, descending=True, stable=True).int()
    return count[None, None], columns[None, None]


def visible(lengths: Lengths, config: LSGConfig) -> Callable[..., Tensor]:
    """The mask_mod of `structure`: which of [tokens, sparse tokens, globals] a query sees (paper, section 3)."""
    size, sparse_size = config.block_size, config.sparse_block_size
    step = config.sparse_step if config.has_sparse_tokens else 1
    num_tokens, num_sparse, num_globals = lengths
    first_sparse, first_global = lengths.first_sparse, lengths.first_global

    def mask_mod(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        block = query // size
        sparse, last = key - first_sparse, key - first_global
        local = (key >= (block - 1) * size) & (key < (block + 2) * size) & (key < num_tokens)
        left = (sparse >= (block - 1) * step - sparse_size) & (sparse < (block - 1) * step)
        right = (sparse >= (block + 2) * step) & (sparse < (block + 2) * step + sparse_size)
        is_global = (last >= 0) & (last < num_globals)
        return local | is_global | ((sparse >= 0) & (sparse < num_sparse) & (left | right))

    return mask_mod


def _masking(parts: list[tuple[Tensor | None, int]], query: Tensor) -> Callable[..., Tensor]:
    """A score_mod that pushes absent keys out of the softmax, from masks and lengths in the order of the row."""
    batch, heads = query.shape[:2]
    absent = [
        F.pad(
            query.new_zeros(1, 1, n, dtype=torch.bool).expand(batch, heads, -1)
            if mask is None
            else mask.expand(batch, heads, -1),
            (0, _whole_tiles(n) - n),
        )
        for mask, n in parts
    ]
    absent = torch.cat(absent, dim=-1)
    bias = torch.zeros(absent.shape, dtype=torch.float32, device=query.device).masked_fill(absent, MASKED_SCORE)

    def score_mod(score: Tensor, batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return score + bias[batch, head, key]

    return score_mod


Kernel = Callable[[Tensor, Tensor, Tensor, Callable | None, BlockMask], Tensor]


@functools.lru_cache(maxsize=1)
def _kernel(device: str) -> Kernel:
    """Compiled where it is fused; eager FlexAttention materialises all scores, which only tests on a CPU can afford."""
    return compiled_kernel() if device == "cuda" else flex_attention


def compiled_kernel(backend: str = "inductor") -> Kernel:
    """FlexAttention, compiled once for each kind of input and not for its sizes.

    `fullgraph` turns exceeding the limit into an error instead of eager execution. The limit is set inside the call:
    dynamo's settings are per thread, and checkpointed layers are recomputed in autograd's thread.
    """
    compiled = torch.compile(flex_attention, fullgraph=True, dynamic=True, backend=backend)

    def kernel(query: Tensor, key: Tensor, value: Tensor, score_mod: Any, block_mask: BlockMask) -> Tensor:
        with torch._dynamo.config.patch(recompile_limit=MOST_GRAPHS):
            return compiled(query, key, value, score_mod=score_mod, block_mask=block_mask)

    return kernel
