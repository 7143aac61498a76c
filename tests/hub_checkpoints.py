"""Checkpoints for the tests of torch.hub and lsg-summarize: tiny, with weights whose outputs depend on the document."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from lsg_fairseq.compat.loading import load_checkpoint_file


def lively_copy(checkpoints: Path, folder: Path) -> Path:
    """A training folder with random weights of some size: two epochs teach a tiny model to say one thing only."""
    state = load_checkpoint_file(str(checkpoints / "checkpoint_best.pt"))
    generator = torch.Generator().manual_seed(7)
    for name, tensor in state["model"].items():
        if tensor.is_floating_point() and tensor.dim() == 2 and "final_logits_bias" not in name:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * (1.0 if "embed" in name else 0.4))
    # Words rather than specials and single bytes, which are ids 0 to 259; <mask> is the last.
    bias = state["model"]["decoder.final_logits_bias"]
    bias[:, :260] = bias[:, -1] = -8.0
    state["last_optimizer_state"] = None
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "checkpoint_best.pt")
    return folder


def documents_of(corpus: Path, split: str = "test") -> list[str]:
    """The documents that a split of the corpus was made from."""
    lines = (corpus.parent / f"{split}.jsonl").read_text().splitlines()
    return [json.loads(line)["document"] for line in lines]
