"""The sizes that all contestants of speed.py share: BART-base's model, BART-large's attention layer."""

from __future__ import annotations

import torch

WIDTH, HEADS, LAYERS, DECODER_LAYERS, FFN, VOCABULARY = 768, 12, 6, 6, 3072, 50265
LAYER_WIDTH, LAYER_HEADS = 1024, 16
BLOCK, POSITIONS = 128, 16384
SEEN = 641  # keys of a query: a global one, three local blocks, two sparse ones of 128
BEAM, NEW_TOKENS = 4, 128


def random_ids(tokens: int, vocabulary: int) -> torch.Tensor:
    """One source (1,T) of words alone: nothing is padded."""
    return torch.randint(4, vocabulary, (1, tokens))


def without_projections(module: torch.nn.Module) -> torch.nn.Module:
    """An attention module whose projections do nothing."""
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
        setattr(module, projection, torch.nn.Identity())
    return module
