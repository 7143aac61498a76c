"""Checking and splitting attention heads."""

from __future__ import annotations

from torch import Tensor

from lsg_fairseq.modules.lsg_config import LSGError


def check_heads(embed_dim: int, num_heads: int) -> None:
    """Refuse heads of unequal width.

    Raises:
        LSGError: num_heads does not divide embed_dim.
    """
    if embed_dim % num_heads:
        raise LSGError(f"the number of attention heads must divide the width {embed_dim}, which {num_heads} does not")


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """(L,B,C) -> (B,H,L,D)."""
    return x.unflatten(-1, (num_heads, -1)).permute(1, 2, 0, 3)
