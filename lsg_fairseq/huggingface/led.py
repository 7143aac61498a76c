"""LED and PRIMERA checkpoints read as BARTs: what they have in common is kept, as it is, to be trained further.

A LED (arXiv 2004.05150) is a BART whose encoder attention has other names, second projections for its global tokens,
and position tables without the two rows that BART's have in front.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from lsg_fairseq.huggingface.config_fields import size_of, stated_names
from lsg_fairseq.weights.families import BART
from lsg_fairseq.weights.position_tables import tile_positions

Loader = Callable[[], Tensor]

LED = "led"
LENGTHS = {"max_encoder_position_embeddings": 16384, "max_decoder_position_embeddings": 1024}  # transformers' defaults
RENAMED = (
    (re.compile(r"^led\."), "model."),
    (re.compile(r"\.longformer_self_attn\.(query|key|value)\."), lambda match: f".{match[1][0]}_proj."),
    (re.compile(r"(encoder\.layers\.\d+\.self_attn)\.output\."), r"\1.out_proj."),
)
GLOBAL_PROJECTION = re.compile(r"\.longformer_self_attn\.(query|key|value)_global\.")
POSITIONS = re.compile(r"(encoder|decoder)\.embed_positions\.weight$")
NOTE = (
    "this is a LED: its second projections, which its global tokens use, have no place in LSG attention and are left "
    "out; everything else is kept as it was, so train the model further before you use it"
)


def bart_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of the BART that a LED's becomes, as long as the longer of its two position tables.

    Raises:
        LSGError: a length is not a positive integer.
    """
    length = max(size_of(config, name, default) for name, default in LENGTHS.items())
    kept = {name: value for name, value in config.items() if name not in (*LENGTHS, "attention_window")}
    names = [str(name).replace("LED", "Bart", 1) for name in stated_names(config)]
    stated = {"model_type": BART.name, "max_position_embeddings": length, "architectures": names}
    return {"vocab_size": BART.types[0].vocab_size, **kept, **stated}


def bart_loaders(loaders: Mapping[str, Loader], config: Mapping[str, Any]) -> dict[str, Loader]:
    """The tensors under BART's names; `config` is bart_config's."""
    length = config["max_position_embeddings"]
    kept = {name: load for name, load in loaders.items() if not GLOBAL_PROJECTION.search(name)}
    return {
        _renamed(name): _with_offset_rows(load, length) if POSITIONS.search(name) else load
        for name, load in kept.items()
    }


def _renamed(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = pattern.sub(replacement, name)
    return name


def _with_offset_rows(load: Loader, length: int) -> Loader:
    """[n, C] -> [2 + length, C]: two rows of zeros, which stand for no position, and the table, tiled if shorter."""

    def loaded() -> Tensor:
        table = load()
        return torch.cat([table.new_zeros(BART.position_offset, table.size(1)), tile_positions(table, length)])

    return loaded
