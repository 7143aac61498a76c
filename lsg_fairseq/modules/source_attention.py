"""The decoder's cross-attention, in which all beams of a document share its keys and values."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lsg_fairseq.modules.attention_heads import split_heads
from lsg_fairseq.modules.decoder_attention import DecoderAttention, IncrementalState
from lsg_fairseq.modules.kernel_precision import few_queries_attention, in_kernel_dtype, is_faster_unfused
from lsg_fairseq.modules.lsg_config import LSGError


class SourceAttention(DecoderAttention):
    """Cross-attention that reads keys and values once a step, for all beams together.

    fairseq's module stores score matrices, and averages them over the heads, at every step of a generation: with a long
    source that is most of the step's time.

    Args:
        embed_dim: C, a multiple of num_heads.
        source_dim: width of the encoder's output.
        num_heads: H.
        dropout: dropout of the attention probabilities while training.
    """

    def __init__(self, embed_dim: int, source_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        inputs = {"q_proj": embed_dim, "out_proj": embed_dim, "k_proj": source_dim, "v_proj": source_dim}
        super().__init__(inputs, embed_dim, num_heads, dropout)
        self.gives_weights_in_generation = False
        self.gives_weights = True
        # The type in which a generation keeps its sources' keys and values; None: that of the projections.
        self.source_dtype: torch.dtype | None = None

    def forward(
        self,
        query: Tensor,
        key: Tensor | None,
        value: Tensor | None,
        key_padding_mask: Tensor | None = None,
        incremental_state: IncrementalState | None = None,
        need_weights: bool = True,
        static_kv: bool = False,
        need_head_weights: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from (T,R,C) to sources (S,B,C), R = B * beams, row r to source r // beams; returns (T,R,C).

        Args:
            key_padding_mask: (B,S) bool, True = padding, or None.
            incremental_state: during generation, where the projected source is kept from step to step.
            need_weights, static_kv: fairseq's; without effect.
            need_head_weights: return probabilities too, (H,R,T,S), if gives_weights, or at the steps of a generation
                if gives_weights_in_generation: fairseq asks for them whether or not they are used.

        Raises:
            LSGError: the rows are no multiple of the sources.
        """
        source = self._source(key, value, key_padding_mask, incremental_state)
        beams = _rows_of_a_source(query.size(1), source["key"].size(0))
        # (T,B*beams,C) -> (B,H,beams*T,D): to the kernel, beams are more queries of the same source.
        heads = self.q_proj(query).unflatten(1, (-1, beams)).unflatten(-1, (self.num_heads, -1))
        heads = heads.permute(1, 3, 2, 0, 4).flatten(2, 3)
        mask = source["key_padding_mask"]
        present = None if mask is None else ~mask[:, None, None]
        query = heads.to(source["key"].dtype)
        is_step = incremental_state is not None
        if need_head_weights and (self.gives_weights_in_generation if is_step else self.gives_weights):
            attended, weights = _explicit_attention(query, source["key"], source["value"], present, self.dropout_now)
            weights = weights.unflatten(2, (beams, -1)).permute(1, 0, 2, 3, 4).flatten(1, 2)
        else:
            weights = None
            attended = self._attend(query, source, present, is_step)
        attended = attended.to(heads.dtype).unflatten(2, (beams, -1)).permute(3, 0, 2, 1, 4).flatten(3).flatten(1, 2)
        return self.out_proj(attended), weights

    def _attend(self, query: Tensor, source: dict[str, Tensor | None], present: Tensor | None, is_step: bool) -> Tensor:
        """Attention (B,H,n,D) of queries (B,H,n,D), by the fastest kernel for them."""
        if is_step and is_faster_unfused(query):
            return few_queries_attention(query, source["key"], source["value"], present)
        wide = in_kernel_dtype((query, source["key"], source["value"]), self.training, self.dropout_now)
        return F.scaled_dot_product_attention(*wide, present, self.dropout_now)

    def _source(
        self,
        key: Tensor | None,
        value: Tensor | None,
        key_padding_mask: Tensor | None,
        incremental_state: IncrementalState | None,
    ) -> dict[str, Tensor | None]:
        """Keys and values (B,H,S,D) and the padding mask; projected once in a generation."""
        if incremental_state is not None and self._state_name in incremental_state:
            return incremental_state[self._state_name]
        heads = (split_heads(proj(x), self.num_heads) for proj, x in ((self.k_proj, key), (self.v_proj, value)))
        if incremental_state is None:
            keys, values = heads
            return {"key": keys, "value": values, "key_padding_mask": key_padding_mask}
        # Read at every step: contiguous, and without a mask that masks nothing.
        keys, values = (x.to(self.source_dtype or x.dtype).contiguous() for x in heads)
        if key_padding_mask is not None and not key_padding_mask.any():
            key_padding_mask = None
        source = {"key": keys, "value": values, "key_padding_mask": key_padding_mask}
        incremental_state[self._state_name] = source
        return source

    def reorder_incremental_state(
        self, incremental_state: IncrementalState, new_order: Tensor
    ) -> IncrementalState | None:
        """Keep the sources that the remaining rows (R) attend to: nothing moves until a document is finished."""
        source = incremental_state.get(self._state_name)
        if source is None or source["key"].size(0) * self.beam_size == new_order.size(0):
            return incremental_state
        kept = new_order.view(-1, self.beam_size)[:, 0] // self.beam_size
        incremental_state[self._state_name] = {
            name: None if x is None else x.index_select(0, kept) for name, x in source.items()
        }
        return incremental_state


def _rows_of_a_source(num_rows: int, num_sources: int) -> int:
    if num_rows % num_sources:
        raise LSGError(
            f"{num_rows} decoder rows cannot share {num_sources} sources evenly: give a source for each row, or the "
            "same number of rows for each source"
        )
    return num_rows // num_sources


def _explicit_attention(
    query: Tensor, key: Tensor, value: Tensor, present: Tensor | None, dropout_p: float
) -> tuple[Tensor, Tensor]:
    """Attention (B,H,n,D) and its probabilities (B,H,n,S)."""
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.size(-1))
    if present is not None:
        scores = scores.masked_fill(~present, -math.inf)
    weights = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)
    return (F.dropout(weights, dropout_p) if dropout_p else weights) @ value, weights
