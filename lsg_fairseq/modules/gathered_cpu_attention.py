"""Block attention in bfloat16 on a CPU, without gradients: gather each block's keys, then plain matrix products.

torch's fused kernel widens its keys to float32 for every 32 queries, and its results over separate windows have to be
merged. bfloat16 products take a third of its time, and the keys gathered for a few blocks stay in cache. Scores are
rounded to bfloat16, as in every model that attends without a fused kernel.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from lsg_fairseq.modules.key_windows import BlockWindows, Piece, windows

# Key elements gathered at once.
COPIED = 1 << 20


class Document(NamedTuple):
    """One document's keys and values (H,n,D) and biases (1 or H,n), by sequence name."""

    keys: dict[str, Tensor]
    values: dict[str, Tensor]
    biases: dict[str, Tensor]


def gathered_block_attention(
    query: Tensor, keys: dict[str, Tensor], values: dict[str, Tensor], biases: dict[str, Tensor], layout: BlockWindows
) -> Tensor:
    """Attend from (B,H,T,D) to keys and values (B,H,n,D); biases (B,1 or H,n) are finite; returns (B,H,T,D)."""
    batch, heads, length, width = query.shape
    # In the encoder's (T,B,C) layout, so that the output projection needs no copy.
    output = query.new_empty(length, batch, heads, width).permute(1, 2, 0, 3)
    for i in range(batch):
        document = Document(
            *({name: x[i].contiguous() for name, x in part.items()} for part in (keys, values)),
            {name: x[i if len(x) == batch else 0] for name, x in biases.items()},
        )
        blocks, target = (x[i].unflatten(1, (-1, layout.block_size)) for x in (query, output))
        for run in runs(layout.pieces):
            step = max(1, COPIED // (heads * width * sum(piece.size for piece in run)))
            for first in range(run[0].first, run[0].first + run[0].count, step):
                pieces = cut(run, first, min(step, run[0].first + run[0].count - first))
                rows = slice(first, first + pieces[0].count)
                target[:, rows] = _attend(blocks[:, rows], document, pieces)
    return output


def _attend(blocks: Tensor, document: Document, pieces: tuple[Piece, ...]) -> Tensor:
    """Attend from the queries of some blocks (H,count,b,D) to every key that they see."""
    key, value = (
        torch.cat([windows(x[piece.sequence], piece) for piece in pieces], dim=2)
        for x in (document.keys, document.values)
    )
    bias, unseen = _bias(document, pieces, blocks)
    attended = _by_products(blocks, key, value, bias)
    return attended if unseen is None else attended.masked_fill(unseen, 0.0)


def _by_products(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    scaled, keys, values = (x.flatten(0, 1) for x in (query / math.sqrt(query.size(-1)), key, value))
    scores = torch.bmm(scaled, keys.transpose(1, 2))
    if bias is not None:
        scores.unflatten(0, query.shape[:2]).add_(bias)
    return torch.bmm(scores.softmax(-1), values).unflatten(0, query.shape[:2])


def _bias(document: Document, pieces: tuple[Piece, ...], blocks: Tensor) -> tuple[Tensor | None, Tensor | None]:
    """The bias on scores (H,count,1,K), and which blocks see no key (H,count,1,1) bool; None without masks."""
    if not document.biases:
        return None, None
    heads = blocks.size(0)
    parts = []
    for piece in pieces:
        if piece.sequence in document.biases:
            part = windows(document.biases[piece.sequence][..., None], piece).transpose(-1, -2)
            parts.append(part.expand(heads, -1, -1, -1))
        else:
            parts.append(blocks.new_zeros(1, 1, 1, 1).expand(heads, piece.count, 1, piece.size))
    bias = torch.cat(parts, dim=3)
    return bias, bias.amax(-1, keepdim=True) < torch.finfo(bias.dtype).min / 4


@functools.lru_cache(maxsize=256)
def runs(pieces: tuple[Piece, ...]) -> tuple[tuple[Piece, ...], ...]:
    """The pieces cut into runs of blocks that see the same number of keys of each."""
    edges = sorted({edge for piece in pieces for edge in (piece.first, piece.first + piece.count)})
    return tuple(cut(pieces, first, stop - first) for first, stop in itertools.pairwise(edges))


def cut(pieces: tuple[Piece, ...], first: int, count: int) -> tuple[Piece, ...]:
    """The part of each piece that blocks [first, first + count) see; pieces that do not cover them are left out."""
    covering = (piece for piece in pieces if piece.first <= first and first + count <= piece.first + piece.count)
    return tuple(
        piece._replace(first=first, count=count, start=piece.start + (first - piece.first) * piece.step)
        for piece in covering
    )
