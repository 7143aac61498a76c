"""Outputs of the public LSG-BERT and LSG-RoBERTa on tiny random models, which tests/test_encoder_reference.py matches.

Runs in an environment of its own (benchmarks/requirements-peers.txt), as the public code needs an old transformers:
    python -m benchmarks.make_encoder_reference tests/data/encoder_reference

It writes short Hugging Face folders, LSG ones whose tables were changed as training would, `tables.safetensors` (what
the public converter makes of the short ones), `cases.safetensors` (inputs and outputs) and `manifest.json`. Settings in
which the public code is wrong are left out: rows of padding alone with bos_pooling, a step (block_size //
sparsity_factor) that is odd or 1, sparse blocks of at most 3/4 of it, and lsh, whose projections it draws at random.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
import transformers
from lsg_converter import LSGConverter
from safetensors.torch import save_file
from tokenizers import pre_tokenizers
from torch import Tensor, nn

POSITIONS = 1024
SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
WORDS = "the cat sat on a mat while rain fell and birds sang in trees near old river banks under grey skies".split()
BERT_VOCABULARY = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"abcdefghij.,!?", "##s", "##ing"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>"]
ROBERTA_VOCABULARY = [*ROBERTA_SPECIALS, *sorted(pre_tokenizers.ByteLevel.alphabet()), "<mask>"]
# MLM logits are stored for every so many tokens: all of them would be most of the data.
LOGITS_STEP = 16


class Short(NamedTuple):
    """A short model: its class, its usable positions, and the class of its head in the manifest's words."""

    architecture: str
    positions: int
    head: str


SHORT_MODELS = {
    "bert_mlm": Short("BertForPreTraining", 512, "masked_lm"),
    "bert_classifier": Short("BertForSequenceClassification", 512, "classification"),
    "roberta_mlm": Short("RobertaForMaskedLM", 512, "masked_lm"),
    "roberta_classifier": Short("RobertaForSequenceClassification", 600, "classification"),
}
# LSG checkpoints as a user would find them: made from a short model, settings in config.json, tables changed.
LSG_MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert_lsg": ("bert_classifier", {"block_size": 32, "sparse_block_size": 16, "sparsity_factor": 2}),
    "roberta_lsg": ("roberta_mlm", {"block_size": 16, "sparse_block_size": 16, "num_global_tokens": 4}),
}
BLOCK_16 = {"block_size": 16, "sparse_block_size": 16}
RAGGED, FULL, SHORT_INPUT, EDGE = (150, 97, 30), (160, 160), (32, 17), (33, 20)
# Settings beside BLOCK_16, and the lengths of the batch.
SETTINGS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "none": ({"sparsity_type": "none"}, RAGGED),
    "norm": ({"sparsity_type": "norm"}, RAGGED),
    "norm_factor4": ({"sparsity_type": "norm", "sparsity_factor": 4, "num_global_tokens": 3}, FULL),
    "norm_wide": ({"sparsity_type": "norm", "sparse_block_size": 32, "pool_with_global": False}, RAGGED),
    "pooling": ({"sparsity_type": "pooling", "sparsity_factor": 4}, RAGGED),
    "bos_pooling": ({"sparsity_type": "bos_pooling", "num_global_tokens": 2}, FULL),
    "stride": ({"sparsity_type": "stride"}, RAGGED),
    "block_stride": ({"sparsity_type": "block_stride", "num_global_tokens": 7}, RAGGED),
    "mask_first": ({"sparsity_type": "norm", "mask_first_token": True}, RAGGED),
    "every_token": ({"sparsity_type": "norm", "sparsity_factor": 1}, RAGGED),
    "two_blocks": ({"sparsity_type": "norm"}, SHORT_INPUT),
    "edge": ({"sparsity_type": "norm"}, EDGE),
}
# What a classifier adds is its first row alone: a few settings are enough.
FOR_CLASSIFIERS = ("norm", "norm_wide", "two_blocks")


def make_lively(model: nn.Module) -> None:
    """Random weights far from 0 and 1 everywhere, layer norms, biases and the pad row included."""
    for name, parameter in model.named_parameters():
        is_norm = name.lower().replace("_", "").endswith("layernorm.weight")
        scale = 0.3 if parameter.dim() == 2 else 0.2
        parameter.data = (1.0 if is_norm else 0.0) + scale * torch.randn(parameter.shape)


