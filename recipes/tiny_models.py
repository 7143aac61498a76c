"""Tiny models built as fairseq builds them, with weights that are neither zero nor symmetric."""

from __future__ import annotations

from argparse import Namespace
from types import SimpleNamespace

import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY

import lsg_fairseq  # noqa: F401

TINY_SIZES = {
    f"{side}_{name}": value
    for side in ("encoder", "decoder")
    for name, value in {"embed_dim": 32, "ffn_embed_dim": 48, "layers": 2, "attention_heads": 4}.items()
}


def build_dictionary(num_symbols: int = 60) -> Dictionary:
    dictionary = Dictionary()
    for index in range(num_symbols):
        dictionary.add_symbol(f"w{index}")
    return dictionary


def build_model(arch: str = "lsg_bart_small", num_symbols: int = 60, **flags: object) -> torch.nn.Module:
    """A model in evaluation mode; keyword arguments are flags as in a Namespace, `lsg_*` included."""
    lsg = {"lsg_block_size": 8, "lsg_sparse_block_size": 8, "lsg_sparsity_factor": 2}
    args = Namespace(arch=arch, **{**TINY_SIZES, "max_source_positions": 256, **lsg, **flags})
    ARCH_CONFIG_REGISTRY[arch](args)
    dictionary = build_dictionary(num_symbols)
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    torch.manual_seed(0)
    model = ARCH_MODEL_REGISTRY[arch].build_model(args, task)
    for parameter in model.parameters():
        # Away from initial zeros and ones, where mistakes cancel.
        parameter.data.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def random_tokens(*lengths: int, seed: int = 0, width: int | None = None) -> torch.Tensor:
    """Right-padded sources (B,T0) of the given lengths, `<s>` first and `</s>` last."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.ones(len(lengths), width or max(lengths), dtype=torch.long)
    for row, length in zip(tokens, lengths, strict=True):
        row[:length] = torch.randint(4, 60, (length,), generator=generator)
        row[0], row[length - 1] = 0, 2
    return tokens
