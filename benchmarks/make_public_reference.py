"""What transformers 4.40.2 and lsg-converter 0.1.9 compute with tiny models like the published checkpoints.

Runs in an environment of its own (benchmarks/requirements-peers.txt), as the public code needs an old transformers:
    python -m benchmarks.make_public_reference tests/data/public_reference

It writes the sentencepiece models, `manifest.json` (the shapes of each checkpoint's tensors, and what was computed) and
`cases.safetensors` (inputs and outputs), which tests/test_public_configurations.py matches. Of the checkpoints of
benchmarks/public_configurations.py a short one becomes an LSG one of 4,096 positions with the converter's defaults, and
an LSG one stays as it is. Where the converter fails, "short" is the short model's own output: the tokenizers of
bart-large-cnn, -xsum and distilbart have a <mask>, and their tables no row for it.

Summaries are searched for with what the checkpoint says about summarization. One thing is settled here: Pegasus'
configurations leave early_stopping at False, which fairseq does not have (lsg-convert says so), so it is True.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import sentencepiece
import torch
import transformers
from lsg_converter import LSGConverter
from lsg_converter.bart.modeling_lsg_bart import LSGBartConfig, LSGBartForConditionalGeneration
from lsg_converter.pegasus.modeling_lsg_pegasus import LSGPegasusConfig, LSGPegasusForConditionalGeneration
from safetensors.numpy import save_file
from torch import Tensor, nn

from benchmarks.public_configurations import (
    PIECES,
    TABLE,
    make_tensors,
    published_names,
    tiny_config,
    write_tokenizer,
)

POSITIONS = 4096
# Two blocks of 256 are the longest that is read without sparse attention.
LENGTHS = {256: (600, 530), 128: (300, 270)}
SHORT_LENGTHS = (90, 61)
# Masked-LM logits and hidden states are stored for every so many tokens: all of them would be most of the data.
STEP = 16
WORDS = "the cat sat on a mat while rain fell and birds sang in trees near old river banks under grey skies"
PIECE_IDS = {
    "pegasus": {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    "xlm-roberta": {"unk_id": 0, "bos_id": 1, "eos_id": 2},
    "camembert": {"unk_id": 0, "bos_id": 1, "eos_id": 2},
}
LSG_CLASSES = {
    "bart": (LSGBartConfig, LSGBartForConditionalGeneration),
    "pegasus": (LSGPegasusConfig, LSGPegasusForConditionalGeneration),
}
LSG_CONVERSION_FAILS = ("facebook/bart-large-cnn", "facebook/bart-large-xsum", "sshleifer/distilbart-cnn-12-6")


def write_pieces(folder: Path) -> None:
    """The sentencepiece models."""
    for name, count in PIECES.items():
        with (folder / f"{name}.model").open("wb") as file:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter([WORDS] * 3),
                model_writer=file,
                vocab_size=count,
                model_type="unigram",
                normalization_rule_name="identity",  # the usual rules are most of a small model
                minloglevel=2,
                **PIECE_IDS[name],
            )


def own_class(config: Mapping[str, Any]) -> str:
    """The class whose tensors the checkpoint has; its LM head is the embeddings where it was saved without one."""
    name = config["architectures"][0].removeprefix("LSG")
    return "BartForConditionalGeneration" if name == "BartModel" else name


def tensor_shapes(config: dict[str, Any]) -> dict[str, list[int]]:
    """What save_pretrained would write, by name; an LSG model's global table too."""
    is_lsg = config.get("base_model_prefix") == "lsg"
    if is_lsg:
        kind, build = LSG_CLASSES[config["model_type"]]
        model = build(kind(**config))
    else:
        build = getattr(transformers, own_class(config))
        model = build(build.config_class(**config))
    tied = {"lm_head.weight", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    tied |= {"lm_head.decoder.weight", "lm_head.decoder.bias"}
    tied |= {f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")}
    # A base model has no head; it computes with the same tables.
    tied |= {"final_logits_bias"} if config["architectures"] == ["BartModel"] else set()
    return {key: list(t.shape) for key, t in model.state_dict().items() if key not in tied and t.is_floating_point()}


def write_folder(name: str, shapes: Mapping[str, list[int]], folder: Path, models: Path) -> None:
    """A repository on the hub, tiny."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(tiny_config(name)))
    tensors = make_tensors(name, shapes)
    renamed = published_names(name, list(shapes))
    save_file({renamed[key]: tensor for key, tensor in tensors.items()}, folder / "model.safetensors", {"format": "pt"})
    write_tokenizer(TABLE[name].tokenizer, folder, models)


def open_model(name: str, folder: Path) -> nn.Module:
    """The LSG model: loaded, or converted; a short one where the converter fails."""
    config = tiny_config(name)
    if config.get("base_model_prefix") == "lsg":
        return LSG_CLASSES[config["model_type"]][1].from_pretrained(folder).eval()
    if name in LSG_CONVERSION_FAILS:
        return getattr(transformers, own_class(config)).from_pretrained(folder, attn_implementation="eager").eval()
    converter = LSGConverter(max_sequence_length=POSITIONS)
    return converter.convert_from_pretrained(str(folder), architecture=own_class(config))[0].eval()


def make_inputs(name: str, kind: str, config: Any, tokenizer: Any) -> dict[str, Tensor]:
    """Random tokens in the tokenizer's own surroundings, padded on the right."""
    state = np.random.RandomState(1)
    lengths = SHORT_LENGTHS if kind == "short" else LENGTHS[getattr(config, "block_size", 128)]
    around = tokenizer.build_inputs_with_special_tokens
    # Rows without a token are no input, and neither are <mask> and what stands in front of the words.
    first, last = (105, len(tokenizer)) if config.model_type == "pegasus" else (7, len(tokenizer) - 1)
    rows = [around(state.randint(first, last, n - len(around([]))).tolist()) for n in lengths]
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.full(mask.shape, tokenizer.pad_token_id)
    ids[mask] = torch.tensor([index for row in rows for index in row])
    return {"input_ids": ids, "attention_mask": mask.long()}


@torch.no_grad()
def compute(name: str, model: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Logits (of a few targets, of classes, or of every STEP-th token), and the best summaries."""
    config = tiny_config(name)
    if not config.get("is_encoder_decoder"):
        found = model(**given)
        return {"logits": (found.logits if "logits" in found else found.last_hidden_state)[:, ::STEP]}
    if "Classification" in config["architectures"][0]:
        return {"logits": model(**given).logits}
    start = torch.full((2, 1), config["decoder_start_token_id"])
    previous = torch.cat([start, given["input_ids"][:, 1:6]], dim=1)
    stated = (config.get("task_specific_params") or {}).get("summarization", {})
    stopping = {"early_stopping": True}
    return {
        "decoder_input_ids": previous,
        "logits": model(**given, decoder_input_ids=previous).logits,
        "summaries": model.generate(**given, **{**stated, **stopping}),
    }


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    out.mkdir(parents=True)
    write_pieces(out)
    about, arrays = {}, {}
    for name in TABLE:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "hub"
            shapes = tensor_shapes(tiny_config(name))
            write_folder(name, shapes, folder, out)
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
            kind = "short" if name in LSG_CONVERSION_FAILS else "lsg"
            model = open_model(name, folder)
            given = make_inputs(name, kind, model.config, tokenizer)
            found = {**given, **compute(name, model, given)}
        about[name] = {"kind": kind, "outputs": sorted(found), "shapes": shapes}
        for key, tensor in found.items():
            array = tensor.detach().numpy()
            arrays[f"{name}:{key}"] = np.ascontiguousarray(array if array.dtype.kind == "f" else array.astype(np.int32))
        print(name, kind, {key: tuple(tensor.shape) for key, tensor in found.items()}, flush=True)
    save_file(arrays, out / "cases.safetensors")
    (out / "cases.safetensors").chmod(0o644)
    versions = {
        "transformers": transformers.__version__,
        "lsg_converter": "0.1.9",
        "positions": POSITIONS,
        "step": STEP,
    }
    (out / "manifest.json").write_text(json.dumps({**versions, "checkpoints": about}) + "\n")


if __name__ == "__main__":
    main()
