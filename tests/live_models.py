"""The reference checkpoints as models: this package's, and transformers' own for the short ones."""

from __future__ import annotations

from argparse import Namespace
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY
from reference_checkpoints import REFERENCE, open_model
from torch import Tensor, nn

import lsg_fairseq  # noqa: F401
from lsg_fairseq.huggingface.config import read_config
from lsg_fairseq.huggingface.seq2seq_weights import convert_from_hf
from lsg_fairseq.tokenizers.fairseq_bpe import build_dictionary, embedding_rows, load_tokenizer, symbol_from_token
from lsg_fairseq.weights.position_tables import lengthen


def load_arrays(case: dict[str, Any]) -> dict[str, np.ndarray]:
    with np.load(REFERENCE / case["file"]) as arrays:
        return dict(arrays)


def fairseq_ids(rows: Tensor, hf_ids: np.ndarray) -> Tensor:
    """Hugging Face ids as rows of the dictionary; Pegasus' `<pad>`, its decoder start, becomes `<s>`."""
    return rows[torch.from_numpy(hf_ids).long()]


def build_lsg_model(name: str, overrides: dict[str, Any], length: int | None = None) -> tuple[nn.Module, Tensor]:
    """A reference checkpoint as an LSG model of `length` positions, and the dictionary row of each Hugging Face id."""
    checkpoint, spec, rows = open_model(name)
    tokenizer = load_tokenizer(checkpoint.folder)
    dictionary = build_dictionary(tokenizer)
    length = length or spec.max_source_positions
    mask_row = dictionary.index(symbol_from_token(tokenizer.mask))
    state, _ = lengthen(convert_from_hf(checkpoint.tensors, spec, rows), spec, length, length, mask_row)
    args = read_config(checkpoint.config)[1] | {f"lsg_{key}": value for key, value in overrides.items()}
    args |= {"max_source_positions": length, "max_target_positions": length}
    model = build_from_args(args, dictionary)
    model.load_state_dict(state)
    return model.eval(), embedding_rows(tokenizer, dictionary)


def build_from_args(args: dict[str, Any], dictionary: Dictionary) -> nn.Module:
    task = Namespace(source_dictionary=dictionary, target_dictionary=dictionary)
    return ARCH_MODEL_REGISTRY[args["arch"]].build_model(Namespace(**args), task)


def open_transformers_model(name: str) -> nn.Module:
    """transformers' own model of a short checkpoint."""
    import transformers

    kind = transformers.BartForConditionalGeneration if "bart" in name else transformers.PegasusForConditionalGeneration
    return kind.from_pretrained(REFERENCE / "models" / name, attn_implementation="eager").eval()
