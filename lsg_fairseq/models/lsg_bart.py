"""LSG-BART and LSG-mBART: fairseq's BART with the LSG encoder, and its architectures."""

from __future__ import annotations

from argparse import Namespace

from fairseq.models import register_model, register_model_architecture
from fairseq.models.bart import BARTModel
from fairseq.models.bart.model import (
    bart_base_architecture,
    bart_large_architecture,
    mbart_base_architecture,
    mbart_large_architecture,
)
from omegaconf import DictConfig

from lsg_fairseq.models.lsg_model import LSGEncoderDecoderMixin, fill_lsg_defaults, fill_missing
from lsg_fairseq.weights.families import BART, MBART

DEFAULT_SOURCE_POSITIONS = 4096
# mBART is pre-norm and scales its embeddings.
MBART_DEFAULTS = {**MBART.layout, "no_scale_embedding": False}


@register_model("lsg_bart")
class LSGBartModel(LSGEncoderDecoderMixin, BARTModel):
    """BART (arXiv 1910.13461) whose encoder self-attention is LSG attention (arXiv 2210.15497)."""

    family = BART.name


@register_model_architecture("lsg_bart", "lsg_bart_large")
def lsg_bart_large_architecture(args: Namespace | DictConfig) -> None:
    """BART-large's sizes: 12+12 layers, 1,024 wide, 16 heads."""
    _fill_lsg_bart_defaults(args)
    bart_large_architecture(args)


@register_model_architecture("lsg_bart", "lsg_bart_base")
def lsg_bart_base_architecture(args: Namespace | DictConfig) -> None:
    """BART-base's sizes: 6+6 layers, 768 wide, 12 heads."""
    _fill_lsg_bart_defaults(args)
    bart_base_architecture(args)


@register_model_architecture("lsg_bart", "lsg_bart_small")
def lsg_bart_small_architecture(args: Namespace | DictConfig) -> None:
    """A small model for CPUs, demonstrations and tests: 3+3 layers, 256 wide, 4 heads."""
    small = {"embed_dim": 256, "ffn_embed_dim": 1024, "layers": 3, "attention_heads": 4}
    fill_missing(args, {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in small.items()})
    lsg_bart_base_architecture(args)


def _fill_lsg_bart_defaults(args: Namespace | DictConfig) -> None:
    fill_missing(args, {"max_source_positions": DEFAULT_SOURCE_POSITIONS})
    fill_lsg_defaults(args)


@register_model("lsg_mbart")
class LSGMBartModel(LSGEncoderDecoderMixin, BARTModel):
    """mBART (arXiv 2001.08210) whose encoder self-attention is LSG attention (arXiv 2210.15497)."""

    family = MBART.name


@register_model_architecture("lsg_mbart", "lsg_mbart_large")
def lsg_mbart_large_architecture(args: Namespace | DictConfig) -> None:
    """mBART's sizes: 12+12 layers, 1,024 wide, 16 heads."""
    fill_missing(args, MBART_DEFAULTS)
    _fill_lsg_bart_defaults(args)
    mbart_large_architecture(args)


@register_model_architecture("lsg_mbart", "lsg_mbart_base")
def lsg_mbart_base_architecture(args: Namespace | DictConfig) -> None:
    """BARThez' sizes: 6+6 layers, 768 wide, 12 heads."""
    fill_missing(args, MBART_DEFAULTS)
    _fill_lsg_bart_defaults(args)
    mbart_base_architecture(args)
