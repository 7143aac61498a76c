"""The decoder: fairseq's, plus the bias on the logits that Hugging Face checkpoints carry."""

from __future__ import annotations

import torch
from fairseq.models.transformer import TransformerDecoderBase
from torch import Tensor


class LSGDecoder(TransformerDecoderBase):
    """fairseq's decoder with a `final_logits_bias` (1,V) buffer, zero unless a checkpoint brings one."""

    def __init__(self, cfg, dictionary, embed_tokens, no_encoder_attn: bool = False) -> None:
        super().__init__(cfg, dictionary, embed_tokens, no_encoder_attn=no_encoder_attn)
        self.register_buffer("final_logits_bias", torch.zeros(1, len(dictionary)))

    def output_layer(self, features: Tensor) -> Tensor:
        """(B,T,C) -> (B,T,V)."""
        logits = super().output_layer(features)
        return logits if self.adaptive_softmax is not None else logits + self.final_logits_bias

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Accept stock fairseq checkpoints, which have no bias."""
        state_dict = super().upgrade_state_dict_named(state_dict, name)
        state_dict.setdefault(f"{name}.final_logits_bias", torch.zeros_like(self.final_logits_bias))
        return state_dict
