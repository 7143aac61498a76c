"""The keys that blocks see as overlapping views of a sequence, and gradients of those views summed back onto it."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Piece(NamedTuple):
    """Block first + i, i < count, sees keys [start + i*step, start + i*step + size) of a sequence."""

    sequence: str
    first: int
    count: int
    start: int
    size: int
    step: int


class BlockWindows(NamedTuple):
    """Which keys each block of `block_size` queries sees."""

    block_size: int
    pieces: tuple[Piece, ...]


def windows(x: Tensor, piece: Piece) -> Tensor:
    """The keys of each block of a piece as overlapping views: (B*H,n,D) -> (B*H,count,size,D)."""
    if piece.step == 0:
        return x[:, None, piece.start : piece.start + piece.size].expand(-1, piece.count, -1, -1)
    stop = piece.start + (piece.count - 1) * piece.step + piece.size
    return x[:, piece.start : stop].unfold(1, piece.size, piece.step).transpose(-1, -2)


def add_windows(target: Tensor, shares: Tensor, piece: Piece) -> None:
    """Add gradients of windows (B*H,count,size,D) onto the sequence (B*H,n,D) that they are views of."""
    if piece.step == 0:
        target[:, piece.start : piece.start + piece.size] += shares.sum(1)
        return
    for offset in range(0, piece.size, piece.step):
        length = min(piece.step, piece.size - offset)
        # Slices of at most `step` keys do not overlap, so one addition serves all windows.
        windows(target, piece._replace(start=piece.start + offset, size=length)).add_(
            shares[:, :, offset : offset + length]
        )
