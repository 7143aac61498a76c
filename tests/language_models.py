"""Tiny tokenizers with language codes, as transformers makes them, and models over their vocabularies."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from fairseq.models import ARCH_CONFIG_REGISTRY, ARCH_MODEL_REGISTRY
from torch import nn

import lsg_fairseq  # noqa: F401
from lsg_fairseq.tokenizers.fairseq_bpe import build_dictionary, load_tokenizer
from lsg_fairseq.tokenizers.languages import CODES_25
from recipes.tiny_models import TINY_SIZES

# PyPI's torchaudio does not load beside a CPU torch, and transformers 5 then fails to import.
sys.modules.setdefault("torchaudio", None)
import transformers  # noqa: E402

SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
PIECES = "▁the ▁cat ▁sat ▁mat ▁on ▁a ▁ s a t h e c m o n".split()
# Class of transformers -> where its codes stand, and the vocabulary that it is given, in the order of the real one.
KINDS = {
    "MBartTokenizer": ("behind", [*SPECIALS, *PIECES, *CODES_25, "<mask>"]),
    "MBart50Tokenizer": ("front", ["<unk>", "<s>", "</s>", *PIECES]),  # it adds specials and codes itself
}


def write_language_tokenizer(kind: str, folder: Path, **settings: Any) -> Any:
    """transformers' tokenizer of a class, saved in a folder."""
    vocabulary = [(token, -float(i)) for i, token in enumerate(KINDS[kind][1])]
    tokenizer = getattr(transformers, kind)(vocab=vocabulary, **settings)
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_over(folder: Path, arch: str = "lsg_bart_small", **flags: object) -> nn.Module:
    """A tiny model with the dictionary of a tokenizer folder, weights away from initial zeros and ones."""
    dictionary = build_dictionary(load_tokenizer(folder))
    lsg = {"lsg_block_size": 8, "lsg_sparse_block_size": 8, "lsg_sparsity_factor": 2}
    args = SimpleNamespace(arch=arch, **{**TINY_SIZES, "max_source_positions": 64, "max_target_positions": 64}, **lsg)
    vars(args).update(flags)
    ARCH_CONFIG_REGISTRY[arch](args)
    torch.manual_seed(0)
    task = SimpleNamespace(source_dictionary=dictionary, target_dictionary=dictionary)
    model = ARCH_MODEL_REGISTRY[arch].build_model(args, task)
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()
