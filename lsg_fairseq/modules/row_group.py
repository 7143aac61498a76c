"""A group of (batch, head) rows: their keys and values with margins, cut into chunks of blocks."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lsg_fairseq.modules import counter_dropout
from lsg_fairseq.modules.block_chunks import Blocks, Part, Rows, parts_of, with_margins, without_margins
from lsg_fairseq.modules.dropout_words import key_words, query_words
from lsg_fairseq.modules.key_windows import add_windows, windows
from lsg_fairseq.modules.lsg_config import LSGConfig


class Call(NamedTuple):
    """Everything block attention depends on besides the tensors that have gradients.

    names: the sequences, in the order of their tensors; masks: (B or 1,H or 1,n) bool of those with anything absent.
    """

    config: LSGConfig
    names: tuple[str, ...]
    masks: dict[str, Tensor]
    seed: int
    dropout: counter_dropout.Dropout | None

    def parts(self) -> tuple[Part, ...]:
        """The windows of a block."""
        return parts_of(self.names, self.config)


class Chunk(NamedTuple):
    """M blocks of the rows: scaled queries (M,b,D), keys (M,K,D) and values (M,K,D).

    bias: (M,1,K) added to scores, minus infinity where a key is absent; None: every key is present.
    unseeing: (M,1,1) bool, True for blocks all of whose keys are absent; None: there is no such block.
    words: dropout's hash words of queries (M,b,1) and keys (M,1,K), int32; None: no dropout.
    """

    blocks: Blocks
    query: Tensor
    key: Tensor
    value: Tensor
    bias: Tensor | None
    unseeing: Tensor | None
    words: tuple[Tensor, Tensor] | None


class RowGroup:
    """The rows' keys and values, from which chunks are cut.

    Args:
        call: what the attention depends on.
        rows: which rows of the batch.
        query: (B,H,T,D) of the whole batch.
        tensors: key and value (B,H,n,D) of each of the call's sequences.
        dtype: of products.
    """

    def __init__(self, call: Call, rows: Rows, query: Tensor, tensors: tuple[Tensor, ...], dtype: torch.dtype) -> None:
        self.call, self.rows, self.query, self.dtype = call, rows, query, dtype
        self.scale = 1.0 / math.sqrt(query.size(-1))
        self.parts = call.parts()
        self.margins = {part.sequence: part.margin for part in self.parts}
        self.lengths = {name: tensors[2 * i].size(2) for i, name in enumerate(call.names)}
        wide = [with_margins(x, rows, self.margins[call.names[i // 2]], dtype) for i, x in enumerate(tensors)]
        self.keys = dict(zip(call.names, wide[::2], strict=True))
        self.values = dict(zip(call.names, wide[1::2], strict=True))
        self.absent = {name: self._absent(name) for name in call.names}
        self.words = self._words() if call.dropout else None

    def _absent(self, name: str) -> Tensor:
        """(rows or 1,margin+n+margin,1) bool: the margins, and what the mask says."""
        margin, mask = self.margins[name], self.call.masks.get(name)
        if mask is None:
            mask = self.query.new_zeros(1, self.lengths[name], dtype=torch.bool)
        else:
            batch, heads = self.query.shape[:2]
            mask = self.rows.of(mask.expand(batch, heads, -1)).flatten(0, 1)
        return torch.nn.functional.pad(mask, (margin, margin), value=True)[..., None]

    def _words(self) -> tuple[Tensor, dict[str, Tensor]]:
        """Hash words of the queries (rows,T) and of each sequence's keys (1,margin+n+margin,1), int32."""
        device, heads = self.query.device, self.query.size(1)
        rows = torch.arange(self.query.size(0) * heads, device=device).view(-1, heads)
        queries = query_words(self.call.seed, self.rows.of(rows).flatten(), self.query.size(2))
        keys, first = {}, 0
        for name, length in self.lengths.items():
            margin = self.margins[name]
            positions = torch.arange(first - margin, first + length + margin, device=device)
            keys[name] = key_words(positions)[None, :, None]
            first += length
        return queries, keys

    def of_blocks(self, x: Tensor, blocks: Blocks) -> Tensor:
        """Of a batch (B,H,T,D), the rows' blocks (b,h,count,size,D)."""
        size = self.call.config.block_size
        return self.rows.of(x).unflatten(2, (-1, size)).narrow(2, *blocks)

    def chunk(self, blocks: Blocks) -> Chunk:
        """Gather what these blocks see."""
        query = self.of_blocks(self.query, blocks).to(self.dtype).flatten(0, 2) * self.scale
        key, value = (self._windows(x, blocks).flatten(0, 1) for x in (self.keys, self.values))
        bias, unseeing = self._bias(blocks)
        return Chunk(blocks, query, key, value, bias, unseeing, self._chunk_words(blocks))

    def _windows(self, sequences: dict[str, Tensor], blocks: Blocks) -> Tensor:
        """(rows,count,K,D) of sequences (rows,n,D)."""
        return torch.cat([windows(sequences[part.sequence], part.piece(*blocks)) for part in self.parts], dim=2)

    def _bias(self, blocks: Blocks) -> tuple[Tensor | None, Tensor | None]:
        inside = not any(part.reaches_beyond(*blocks, self.lengths[part.sequence]) for part in self.parts)
        if inside and not self.call.masks:
            return None, None
        num_rows = max(x.size(0) for x in self.absent.values())
        absent = self._windows({name: x.expand(num_rows, -1, -1) for name, x in self.absent.items()}, blocks)
        absent = absent.squeeze(-1).expand(len(self.keys["local"]), -1, -1).flatten(0, 1)[:, None]
        # A softmax over nothing but minus infinity is NaN: such rows are computed unmasked and zeroed afterwards.
        unseeing = absent.all(-1, keepdim=True) if self.call.masks else None
        hidden = absent if unseeing is None else absent & ~unseeing
        bias = torch.zeros(absent.shape, dtype=torch.promote_types(self.dtype, torch.float32), device=absent.device)
        return bias.masked_fill_(hidden, -math.inf), unseeing

    def _chunk_words(self, blocks: Blocks) -> tuple[Tensor, Tensor] | None:
        if self.words is None:
            return None
        queries, keys = self.words
        queries = queries.unflatten(1, (-1, self.call.config.block_size)).narrow(1, *blocks)
        keys = self._windows(keys, blocks).squeeze(-1).expand(len(queries), -1, -1)
        return queries.flatten(0, 1)[..., None], keys.flatten(0, 1)[:, None]

    def write(self, target: Tensor, blocks: Blocks, rows: Tensor) -> None:
        """Write the blocks' rows (M,b,D) to their place in (B,H,T,D)."""
        place = self.of_blocks(target, blocks)
        place.copy_(rows.view(place.shape))

    def zero_sums(self) -> list[dict[str, Tensor]]:
        """Zeros to accumulate the gradients of keys and of values in, at least fp32."""
        wide = torch.promote_types(self.dtype, torch.float32)
        return [{n: torch.zeros_like(x, dtype=wide) for n, x in part.items()} for part in (self.keys, self.values)]

    def add(self, sums: dict[str, Tensor], blocks: Blocks, shares: Tensor) -> None:
        """Add the gradients (M,K,D) of the keys that the blocks see."""
        shares = shares.unflatten(0, (-1, blocks.count))
        for part, share in zip(self.parts, shares.split([part.size for part in self.parts], dim=2), strict=True):
            add_windows(sums[part.sequence], share, part.piece(*blocks))

    def store(self, sums: list[dict[str, Tensor]], grads: list[Tensor]) -> None:
        """Write the sums into the gradients of the whole batch, in the order of the call's tensors."""
        for i, grad in enumerate(grads):
            name = self.call.names[i // 2]
            place = self.rows.of(grad)
            place.copy_(without_margins(sums[i % 2][name], self.margins[name]).view(place.shape))
