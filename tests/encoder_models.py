"""Tiny Hugging Face encoders with lively weights, and the same as this package's models."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lsg_fairseq.checkpoints.convert import convert_checkpoint
from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.tokenizers.base import DocumentTokenizer
from lsg_fairseq.tokenizers.fairseq_bpe import embedding_rows

# PyPI's torchaudio does not load beside a CPU torch, and transformers 5 then fails to import.
sys.modules.setdefault("torchaudio", None)
import transformers  # noqa: E402

SIZES = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
DISTILBERT_SIZES = {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24}
WORDPIECES = "[PAD] [unused0] [UNK] [CLS] [SEP] [MASK] the cat sat on a mat and ran ! ##s ##ing un".split()
ROBERTA_TOKENS = ["<s>", "<pad>", "</s>", "<unk>", *(chr(0x21 + i) for i in range(20)), "Ġ", "<mask>"]
CAMEMBERT_TOKENS = "<s>NOTUSED <pad> </s>NOTUSED <unk> <unk>NOTUSED <s> </s> ▁the ▁cat s <mask>".split()
TOKENS = {
    **dict.fromkeys(("bert", "distilbert", "electra"), WORDPIECES),
    "roberta": ROBERTA_TOKENS,
    "xlm-roberta": ["<s>", "<pad>", "</s>", "<unk>", "▁the", "▁cat", "s", "▁", "<mask>"],
    "camembert": CAMEMBERT_TOKENS,
}
POSITIONS = 40


def build_hf_model(model_type: str, architecture: str, **config: Any) -> nn.Module:
    """transformers' own model in evaluation mode, every weight far from 0 and 1."""
    offset = 2 if "roberta" in model_type or model_type == "camembert" else 0
    sizes = DISTILBERT_SIZES if model_type == "distilbert" else SIZES
    sizes = {**sizes, **({"embedding_size": 16} if model_type == "electra" else {})}
    more = {"vocab_size": len(TOKENS[model_type]), "max_position_embeddings": POSITIONS + offset, **config}
    torch.manual_seed(0)
    model = getattr(transformers, architecture)(transformers.AutoConfig.for_model(model_type, **sizes, **more))
    for name, parameter in model.named_parameters():
        is_norm = name.lower().replace("_", "").endswith("layernorm.weight")
        parameter.data = (1.0 if is_norm else 0.0) + 0.3 * torch.randn(parameter.shape)
    return model.eval()


def write_hf_folder(model: nn.Module, folder: Path) -> Path:
    """save_pretrained, with tokenizer files of the model's kind."""
    model.save_pretrained(folder)
    write_tokenizer(model.config.model_type, folder)
    return folder


def write_tokenizer(model_type: str, folder: Path) -> None:
    tokens = TOKENS[model_type]
    if tokens is WORDPIECES:
        (folder / "vocab.txt").write_text("\n".join(tokens) + "\n")
    elif model_type == "roberta":
        (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
        (folder / "merges.txt").write_text("#version: 0.2\n")
    else:
        kind = transformers.CamembertTokenizer if model_type == "camembert" else transformers.XLMRobertaTokenizer
        kind(vocab=[(token, -float(i)) for i, token in enumerate(tokens)]).save_pretrained(folder)


def convert_and_load(source: Path, out: Path, length: int | None = None, **lsg: Any) -> tuple[nn.Module, Tensor]:
    """A Hugging Face folder as this package's model, and the dictionary's row of each of its ids."""
    convert_checkpoint(source, out, length, lsg=lsg)
    return load_converted(out)


def load_converted(out: Path) -> tuple[nn.Module, Tensor]:
    files = CheckpointFiles(out / "model.pt", out, out / "tokenizer")
    task, model, tokenizer = load_task_and_model(files, Overrides())
    assert isinstance(tokenizer, DocumentTokenizer)
    return model, embedding_rows(tokenizer, task.source_dictionary)


def rewrite_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})


def without_globals(model: nn.Module) -> None:
    """Let no token see the one global key: what is left is the short model."""

    def hide(x: Tensor) -> Tensor:
        return torch.cat([torch.zeros_like(x[:, :1]), x], dim=1)

    encoder = model.encoder.sentence_encoder
    encoder.prepend_global_tokens = hide
    padding_mask = encoder.padding_mask
    encoder.padding_mask = lambda tokens: padding_mask(tokens).index_fill(1, torch.tensor([0]), True)
