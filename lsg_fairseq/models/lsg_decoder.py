"""The decoder: fairseq's, with attention to long sources and the bias on logits that Hugging Face checkpoints have."""

from __future__ import annotations

import torch
from fairseq.distributed import fsdp_wrap
from fairseq.models.transformer import TransformerConfig, TransformerDecoderBase
from fairseq.modules import transformer_layer
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from fairseq.modules.quant_noise import quant_noise
from torch import Tensor, nn

from lsg_fairseq.modules.source_attention import SourceAttention


class LSGDecoderLayer(transformer_layer.TransformerDecoderLayerBase):
    """fairseq's decoder layer with a cross-attention whose beams share their source."""

    def build_encoder_attention(self, embed_dim: int, cfg: TransformerConfig) -> nn.Module:
        attention = SourceAttention(
            embed_dim, cfg.encoder.embed_dim, cfg.decoder.attention_heads, cfg.attention_dropout
        )
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            projection = getattr(attention, name)
            setattr(attention, name, quant_noise(projection, self.quant_noise, self.quant_noise_block_size))
        return attention


class LSGDecoder(TransformerDecoderBase):
    """fairseq's decoder with a `final_logits_bias` (1,V) buffer, zero unless a checkpoint brings one."""

    layer_class: type[LSGDecoderLayer] = LSGDecoderLayer

    def __init__(self, cfg, dictionary, embed_tokens, no_encoder_attn: bool = False) -> None:
        super().__init__(cfg, dictionary, embed_tokens, no_encoder_attn=no_encoder_attn)
        self.register_buffer("final_logits_bias", torch.zeros(1, len(dictionary)))

    def build_decoder_layer(self, cfg: TransformerConfig, no_encoder_attn: bool = False) -> nn.Module:
        layer = self.layer_class(cfg, no_encoder_attn)
        if cfg.checkpoint_activations:
            layer = checkpoint_wrapper(layer, offload_to_cpu=cfg.offload_activations)
        # fairseq's rule: a checkpointed layer is always wrapped for FSDP, whatever its size.
        return fsdp_wrap(layer, min_num_params=0 if cfg.checkpoint_activations else cfg.min_params_to_wrap)

    def output_layer(self, features: Tensor) -> Tensor:
        """(B,T,C) -> (B,T,V)."""
        logits = super().output_layer(features)
        return logits if self.adaptive_softmax is not None else logits + self.final_logits_bias

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Accept stock fairseq checkpoints, which have no bias."""
        state_dict = super().upgrade_state_dict_named(state_dict, name)
        state_dict.setdefault(f"{name}.final_logits_bias", torch.zeros_like(self.final_logits_bias))
        return state_dict
