"""Outputs of the public LSG-mBART on tiny random models, which tests/test_mbart_reference.py matches.

Runs in an environment of its own (benchmarks/requirements-peers.txt), as the public code needs an old transformers:
    python -m benchmarks.make_mbart_reference tests/data/mbart_reference

It writes short Hugging Face folders with real sentencepiece models (mBART's order of languages, mBART-50's, and none,
as BARThez has it), `cases.safetensors` (inputs, outputs, and the projections that lsh drew), and `manifest.json`. All
go through the public script for mBART: the one for BARThez gives the decoder new random weights.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import sentencepiece
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

from benchmarks.make_encoder_reference import BLOCK_16, WORDS, convert, make_lively

POSITIONS = 1024
PIECES = 44
PIECE_IDS = {
    "MBartTokenizer": {"unk_id": 0, "bos_id": 1, "eos_id": 2},
    "BarthezTokenizer": {"bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3, "user_defined_symbols": "<mask>"},
}
PIECE_IDS["MBart50Tokenizer"] = PIECE_IDS["MBartTokenizer"]
TEXTS = [
    "the cat sat on a mat while rain fell and birds sang",
    "old river banks under grey skies",
    "a mat in the trees",
]


class Kind(NamedTuple):
    """A tokenizer class, the sizes of its model, and the languages of its documents and summaries ("": none)."""

    tokenizer: str
    sizes: dict[str, Any]
    source: str = ""
    target: str = ""


def _sizes(width: int, layers: tuple[int, int], heads: int, positions: int, scaled: bool) -> dict[str, Any]:
    sides = {f"{s}_attention_heads": heads for s in ("encoder", "decoder")}
    sides |= {f"{s}_ffn_dim": width + 8 for s in ("encoder", "decoder")}
    sides |= {"encoder_layers": layers[0], "decoder_layers": layers[1]}
    return {**sides, "d_model": width, "max_position_embeddings": positions, "scale_embedding": scaled}


KINDS = {
    "mbart25": Kind("MBartTokenizer", _sizes(16, (2, 2), 2, 512, True), "en_XX", "ro_RO"),
    "mbart50": Kind("MBart50Tokenizer", _sizes(24, (2, 1), 4, 600, True), "fr_XX", "sl_SI"),
    "barthez": Kind("BarthezTokenizer", _sizes(16, (1, 2), 4, 512, False)),
}
RAGGED, FULL = (90, 61), (96, 96)
# Settings beside BLOCK_16, and the lengths of the batch.
SETTINGS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "none": ({"sparsity_type": "none"}, RAGGED),
    "norm": ({"sparsity_type": "norm"}, RAGGED),
    "norm_full": ({"sparsity_type": "norm", "num_global_tokens": 3}, FULL),
    "pooling": ({"sparsity_type": "pooling", "sparsity_factor": 4}, RAGGED),
    "bos_pooling": ({"sparsity_type": "bos_pooling", "num_global_tokens": 2}, FULL),
    "lsh": ({"sparsity_type": "lsh", "sparsity_factor": 4}, RAGGED),
    "stride": ({"sparsity_type": "stride"}, RAGGED),
    "block_stride": ({"sparsity_type": "block_stride", "pass_global_tokens_to_decoder": False}, RAGGED),
    "two_blocks": ({"sparsity_type": "norm"}, (32, 17)),
}
BEAM = {"num_beams": 3, "max_length": 14, "min_length": 5, "early_stopping": True, "length_penalty": 1.0}


def write_tokenizer(kind: Kind, folder: Path) -> Any:
    """A sentencepiece model of its own, and the class that gives it its order."""
    folder.mkdir(parents=True)
    path = folder / "sentencepiece.bpe.model"
    with path.open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([" ".join(WORDS)] * 3 + TEXTS),
            model_writer=file,
            vocab_size=PIECES,
            model_type="unigram",
            normalization_rule_name="identity",  # the usual rules are most of a small model
            hard_vocab_limit=False,
            minloglevel=2,
            **PIECE_IDS[kind.tokenizer],
        )
    languages = {"src_lang": kind.source, "tgt_lang": kind.target} if kind.source else {}
    settings = {"tokenizer_class": kind.tokenizer, **languages}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings) + "\n")
    return getattr(transformers, kind.tokenizer)(str(path), **languages)


def write_short(kind: Kind, folder: Path) -> Any:
    """A short model with lively weights, and its tokenizer's folder; returns transformers' tokenizer."""
    tokenizer = write_tokenizer(kind, folder)
    config = transformers.MBartConfig(**kind.sizes, vocab_size=len(tokenizer))
    model = transformers.MBartForConditionalGeneration(config)
    make_lively(model)
    model.final_logits_bias.normal_(std=0.2)
    if kind.tokenizer == "MBartTokenizer":
        model.config.decoder_start_token_id = tokenizer.convert_tokens_to_ids(kind.target)
    elif kind.source:
        model.config.decoder_start_token_id = tokenizer.eos_token_id
        model.config.forced_bos_token_id = tokenizer.convert_tokens_to_ids(kind.target)
    else:
        model.config.decoder_start_token_id = tokenizer.eos_token_id
    stated = {k: v for k, v in model.config.to_diff_dict().items() if k != "_name_or_path"}
    stated["architectures"] = ["MBartForConditionalGeneration"]
    (folder / "config.json").write_text(json.dumps(stated, indent=1, sort_keys=True) + "\n")
    tied = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    state = {key: tensor.clone() for key, tensor in model.state_dict().items() if key not in tied}
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    return tokenizer


@contextmanager
def drawing(projections: list[Tensor]) -> Iterator[None]:
    """Keep what torch.randn returns inside."""
    randn = torch.randn

    def kept(*args: Any, **settings: Any) -> Tensor:
        projections.append(randn(*args, **settings))
        return projections[-1]

    torch.randn = kept
    try:
        yield
    finally:
        torch.randn = randn


def inputs_of(model: nn.Module, tokenizer: Any, lengths: tuple[int, ...]) -> dict[str, Tensor]:
    """Random pieces in the tokenizer's own surroundings, padded on the right, and what the decoder has read."""
    around, last = tokenizer.build_inputs_with_special_tokens, len(tokenizer.sp_model)
    rows = [around(torch.randint(5, last, (n - len(around([])),)).tolist()) for n in lengths]
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids = torch.full(mask.shape, tokenizer.pad_token_id)
    ids[mask] = torch.tensor([index for row in rows for index in row])
    first = torch.full((len(lengths), 1), model.config.decoder_start_token_id)
    previous = torch.cat([first, torch.randint(5, last, (len(lengths), 5))], dim=1)
    return {"input_ids": ids, "attention_mask": mask.long(), "decoder_input_ids": previous}


