"""What the decoder's two attentions share: parameters initialised as fairseq's, the beam size, the state's name."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping

from torch import Tensor, nn

from lsg_fairseq.modules.attention_heads import check_heads
from lsg_fairseq.modules.packed_linear import PackableLinear

IncrementalState = dict[str, dict[str, Tensor | None]]


class DecoderAttention(nn.Module):
    """Projections and settings, in the place and with the parameters of fairseq's MultiheadAttention.

    Args:
        input_dims: width of each projection's input, in the order in which an optimizer's state numbers parameters.
        embed_dim: C, a multiple of num_heads.
        num_heads: H.
        dropout: dropout of the attention probabilities while training.
    """

    def __init__(self, input_dims: Mapping[str, int], embed_dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        check_heads(embed_dim, num_heads)
        self.num_heads, self.head_dim = num_heads, embed_dim // num_heads
        self.dropout = dropout
        for name, width in input_dims.items():
            self.add_module(name, PackableLinear(width, embed_dim))
        self.beam_size = 1
        self._state_name = f"{uuid.uuid4()}.{type(self).__name__}"
        self._init_weights(input_dims)

    def _init_weights(self, names: Mapping[str, int]) -> None:
        """fairseq's MultiheadAttention.reset_parameters."""
        for name in (name for name in names if name != "out_proj"):
            nn.init.xavier_uniform_(self.get_submodule(name).weight, gain=1 / math.sqrt(2))
        nn.init.xavier_uniform_(self.out_proj.weight)
        nn.init.zeros_(self.out_proj.bias)

    @property
    def dropout_now(self) -> float:
        """The probability of dropout; 0 in evaluation."""
        return self.dropout if self.training else 0.0

    def set_beam_size(self, beam_size: int) -> None:
        """Set how many consecutive rows of a generation are the beams of one document."""
        self.beam_size = beam_size

    def extra_repr(self) -> str:
        """What fairseq's log shows of the module."""
        return f"num_heads={self.num_heads}, dropout={self.dropout}"