def write_tokenizer(folder: Path, is_bert: bool) -> None:
    if is_bert:
        (folder / "vocab.txt").write_text("\n".join(BERT_VOCABULARY) + "\n")
        settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True}
    else:
        (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(ROBERTA_VOCABULARY)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
        settings = {"tokenizer_class": "RobertaTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


def write_folder(model: nn.Module, folder: Path) -> None:
    """What save_pretrained writes, without the public modelling code and without the path that the model came from."""
    folder.mkdir(parents=True)
    config = {
        key: value for key, value in model.config.to_diff_dict().items() if key not in ("auto_map", "_name_or_path")
    }
    config["architectures"] = [type(model).__name__]
    (folder / "config.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    tied = {id(model.get_input_embeddings().weight)}
    state = model.state_dict(keep_vars=True)
    kept = {key: t for key, t in state.items() if id(t) not in tied or key.endswith("word_embeddings.weight")}
    save_file({key: t.detach().clone() for key, t in kept.items()}, folder / "model.safetensors", {"format": "pt"})
    write_tokenizer(folder, config["model_type"] == "bert")


def write_short(name: str, folder: Path) -> None:
    """A short model with token types, a pooler where its class has one, and its head."""
    short = SHORT_MODELS[name]
    is_bert = name.startswith("bert")
    offset, vocabulary = (0, BERT_VOCABULARY) if is_bert else (2, ROBERTA_VOCABULARY)
    kind = transformers.BertConfig if is_bert else transformers.RobertaConfig
    # RoBERTa's one token type, and its layer norms' 1e-5, as in the published checkpoints.
    more = {"type_vocab_size": 2} if is_bert else {"type_vocab_size": 1, "layer_norm_eps": 1e-5}
    positions = {"max_position_embeddings": short.positions + offset}
    model = getattr(transformers, short.architecture)(
        kind(**SIZES, **more, **positions, vocab_size=len(vocabulary), num_labels=3)
    )
    make_lively(model)
    write_folder(model, folder)


def convert(folder: Path, **settings: Any) -> nn.Module:
    """The public converter's model of POSITIONS positions, in evaluation mode."""
    model, _ = LSGConverter(max_sequence_length=POSITIONS).convert_from_pretrained(str(folder), **settings)
    return model.eval()


def tables_of(model: nn.Module) -> dict[str, Tensor]:
    embeddings = model.base_model.embeddings
    names = ("global_embeddings", "position_embeddings")
    return {name: getattr(embeddings, name).weight.detach().clone() for name in names}


def write_lsg(name: str, out: Path) -> nn.Module:
    """An LSG folder, its global and position tables moved away from what the converter gave them."""
    source, settings = LSG_MODELS[name]
    model = convert(out / source, **settings)
    for table in ("global_embeddings", "position_embeddings"):
        getattr(model.base_model.embeddings, table).weight.data += 0.1 * torch.randn(1)
    embeddings = model.base_model.embeddings
    embeddings.position_embeddings.weight.data += 0.1 * torch.randn(embeddings.position_embeddings.weight.shape)
    write_folder(model, out / name)
    return model


@torch.no_grad()
def outputs_of(model: nn.Module, head: str, lengths: tuple[int, ...]) -> dict[str, Tensor]:
    """Random tokens `<s> ... </s>` with padding on the right, the last hidden states, and what the head says."""
    config = model.config
    is_bert = config.model_type == "bert"
    start, end, pad = (3, 4, 0) if is_bert else (0, 2, 1)
    ids = torch.randint(6, config.vocab_size - 1, (len(lengths), max(lengths)))
    mask = torch.arange(max(lengths))[None] < torch.tensor(lengths)[:, None]
    ids[:, 0] = start
    for row, length in enumerate(lengths):
        ids[row, length - 1] = end
    ids[~mask] = pad
    given = {"input_ids": ids, "attention_mask": mask.long()}
    encoded, found = model.base_model(**given), model(**given)
    logits = found.prediction_logits if "prediction_logits" in found else found.logits
    outputs = {**given, "hidden": encoded.last_hidden_state}
    outputs["logits"] = logits[:, ::LOGITS_STEP] if head == "masked_lm" else logits
    if encoded.get("pooler_output") is not None:
        outputs["pooler_output"] = encoded.pooler_output
    return {key: (value if value.is_floating_point() else value.int()).contiguous() for key, value in outputs.items()}


def main() -> None:
    """Write everything."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    out = parser.parse_args().out
    torch.manual_seed(0)
    torch.set_num_threads(1)
    tables, arrays, cases = {}, {}, []
    for name in SHORT_MODELS:
        write_short(name, out / name)
        tables |= {f"{name}.{key}": value for key, value in tables_of(convert(out / name)).items()}

    def add_case(name: str, entry: dict[str, Any], model: nn.Module, lengths: tuple[int, ...]) -> None:
        cases.append({"name": name, **entry})
        arrays.update({f"{name}.{key}": value for key, value in outputs_of(model, entry["head"], lengths).items()})

    for setting, (more, lengths) in SETTINGS.items():
        for name, short in SHORT_MODELS.items():
            if short.head == "classification" and setting not in FOR_CLASSIFIERS:
                continue
            entry = {"model": name, "head": short.head, "settings": BLOCK_16 | more}
            add_case(f"{name}_{setting}", entry, convert(out / name, **entry["settings"]), lengths)
    for name, (source, _) in LSG_MODELS.items():
        entry = {"model": name, "head": SHORT_MODELS[source].head, "settings": {}}
        add_case(name, entry, write_lsg(name, out), RAGGED)
    save_file(tables, out / "tables.safetensors")
    save_file(arrays, out / "cases.safetensors")
    about = {"positions": POSITIONS, "logits_step": LOGITS_STEP, "lsg_converter": "0.1.9", "cases": cases}
    (out / "manifest.json").write_text(json.dumps(about, indent=1) + "\n")


if __name__ == "__main__":
    main()
