"""The decoder's self-attention, with caches that are written in place and never reordered."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lsg_fairseq.modules.attention_heads import split_heads
from lsg_fairseq.modules.decoder_attention import DecoderAttention, IncrementalState
from lsg_fairseq.modules.kernel_precision import in_kernel_dtype
from lsg_fairseq.modules.lsg_config import LSGError

PROJECTIONS = ("k_proj", "v_proj", "q_proj", "out_proj")
FIRST_STEPS = 32  # capacity of a new cache; doubled when it is full


class TargetAttention(DecoderAttention):
    """Causal self-attention.

    At every step of a beam search fairseq's module copies all keys and values twice: to append the new token's, and to
    give each beam those of the beam it continues. Here the beams of a document share one cache, to which each step is
    appended, and a table says which entries each beam descends from: only the table is reordered.

    Args:
        embed_dim: C, a multiple of num_heads.
        num_heads: H.
        dropout: dropout of the attention probabilities while training.
    """

    def __init__(self, embed_dim: int, num_heads: int, dropout: float = 0.0) -> None:
        super().__init__(dict.fromkeys(PROJECTIONS, embed_dim), embed_dim, num_heads, dropout)

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        incremental_state: IncrementalState | None = None,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Self-attention over query = key = value (T,R,C); returns (T,R,C) and, as fairseq expects a pair, None.

        Args:
            key_padding_mask: (R,T) bool, True = padding, or None.
            incremental_state: during generation, where the tokens before are kept; T is 1 then.
            need_weights: fairseq's; without effect.
            attn_mask: (T,T) to add to the scores, or None.

        Raises:
            LSGError: more than one token in a step of a generation.
        """
        heads = tuple(split_heads(proj(query), self.num_heads) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if incremental_state is not None:
            return self.out_proj(self._step(*heads, key_padding_mask, incremental_state)), None
        wide = in_kernel_dtype(heads, self.training, self.dropout_now)
        bias = _score_bias(attn_mask, key_padding_mask, wide[0].dtype)
        attended = F.scaled_dot_product_attention(*wide, bias, self.dropout_now).to(heads[0].dtype)
        return self.out_proj(attended.permute(2, 0, 1, 3).flatten(2)), None

    def _step(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None,
        incremental_state: IncrementalState,
    ) -> Tensor:
        """Attend from one token's query to the cached tokens and its own, (R,H,1,D) each; returns (1,R,C)."""
        rows, _, length, _ = query.shape
        if length != 1:
            raise LSGError(f"a generation goes on by one token at a time, not by {length}")
        beams = self.beam_size if rows % self.beam_size == 0 else 1
        # (R,H,1,D) -> (B,H,beams,D)
        query, key, value = (x.squeeze(2).unflatten(0, (-1, beams)).transpose(1, 2) for x in (query, key, value))
        state = self._state(incremental_state, key)
        keys, values = _appended(state, key, value)
        seen = torch.eye(beams, dtype=torch.bool, device=query.device).expand(len(query), -1, -1)
        if key_padding_mask is not None:
            seen = seen & ~key_padding_mask.bool().view(-1, 1, beams)
        state["ancestors"] = seen = torch.cat([state["ancestors"], seen], dim=2)
        attended = F.scaled_dot_product_attention(query, keys, values, seen[:, None])
        return attended.transpose(1, 2).reshape(1, rows, -1)

    def _state(self, incremental_state: IncrementalState, key: Tensor) -> dict[str, Tensor]:
        """Caches `key` and `value` (B,H,capacity,D), step t at [t*beams,(t+1)*beams), and `ancestors`.

        ancestors (B,beams,t*beams) bool: the entries that each beam descends from, and hence sees.
        """
        if self._state_name not in incremental_state:
            batch, num_heads, beams, width = key.shape
            incremental_state[self._state_name] = {
                **{name: key.new_empty(batch, num_heads, FIRST_STEPS * beams, width) for name in ("key", "value")},
                "ancestors": torch.empty(batch, beams, 0, dtype=torch.bool, device=key.device),
            }
        return incremental_state[self._state_name]

    def reorder_incremental_state(
        self, incremental_state: IncrementalState, new_order: Tensor
    ) -> IncrementalState | None:
        """Let row r of the next step continue row new_order[r]; caches move only when a document is finished."""
        state = incremental_state.get(self._state_name)
        if state is None:
            return incremental_state
        batch, beams, _ = state["ancestors"].shape
        ancestors = state["ancestors"].flatten(0, 1).index_select(0, new_order).unflatten(0, (-1, beams))
        documents = new_order.view(-1, beams)[:, 0] // beams
        if beams == 1 or len(documents) != batch:
            state["key"], state["value"] = (state[name].index_select(0, documents) for name in ("key", "value"))
        state["ancestors"] = ancestors
        return incremental_state

    def _get_input_buffer(self, incremental_state: IncrementalState | None) -> dict[str, Tensor | None]:
        """Asked for by fairseq's layer, which only cross_self_attention makes use of."""
        return {}


def _appended(state: dict[str, Tensor], key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Append a step's (B,H,beams,D) to the caches; returns what they hold so far, (B,H,n,D) each."""
    start = state["ancestors"].size(2)
    stop = start + key.size(2)
    for name, new in (("key", key), ("value", value)):
        if state[name].size(2) < stop:
            state[name] = torch.cat([state[name], torch.empty_like(state[name])], dim=2)
        state[name][:, :, start:stop] = new
    return state["key"][:, :, :stop], state["value"][:, :, :stop]


def _score_bias(attn_mask: Tensor | None, key_padding_mask: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """The bias on scores (R,H,T,T), or None."""
    if key_padding_mask is None:
        return None if attn_mask is None else attn_mask.to(dtype)
    bias = torch.zeros(key_padding_mask.shape, dtype=dtype, device=key_padding_mask.device)
    bias = bias.masked_fill(key_padding_mask.bool(), -math.inf)[:, None, None]
    return bias if attn_mask is None else bias + attn_mask.to(dtype)
