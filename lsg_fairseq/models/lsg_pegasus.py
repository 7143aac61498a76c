"""LSG-Pegasus: a pre-norm model with the LSG encoder, and its architectures; fairseq itself has no Pegasus."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import torch
from fairseq.models import register_model, register_model_architecture
from fairseq.models.transformer import TransformerModel
from fairseq.modules.transformer_sentence_encoder import init_bert_params
from omegaconf import DictConfig
from torch import Tensor, nn

from lsg_fairseq.models.half_precision import ClampedDecoderLayer, ClampedEncoderLayer
from lsg_fairseq.models.lsg_decoder import LSGDecoder
from lsg_fairseq.models.lsg_encoder import LSGEncoder
from lsg_fairseq.models.lsg_model import LSGEncoderDecoderMixin, fill_lsg_defaults, fill_missing
from lsg_fairseq.modules.lsg_config import LSGConfig
from lsg_fairseq.modules.positional_embedding import PegasusPositionalEmbedding
from lsg_fairseq.weights.families import PEGASUS
from lsg_fairseq.weights.position_tables import pegasus_sinusoids

# How far `<pad>`'s logit lies below the largest. exp(-120) is 0 in float32 and narrower dtypes, and a label-smoothed
# loss, which sums all log-probabilities, grows by no more than another unlikely word would add.
PAD_GAP = 120.0

# google/pegasus-large's sizes and rates, for both sides.
LARGE = {"embed_dim": 1024, "ffn_embed_dim": 4096, "layers": 16, "attention_heads": 16}
SMALL = {"embed_dim": 256, "ffn_embed_dim": 1024, "layers": 3, "attention_heads": 4}
PEGASUS_DEFAULTS = {
    "activation_fn": "relu",
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "activation_dropout": 0.1,
    **PEGASUS.layout,
    "no_scale_embedding": False,
    "max_source_positions": 4096,
    "max_target_positions": 1024,
}


class PegasusEncoder(LSGEncoder):
    """The LSG encoder with Pegasus' positions; its last layer norm runs over all rows, globals included."""

    layer_class = ClampedEncoderLayer

    def __init__(self, cfg, dictionary, embed_tokens: nn.Embedding, lsg_config: LSGConfig, return_fc: bool = False):
        super().__init__(cfg, dictionary, embed_tokens, lsg_config, return_fc=return_fc)
        table = pegasus_sinusoids(cfg.max_source_positions, embed_tokens.embedding_dim)
        self.embed_positions = PegasusPositionalEmbedding(table, self.padding_idx)


class PegasusDecoder(LSGDecoder):
    """fairseq's decoder with Pegasus' positions, in which `<pad>` takes no probability.

    Hugging Face's `<pad>` is `<s>` here; fairseq's own `<pad>` is a column that Hugging Face lacks. Its logit is
    lowered where logits are made, so that every loss and every search sees the same distribution. Minus infinity would
    make a label-smoothed loss infinite.
    """

    layer_class = ClampedDecoderLayer

    def __init__(self, cfg, dictionary, embed_tokens: nn.Embedding, no_encoder_attn: bool = False) -> None:
        super().__init__(cfg, dictionary, embed_tokens, no_encoder_attn=no_encoder_attn)
        table = pegasus_sinusoids(cfg.max_target_positions, cfg.decoder.embed_dim)
        self.embed_positions = PegasusPositionalEmbedding(table, self.padding_idx)

    def output_layer(self, features: Tensor) -> Tensor:
        """(B,T,C) -> (B,T,V), `<pad>` far below everything else."""
        logits = super().output_layer(features)
        if self.adaptive_softmax is None:
            logits[..., self.padding_idx] = torch.finfo(logits.dtype).min
            logits[..., self.padding_idx] = logits.detach().amax(-1) - PAD_GAP
        return logits


@register_model("lsg_pegasus")
class LSGPegasusModel(LSGEncoderDecoderMixin, TransformerModel):
    """Pegasus (arXiv 1912.08777) whose encoder self-attention is LSG attention (arXiv 2210.15497)."""

    family = PEGASUS.name
    encoder_class = PegasusEncoder
    decoder_class = PegasusDecoder

    @classmethod
    def hub_models(cls) -> dict[str, Any]:
        """Empty: fairseq hosts no Pegasus."""
        return {}

    def __init__(self, args: Any, encoder: PegasusEncoder, decoder: PegasusDecoder) -> None:
        super().__init__(args, encoder, decoder)
        # transformers' init_std for Pegasus is BERT's 0.02.
        self.apply(init_bert_params)


@register_model_architecture("lsg_pegasus", "lsg_pegasus_large")
def lsg_pegasus_large_architecture(args: Namespace | DictConfig) -> None:
    """Pegasus-large's sizes: 16+16 layers, 1,024 wide, 16 heads."""
    _fill(args, LARGE)


@register_model_architecture("lsg_pegasus", "lsg_pegasus_small")
def lsg_pegasus_small_architecture(args: Namespace | DictConfig) -> None:
    """A small model for CPUs and tests: 3+3 layers, 256 wide, 4 heads."""
    _fill(args, SMALL)


def _fill(args: Namespace | DictConfig, sizes: dict[str, int]) -> None:
    fill_missing(args, {f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in sizes.items()})
    fill_missing(args, PEGASUS_DEFAULTS)
    fill_lsg_defaults(args)
