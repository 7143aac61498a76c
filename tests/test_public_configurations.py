"""The configurations of published checkpoints, as tiny models: the public code's outputs, and the way back.

benchmarks/public_configurations.py has the configurations and makes the weights, benchmarks/make_public_reference.py
stored the outputs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file
from test_mbart_reference import hide_globals
from torch import Tensor

from benchmarks.public_configurations import TABLE, make_tensors, published_names, tiny_config, write_tokenizer
from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.hub.entries import from_checkpoint
from lsg_fairseq.tokenizers.fairseq_bpe import embedding_rows
from lsg_fairseq.weights.state_dicts import HEAD_NAME

FOLDER = Path(__file__).parent / "data" / "public_reference"
MANIFEST = json.loads((FOLDER / "manifest.json").read_text())
TOLERANCE = 1e-4
SUMMARIZERS = [n for n in TABLE if "summaries" in MANIFEST["checkpoints"][n]["outputs"]]
CLASSIFIERS = [n for n in TABLE if "Classification" in TABLE[n].config["architectures"][0]]
ENCODERS = [n for n in TABLE if not TABLE[n].config.get("is_encoder_decoder")]


class Checkpoint(NamedTuple):
    """A tiny repository of the hub, its converted folder, and what is known about it."""

    hub: Path
    converted: Path
    tensors: dict[str, Tensor]
    outputs: dict[str, Tensor]


@pytest.fixture(scope="module")
def arrays() -> dict[str, Tensor]:
    return load_file(FOLDER / "cases.safetensors")


@pytest.fixture(scope="module")
def open_public(arrays: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Make and convert a checkpoint, once."""
    made: dict[str, Checkpoint] = {}

    def make(name: str) -> Checkpoint:
        folder = tmp_path_factory.mktemp(name.replace("/", "-"))
        about = MANIFEST["checkpoints"][name]
        tensors = {key: torch.from_numpy(array) for key, array in make_tensors(name, about["shapes"]).items()}
        write_hub(name, folder / "hub", tensors)
        # A short model's own outputs: with full attention, and its global key hidden.
        lsg = {"attention": "full"} if about["kind"] == "short" else {}
        convert_checkpoint(folder / "hub", folder / "converted", lsg=lsg)
        outputs = {key.split(":")[1]: value for key, value in arrays.items() if key.startswith(f"{name}:")}
        return Checkpoint(folder / "hub", folder / "converted", tensors, outputs)

    def get(name: str) -> Checkpoint:
        if name not in made:
            made[name] = make(name)
        return made[name]

    return get


def write_hub(name: str, folder: Path, tensors: Mapping[str, Tensor]) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny_config(name)))
    renamed = published_names(name, list(tensors))
    save_file({renamed[key]: tensor for key, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    write_tokenizer(TABLE[name].tokenizer, folder, FOLDER)


def load(name: str, checkpoint: Checkpoint) -> tuple[Any, Tensor]:
    """The hub's interface, and the dictionary's row of each Hugging Face id."""
    hub = from_checkpoint(checkpoint.converted)
    if MANIFEST["checkpoints"][name]["kind"] == "short":
        hide_globals(hub.model)
    return hub, embedding_rows(hub.tokenizer, hub.task.source_dictionary)


def source_of(hub: Any, rows: Tensor, given: Mapping[str, Tensor]) -> Tensor:
    """The inputs in the dictionary's order; Pegasus' <pad>, the decoder's start as well, is <s> there."""
    tokens = rows[given["input_ids"].long()]
    return tokens.masked_fill(~given["attention_mask"].bool(), hub.task.source_dictionary.pad())


@torch.no_grad()
@pytest.mark.parametrize("name", SUMMARIZERS)
def test_logits_and_summaries(name: str, open_public: Any) -> None:
    """All logits of a few targets; and the ids of the best summaries, searched for as the checkpoint says."""
    checkpoint = open_public(name)
    hub, rows = load(name, checkpoint)
    given = checkpoint.outputs
    source = source_of(hub, rows, given)
    logits, _ = hub.model(source, None, rows[given["decoder_input_ids"].long()])
    rows = rows[: given["logits"].size(-1)]
    assert (logits[..., rows] - given["logits"]).abs().max() <= TOLERANCE
    generator = hub.task.build_generator([hub.model], hub.generation_settings.as_arguments())
    found = generator.generate([hub.model], {"net_input": {"src_tokens": source}})
    pad = tiny_config(name)["pad_token_id"]
    # The first id is the decoder's start; Pegasus starts with <pad>.
    expected = [rows[ids[1:][ids[1:].ne(pad)].long()].tolist() for ids in given["summaries"]]
    assert [best["tokens"].tolist() for best, *_ in found] == expected


@torch.no_grad()
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_classes(name: str, open_public: Any) -> None:
    checkpoint = open_public(name)
    hub, rows = load(name, checkpoint)
    logits = hub.predict(HEAD_NAME, source_of(hub, rows, checkpoint.outputs), return_logits=True)
    assert (logits - checkpoint.outputs["logits"]).abs().max() <= TOLERANCE
    assert hub.labels == list(TABLE[name].config["label2id"])


@torch.no_grad()
@pytest.mark.parametrize("name", ENCODERS)
def test_masks_or_features(name: str, open_public: Any) -> None:
    checkpoint = open_public(name)
    hub, rows = load(name, checkpoint)
    given, step = checkpoint.outputs, MANIFEST["step"]
    has_head = TABLE[name].config["architectures"][0].endswith("MaskedLM")
    found = hub.model(source_of(hub, rows, given), features_only=not has_head)[0][:, ::step]
    difference = (found[..., rows] if has_head else found) - given["logits"]
    assert difference[given["attention_mask"].bool()[:, ::step]].abs().max() <= TOLERANCE


@pytest.mark.parametrize("name", TABLE)
def test_exported_back(name: str, open_public: Any, tmp_path: Path) -> None:
    """Every tensor bit for bit, in transformers' names, and every field.

    A base model gets the head that it stands for; an encoder's token type 0 is part of its positions.
    """
    checkpoint = open_public(name)
    is_lsg = "base_model_prefix" in TABLE[name].config
    export_checkpoint(checkpoint.converted, tmp_path / "back", short=not is_lsg)
    before, found = with_folded_types(checkpoint.tensors), load_file(tmp_path / "back" / "model.safetensors")
    after = with_folded_types(found)
    added = after.keys() - before.keys()
    is_base = TABLE[name].config["architectures"] == ["BartModel"]
    assert added == ({"final_logits_bias"} if is_base else set())
    assert not any(after[key].any() for key in added)
    assert [key for key, tensor in before.items() if key not in after or not torch.equal(after[key], tensor)] == []
    config = json.loads((tmp_path / "back" / "config.json").read_text())
    stated = tiny_config(name) | ({"architectures": ["BartForConditionalGeneration"]} if is_base else {})
    assert {key: config.get(key) for key in stated} == stated


def with_folded_types(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An encoder's tensors with token type 0 added to the positions, which is all that is ever seen of either."""
    kept = dict(tensors)
    for key in tensors:
        if key.endswith("token_type_embeddings.weight"):
            positions = key.replace("token_type", "position")
            offset = len(tensors[positions]) % 16  # of RoBERTas, whose first rows stand for no position
            kept[positions] = tensors[positions][offset:] + kept.pop(key)[0]
    return kept