@torch.no_grad()
def outputs_of(model: nn.Module, given: dict[str, Tensor]) -> dict[str, Tensor]:
    """Encoder rows, logits, the projections of lsh; and beam 3 where nothing is drawn."""
    projections: list[Tensor] = []
    with drawing(projections):
        found = model(**given)
    outputs = {"hidden": found.encoder_last_hidden_state, "logits": found.logits}
    outputs |= {f"randn_{i}": drawn for i, drawn in enumerate(projections)}
    if not projections:
        sources = {name: given[name] for name in ("input_ids", "attention_mask")}
        outputs["beam3"] = model.generate(**sources, **BEAM)
    return {key: (value if value.is_floating_point() else value.int()).contiguous() for key, value in outputs.items()}


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.manual_seed(0)
    torch.set_num_threads(1)
    arrays, cases, texts = {}, [], {}
    for name, kind in KINDS.items():
        tokenizer = write_short(kind, out / name)
        texts[name] = [tokenizer(text).input_ids for text in TEXTS]
        table = convert(out / name).model.encoder.global_embeddings.weight
        arrays[f"{name}.globals"] = table.detach().clone()
        for setting, (more, lengths) in SETTINGS.items():
            model = convert(out / name, **BLOCK_16 | more)
            given = inputs_of(model, tokenizer, lengths)
            cases.append({"name": f"{name}_{setting}", "model": name, "settings": BLOCK_16 | more})
            found = {**{key: tensor.int() for key, tensor in given.items()}, **outputs_of(model, given)}
            arrays |= {f"{name}_{setting}.{key}": tensor.clone() for key, tensor in found.items()}
    save_file(arrays, out / "cases.safetensors")
    about = {"positions": POSITIONS, "beam": BEAM, "lsg_converter": "0.1.9", "texts": TEXTS, "ids": texts}
    (out / "manifest.json").write_text(json.dumps({**about, "cases": cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
