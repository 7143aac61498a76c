"""Layers whose float16 values stay finite: Pegasus' activations pass 65,504 (transformers issue 11289).

The residual stream is clamped wherever something is added to it, not only at a layer's end: a sum that overflows in
between would reach the next layer norm as infinity and leave it as NaN. The feed-forward projections are clamped too,
since dropout turns an infinity into NaN. In float32 and bfloat16 nothing changes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsg_fairseq.models.lsg_decoder import LSGDecoderLayer
from lsg_fairseq.models.lsg_encoder import LSGEncoderLayer
from lsg_fairseq.modules.packed_linear import PackableLinear

# transformers stays this far below the largest float16 as well.
MARGIN = 1000


def clamp_half(x: Tensor) -> Tensor:
    """Keep float16 values finite; other types pass through."""
    if x.dtype != torch.float16:
        return x
    limit = torch.finfo(torch.float16).max - MARGIN
    return x.clamp(-limit, limit)


class ClampedLinear(PackableLinear):
    """A linear layer (..., in) -> (..., out) with finite float16 outputs."""

    def forward(self, x: Tensor) -> Tensor:
        return clamp_half(super().forward(x))


class ClampedLayer:
    """Put in front of a fairseq transformer layer class."""

    linear_class = ClampedLinear

    def residual_connection(self, x: Tensor, residual: Tensor) -> Tensor:
        return clamp_half(super().residual_connection(x, residual))


class ClampedEncoderLayer(ClampedLayer, LSGEncoderLayer):
    """The LSG encoder layer, safe in float16."""


class ClampedDecoderLayer(ClampedLayer, LSGDecoderLayer):
    """The LSG decoder layer, safe in float16."""
