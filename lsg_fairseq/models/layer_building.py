"""Quantization noise, checkpointing and FSDP wrapping of layers, as fairseq applies them."""

from __future__ import annotations

from fairseq.distributed import fsdp_wrap
from fairseq.models.transformer import TransformerConfig
from fairseq.modules.checkpoint_activations import checkpoint_wrapper
from fairseq.modules.quant_noise import quant_noise
from torch import nn

from lsg_fairseq.modules.packed_linear import PackableLinear


class PackableFeedForward:
    """Put in front of a fairseq transformer layer class: a feed-forward part whose weights can be packed."""

    linear_class: type[PackableLinear] = PackableLinear

    def build_fc1(self, input_dim: int, output_dim: int, q_noise: float, qn_block_size: int) -> nn.Module:
        return quant_noise(self.linear_class(input_dim, output_dim), q_noise, qn_block_size)

    def build_fc2(self, input_dim: int, output_dim: int, q_noise: float, qn_block_size: int) -> nn.Module:
        return quant_noise(self.linear_class(input_dim, output_dim), q_noise, qn_block_size)


def with_quant_noise(attention: nn.Module, layer: nn.Module) -> nn.Module:
    """Give an attention's projections the quantization noise of its layer (--quant-noise-pq)."""
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        projection = getattr(attention, name)
        setattr(attention, name, quant_noise(projection, layer.quant_noise, layer.quant_noise_block_size))
    return attention


def wrapped(layer: nn.Module, cfg: TransformerConfig) -> nn.Module:
    """Wrap a layer for activation checkpointing and FSDP as the configuration says."""
    if cfg.checkpoint_activations:
        layer = checkpoint_wrapper(layer, offload_to_cpu=cfg.offload_activations)
    # fairseq's rule: a checkpointed layer is always wrapped for FSDP, whatever its size.
    return fsdp_wrap(layer, min_num_params=0 if cfg.checkpoint_activations else cfg.min_params_to_wrap)
