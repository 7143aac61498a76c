"""Pegasus' positions: a fixed table whose first row is position 0."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class PegasusPositionalEmbedding(nn.Module):
    """Look positions up in a table that is not trained; it is stored as `weight`, as Hugging Face stores it.

    Unlike fairseq's sinusoids it has no rows in front of position 0. Padding does not advance the position, so padding
    may reach beyond the table.

    Args:
        table: [positions, C], one row a position.
        padding_idx: the token that has no position.
    """

    def __init__(self, table: Tensor, padding_idx: int) -> None:
        super().__init__()
        self.register_buffer("weight", table)
        self.padding_idx = padding_idx

    @property
    def max_positions(self) -> int:
        """The length of the table."""
        return self.weight.size(0)

    def forward(self, tokens: Tensor, incremental_state: dict[str, Any] | None = None) -> Tensor:
        """Positions (B,T,C) of tokens (B,T); (1,1,C), the last token's, while decoding step by step."""
        if incremental_state is not None:
            return self.weight[None, tokens.size(1) - 1 : tokens.size(1)]
        positions = tokens.ne(self.padding_idx).cumsum(dim=1).sub(1).clamp(min=0)
        return nn.functional.embedding(positions, self.weight)
