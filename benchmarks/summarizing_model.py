"""The model and the documents that all contestants of summarizing.py share: one set of random weights, one of ids."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

from benchmarks.contestant_sizes import BLOCK, DECODER_LAYERS, FFN, HEADS, LAYERS, VOCABULARY, WIDTH

POSITIONS = 4224
SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
SHORTEST, LONGEST = 200, 4096
# Of the sizes of LSGConfig, which the public code has too.
SPARSE = {"block_size": BLOCK, "sparse_block_size": BLOCK, "sparsity_factor": 2, "sparsity_type": "norm"}


def documents(number: int, mixed: bool) -> list[torch.Tensor]:
    """Ids of words alone between `<s>` and `</s>`: LONGEST tokens each, or SHORTEST to LONGEST."""
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(SHORTEST, LONGEST + 1, (number,), generator=generator)
    lengths = lengths.tolist() if mixed else [LONGEST] * number
    words = (torch.randint(len(SPECIALS), VOCABULARY, (n - 2,), generator=generator) for n in lengths)
    return [torch.cat([torch.tensor([0]), ids, torch.tensor([2])]) for ids in words]


def padded(batch: list[torch.Tensor]) -> torch.Tensor:
    """(B,T) ids, padded on the right."""
    return torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=1)


def write(folder: Path) -> None:
    """The model as a public LSG-BART and as a BART, and the latter for CTranslate2 (in the peers' environments)."""
    from lsg_converter.bart.modeling_lsg_bart import LSGBartConfig, LSGBartForConditionalGeneration
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {"d_model": WIDTH, "encoder_layers": LAYERS, "decoder_layers": DECODER_LAYERS, "vocab_size": VOCABULARY}
    sizes |= {f"{side}_attention_heads": HEADS for side in ("encoder", "decoder")}
    sizes |= {f"{side}_ffn_dim": FFN for side in ("encoder", "decoder")}
    sizes["max_position_embeddings"] = POSITIONS
    torch.manual_seed(0)
    # Wider than a new model's, so that outputs depend on documents.
    lsg = LSGBartForConditionalGeneration(LSGBartConfig(**sizes, **SPARSE, init_std=0.06)).eval()
    lsg.save_pretrained(folder / "lsg")
    # What CTranslate2's converter asks for besides.
    asked = {"normalize_before": False, "normalize_embedding": True, "add_final_layer_norm": False}
    bart = BartForConditionalGeneration(BartConfig(**sizes, **asked)).eval()
    state = {name: x for name, x in lsg.state_dict().items() if "global_embeddings" not in name}
    bart.load_state_dict(state)
    bart.save_pretrained(folder / "bart")
    _write_tokenizer(folder / "bart")


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = [*SPECIALS, *(f"w{i}" for i in range(len(SPECIALS), VOCABULARY))]
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), SPECIALS, strict=True))
    vocabulary = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=names["unk_token"])
    PreTrainedTokenizerFast(tokenizer_object=Tokenizer(vocabulary), **names).save_pretrained(folder)
    (folder / "words.json").write_text(json.dumps(words))


def convert(folder: Path) -> None:
    """The BART for CTranslate2 in float32 and int8."""
    from ctranslate2.converters import TransformersConverter

    for name in ("float32", "int8"):
        TransformersConverter(str(folder / "bart")).convert(str(folder / name), quantization=name, force=True)


if __name__ == "__main__":
    {"write": write, "convert": convert}[sys.argv[1]](Path(sys.argv[2]))
