"""What speed.py measures of others, in an environment made with requirements-peers.txt (transformers 4.40.2)."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.contestant_sizes import (
    BEAM,
    BLOCK,
    DECODER_LAYERS,
    FFN,
    HEADS,
    LAYER_HEADS,
    LAYER_WIDTH,
    LAYERS,
    NEW_TOKENS,
    POSITIONS,
    VOCABULARY,
    WIDTH,
    random_ids,
    without_projections,
)

Built = tuple[torch.nn.Module, Callable[[], object]]
SPARSE = {"block_size": BLOCK, "sparse_block_size": BLOCK, "sparsity_factor": 2, "sparsity_type": "norm"}


def build_public_lsg(tokens: int, dropout: float = 0.0) -> Built:
    """lsg-converter 0.1.9's encoder."""
    from lsg_converter.bart.modeling_lsg_bart import LSGBartConfig, LSGBartModel

    config = _config(LSGBartConfig, max_position_embeddings=POSITIONS, **SPARSE, attention_dropout=dropout)
    return _encoder(LSGBartModel(config), tokens)


def build_bart_full(tokens: int) -> Built:
    """BART with torch's fused full attention, its position table grown."""
    from transformers import BartConfig, BartModel

    config = _config(BartConfig, max_position_embeddings=POSITIONS, attn_implementation="sdpa")
    return _encoder(BartModel(config), tokens)


def build_led(tokens: int) -> Built:
    """LED with LEDConfig's own window, 512 with both sides; its published checkpoints use 1,024, which costs more."""
    from transformers import LEDConfig, LEDModel

    return _encoder(
        LEDModel(_config(LEDConfig, attention_window=512, max_encoder_position_embeddings=POSITIONS)), tokens
    )


def build_bigbird(tokens: int) -> Built:
    """BigBird-Pegasus with its own defaults for blocks: 64 wide, 3 random ones."""
    from transformers import BigBirdPegasusConfig, BigBirdPegasusModel

    more = {"max_position_embeddings": POSITIONS, "attention_type": "block_sparse", "block_size": 64}
    return _encoder(BigBirdPegasusModel(_config(BigBirdPegasusConfig, **more)), tokens)


def build_public_layer(tokens: int) -> Built:
    """lsg-converter's attention of 16 heads of 64 without its projections."""
    from lsg_converter.bart.modeling_lsg_bart import LSGBartConfig, LSGBartEncoderSelfAttention

    sizes = {"d_model": LAYER_WIDTH, "encoder_attention_heads": LAYER_HEADS, "attention_dropout": 0.0}
    module = LSGBartEncoderSelfAttention(LSGBartConfig(**sizes, **SPARSE), LAYER_WIDTH, LAYER_HEADS, dropout=0.0)
    x, mask = torch.randn(1, tokens + 1, LAYER_WIDTH), torch.zeros(1, 1, 1, tokens)  # the mask is of regular tokens
    module = without_projections(module)
    return module, lambda: module(x, attention_mask=mask)[0]


def build_public_generation(tokens: int) -> Built:
    """transformers' beam search with the public LSG-BART."""
    from lsg_converter.bart.modeling_lsg_bart import LSGBartConfig, LSGBartForConditionalGeneration

    config = _config(LSGBartConfig, max_position_embeddings=POSITIONS, **SPARSE, decoder_layers=DECODER_LAYERS)
    model = LSGBartForConditionalGeneration(config)
    ids = random_ids(tokens, VOCABULARY)
    limits = {"num_beams": BEAM, "min_new_tokens": NEW_TOKENS, "max_new_tokens": NEW_TOKENS}
    return model, lambda: _checked(model.generate(ids, attention_mask=torch.ones_like(ids), **limits)[0])


def _checked(output: torch.Tensor) -> torch.Tensor:
    if len(output) != NEW_TOKENS + 1:  # with the decoder's start
        raise SystemExit(f"{len(output) - 1} new tokens and not {NEW_TOKENS}")
    return output


def _config(kind: type, **more: object) -> object:
    sizes = {"d_model": WIDTH, "encoder_ffn_dim": FFN, "encoder_layers": LAYERS, "encoder_attention_heads": HEADS}
    decoder = {"decoder_layers": 1, "decoder_attention_heads": HEADS, "decoder_ffn_dim": FFN}
    still = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0}
    return kind(**{**sizes, **decoder, **still, "vocab_size": VOCABULARY, **more})


def _encoder(model: torch.nn.Module, tokens: int) -> Built:
    encoder, ids = model.get_encoder(), random_ids(tokens, VOCABULARY)
    return encoder, lambda: encoder(input_ids=ids, attention_mask=torch.ones_like(ids))[0]
