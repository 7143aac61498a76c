"""Layers whose float16 values stay finite: Pegasus' activations exceed 65,504, its maximum (transformers issue 11289).

The residual stream is clamped after every addition, not only at the end of a layer: the next layer norm would turn an
infinity into NaN. So would dropout, and the feed-forward projections are clamped too. float32 and bfloat16 are not
affected.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lsg_fairseq.models.lsg_decoder import LSGDecoderLayer
from lsg_fairseq.models.lsg_encoder import LSGEncoderLayer
from lsg_fairseq.modules.packed_linear import PackableLinear

# transformers keeps the same distance from the largest float16.
MARGIN = 1000


def clamp_half(x: Tensor) -> Tensor:
    """Clamp float16 values to a finite range; other dtypes pass through."""
    if x.dtype != torch.float16:
        return x
    limit = torch.finfo(torch.float16).max - MARGIN
    return x.clamp(-limit, limit)


class ClampedLinear(PackableLinear):
    """A linear layer (..., in) -> (..., out) whose float16 outputs are finite."""

    def forward(self, x: Tensor) -> Tensor:
        return clamp_half(super().forward(x))


class ClampedLayer:
    """Mixin for a fairseq transformer layer class, which it precedes: clamped projections and residual sums."""

    linear_class = ClampedLinear

    def residual_connection(self, x: Tensor, residual: Tensor) -> Tensor:
        return clamp_half(super().residual_connection(x, residual))


class ClampedEncoderLayer(ClampedLayer, LSGEncoderLayer):
    """The LSG encoder layer, safe in float16."""


class ClampedDecoderLayer(ClampedLayer, LSGDecoderLayer):
    """The LSG decoder layer, safe in float16."""
