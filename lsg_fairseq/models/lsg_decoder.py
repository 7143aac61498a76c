"""fairseq's decoder with attention over long sources, and with the bias on the logits that Hugging Face has."""

from __future__ import annotations

from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models.transformer import TransformerConfig, TransformerDecoderBase
from fairseq.modules import transformer_layer
from torch import Tensor, nn

from lsg_fairseq.models.layer_building import PackableFeedForward, with_quant_noise, wrapped
from lsg_fairseq.modules.packed_linear import PackableLinear
from lsg_fairseq.modules.source_attention import SourceAttention
from lsg_fairseq.modules.target_attention import TargetAttention


class LSGDecoderLayer(PackableFeedForward, transformer_layer.TransformerDecoderLayerBase):
    """fairseq's decoder layer, in which the beams of a document share its keys and values."""

    def build_self_attention(
        self, embed_dim: int, cfg: TransformerConfig, add_bias_kv: bool = False, add_zero_attn: bool = False
    ) -> nn.Module:
        if cfg.cross_self_attention or add_bias_kv or add_zero_attn or cfg.decoder.xformers_att_config:
            return super().build_self_attention(embed_dim, cfg, add_bias_kv, add_zero_attn)
        attention = TargetAttention(embed_dim, cfg.decoder.attention_heads, cfg.attention_dropout)
        return with_quant_noise(attention, self)

    def build_encoder_attention(self, embed_dim: int, cfg: TransformerConfig) -> nn.Module:
        attention = SourceAttention(
            embed_dim, cfg.encoder.embed_dim, cfg.decoder.attention_heads, cfg.attention_dropout
        )
        return with_quant_noise(attention, self)

    def make_generation_fast_(self, need_attn: bool | str | None = False, **_: Any) -> None:
        """Called by fairseq's commands before they generate; need_attn is --print-alignment."""
        super().make_generation_fast_(need_attn=bool(need_attn))
        if self.encoder_attn is not None:
            self.encoder_attn.gives_weights_in_generation = bool(need_attn)


class LSGDecoder(TransformerDecoderBase):
    """fairseq's decoder with a `final_logits_bias` (1,V) buffer, zero unless a checkpoint brings one."""

    layer_class: type[LSGDecoderLayer] = LSGDecoderLayer
    num_global_rows: int = 0  # the rows of encoder_out that are global tokens'

    def __init__(self, cfg, dictionary, embed_tokens, no_encoder_attn: bool = False) -> None:
        super().__init__(cfg, dictionary, embed_tokens, no_encoder_attn=no_encoder_attn)
        self.register_buffer("final_logits_bias", torch.zeros(1, len(dictionary)))

    def build_output_projection(self, cfg: TransformerConfig, dictionary: Dictionary, embed_tokens: nn.Module) -> None:
        super().build_output_projection(cfg, dictionary, embed_tokens)
        if self.output_projection is not None:
            self.output_projection = PackableLinear.like(self.output_projection)

    def build_decoder_layer(self, cfg: TransformerConfig, no_encoder_attn: bool = False) -> nn.Module:
        return wrapped(self.layer_class(cfg, no_encoder_attn), cfg)

    def extract_features(
        self,
        prev_output_tokens: Tensor,
        encoder_out: dict[str, list[Tensor]] | None,
        incremental_state: dict[str, dict[str, Tensor | None]] | None = None,
        **alignment: Any,
    ) -> tuple[Tensor, dict[str, list[Tensor | None]]]:
        """As fairseq's, but `attn` is (B,T,T0): a column per source token, and none for global tokens."""
        features, extra = super().extract_features(prev_output_tokens, encoder_out, incremental_state, **alignment)
        moved = [] if encoder_out is None else encoder_out.get("left_padding", [])
        extra["attn"] = [a if a is None else source_columns(a, self.num_global_rows, moved) for a in extra["attn"]]
        return features, extra

    def output_layer(self, features: Tensor) -> Tensor:
        """(B,T,C) -> (B,T,V)."""
        logits = super().output_layer(features)
        if self.adaptive_softmax is not None:
            return logits
        # In place while generating: another tensor of this size costs more than the addition.
        return logits + self.final_logits_bias if torch.is_grad_enabled() else logits.add_(self.final_logits_bias)

    def upgrade_state_dict_named(self, state_dict: dict[str, Tensor], name: str) -> dict[str, Tensor]:
        """Accept stock fairseq checkpoints, which have no bias."""
        state_dict = super().upgrade_state_dict_named(state_dict, name)
        state_dict.setdefault(f"{name}.final_logits_bias", torch.zeros_like(self.final_logits_bias))
        return state_dict


def give_weights(model: nn.Module, given: bool) -> None:
    """Say whether a forward returns the last decoder layer's attention weights; fairseq's does in each training step.

    Only a criterion that learns alignments reads them in training and validation. They are (B,H,T,S), from scores that
    no fused kernel keeps. Generation has a switch of its own.
    """
    for module in model.modules():
        if isinstance(module, SourceAttention):
            module.gives_weights = given


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
