"""Attention over encoder rows -> attention over source tokens, from which alignments are read."""

from __future__ import annotations

import torch
from torch import Tensor


def source_columns(attention: Tensor, num_global_rows: int, left_padding: list[Tensor]) -> Tensor:
    """(R,T,G+T0) attention over encoder rows -> (R,T,T0), a column for each token of the source as it was given.

    Args:
        attention: R = B * beams rows, those of a source side by side.
        num_global_rows: G, the global tokens in front of the source.
        left_padding: [(B,1)] or [(R,1)] number of padding tokens in front of each source, which the encoder moved
            behind it; an empty list if there are none.
    """
    own = attention[..., num_global_rows:]
    for moved in left_padding:
        moved = moved.repeat_interleave(own.size(0) // moved.size(0), 0)
        order = (torch.arange(own.size(-1), device=own.device) - moved) % own.size(-1)
        own = own.gather(-1, order[:, None].expand_as(own))
    return own
