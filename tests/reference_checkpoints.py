"""The tiny Hugging Face checkpoints of ../shared/reference, and the row order of their Pegasus tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from lsg_fairseq.huggingface.config import read_config
from lsg_fairseq.huggingface.read_folder import HFCheckpoint, read_hf_folder
from lsg_fairseq.weights.model_spec import ModelSpec

REFERENCE = Path(__file__).resolve().parents[2] / "shared" / "reference"
FAMILIES = ("bart", "pegasus")
ROLES = ("lsg", "n1024_short", "n1024_to2048", "n1100_short", "n1100_to1500")
MODELS = [f"{family}_{role}" for family in FAMILIES for role in ROLES]
# HF ids of Pegasus' <pad>, </s> and <unk> -> fairseq's <s>, </s> and <unk>; the others follow from 4 on.
PEGASUS_SPECIALS = {0: 0, 1: 2, 105: 3}


def open_model(name: str) -> tuple[HFCheckpoint, ModelSpec, Tensor | None]:
    """Return a reference checkpoint, its spec and its row permutation (None for BART)."""
    checkpoint = read_hf_folder(REFERENCE / "models" / name)
    spec = read_config(checkpoint.config)[0]
    return checkpoint, spec, pegasus_rows(spec.vocab_size) if spec.family == "pegasus" else None


def pegasus_rows(vocab_size: int) -> Tensor:
    rows = dict(PEGASUS_SPECIALS)
    others = (i for i in range(vocab_size) if i not in PEGASUS_SPECIALS)
    rows |= {hf: 4 + place for place, hf in enumerate(others)}
    return torch.tensor([rows[i] for i in range(vocab_size)])


def mask_row(spec: ModelSpec) -> int:
    """fairseq row of BART's <mask> (its last) and Pegasus' <mask_2> (HF id 3)."""
    return spec.vocab_size - 1 if spec.family == "bart" else int(pegasus_rows(spec.vocab_size)[3])


def differing(left: dict[str, Tensor], right: dict[str, Tensor]) -> list[str]:
    """Keys that only one side has, or whose tensors are not the same bit for bit."""
    only_one = set(left) ^ set(right)
    both = set(left) & set(right)
    return sorted(only_one | {k for k in both if left[k].dtype != right[k].dtype or not torch.equal(left[k], right[k])})
