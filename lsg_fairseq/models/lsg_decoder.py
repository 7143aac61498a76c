"""The decoder: fairseq's, with attention to long sources and the bias on logits that Hugging Face checkpoints have."""

from __future__ import annotations

import torch
from fairseq.models.transformer import TransformerConfig, TransformerDecoderBase
from fairseq.modules import transformer_layer
from torch import Tensor, nn

from lsg_fairseq.models.layer_building import with_quant_noise, wrapped
from lsg_fairseq.modules.source_attention import SourceAttention


class LSGDecoderLayer(transformer_layer.TransformerDecoderLayerBase):
    """fairseq's decoder layer with a cross-attention whose beams share their source."""

    def build_encoder_attention(self, embed_dim: int, cfg: TransformerConfig) -> nn.Module:
        attention = SourceAttention(
            embed_dim, cfg.encoder.embed_dim, cfg.decoder.attention_heads, cfg.attention_dropout
        )
        return with_quant_noise(attention, self)


class LSGDecoder(TransformerDecoderBase):
    """fairseq's decoder with a `final_logits_bias` (1,V) buffer, zero unless a checkpoint brings one."""

    layer_class: type[LSGDecoderLayer] = LSGDecoderLayer

    def __init__(self, cfg, dictionary, embed_tokens, no_encoder_attn: bool = False) -> None:
        super().__init__(cfg, dictionary, embed_tokens, no_encoder_attn=no_encoder_attn)
        self.register_buffer("final_logits_bias", torch.zeros(1, len(dictionary)))

    def build_decoder_layer(self, cfg: TransformerConfig, no_encoder_attn: bool = False) -> nn.Module:
        return wrapped(self.layer_class(cfg, no_encoder_attn), cfg)

    def output_layer(self, features: Tensor) -> Tensor:
        """(B,T,C) -> (B,T,V)."""
        logits = super().output_layer(features)
        return logits if self.adaptive_softmax is not None else logits + self.final_logits_bias

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Accept stock fairseq checkpoints, which have no bias."""
        state_dict = super().upgrade_state_dict_named(state_dict, name)
        state_dict.setdefault(f"{name}.final_logits_bias", torch.zeros_like(self.final_logits_bias))
        return state_dict
