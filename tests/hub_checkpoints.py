"""Checkpoints for the tests of torch.hub and lsg-summarize: tiny, with weights whose outputs depend on the document."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path

import torch
from conftest import ENCODER_SIZES
from fairseq.data import Dictionary
from fairseq.models.roberta.model import RobertaModel, base_architecture

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


def write_roberta_of_2019(dictionary: Dictionary, path: Path) -> dict[str, torch.Tensor]:
    """A file with the layout and the names of roberta.base/model.pt, with random weights; returns today's names."""
    args = Namespace(**ENCODER_SIZES, max_positions=64)
    base_architecture(args)
    torch.manual_seed(5)
    state = RobertaModel.build_model(args, Namespace(source_dictionary=dictionary)).state_dict()
    state.pop("encoder.sentence_encoder.version")
    names = {
        key: key.replace("encoder.", "decoder.", 1).replace("layernorm_embedding", "emb_layer_norm") for key in state
    }
    history = [{"criterion_name": "MaskedLmLoss", "optimizer_name": "FairseqAdam", "num_updates": 9}]
    history[0]["lr_scheduler_state"] = {"best": None}
    content = {"args": Namespace(**vars(args), arch="roberta_base", criterion="masked_lm", optimizer="adam")}
    content |= {"model": {names[key]: value for key, value in state.items()}, "optimizer_history": history}
    content |= {"extra_state": {"train_iterator": {"epoch": 2, "iterations_in_epoch": 0}}, "last_optimizer_state": None}
    torch.save(content, path, _use_new_zipfile_serialization=False)
    return state
