"""An encoder's weights as the start of an encoder-decoder (Rothe et al. 2020, arXiv 1907.12461): a Hugging Face BART.

The encoder is the given one, converted as this project converts any BERT. Each decoder layer is a copy of one of its
layers; its attention over the source has random queries and keys, and values that read words. Encoder and
decoder share the token embeddings, of which only the rows of a smaller vocabulary are kept. `lsg-convert` makes an
LSG-BART of the folder, as of any other BART.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from lsg_fairseq.checkpoints.open_huggingface import open_huggingface
from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.huggingface.encoder_weights import ENCODER
from lsg_fairseq.huggingface.seq2seq_weights import convert_to_hf
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import WORDPIECE_FILE, DocumentTokenizer
from lsg_fairseq.tokenizers.fairseq_bpe import embedding_rows
from lsg_fairseq.tokenizers.load import CONTINUATION
from lsg_fairseq.weights.model_spec import ModelSpec
from lsg_fairseq.weights.position_tables import fold_token_types
from lsg_fairseq.weights.state_dicts import (
    LOGITS_BIAS,
    SOURCE_POSITIONS,
    TARGET_POSITIONS,
    TIED_TABLES,
    TOKEN_TABLE,
)

# --- MiniLM's vocabulary cut to what a corpus needs: its most frequent pieces, and every character in it --------------
# WordPiece takes the longest piece it knows, so a word whose piece went is spelled with shorter ones. A piece that
# starts a word and one inside a word ("##") are different entries, and a character stays in both, so nothing becomes
# unknown.

# The order of fairseq's Dictionary, so that a Hugging Face id is a row of it; [MASK] comes last, as BART's does.
FIRST, LAST = ("[CLS]", "[PAD]", "[SEP]", "[UNK]"), ("[MASK]",)
SETTINGS = """{
 "tokenizer_class": "BertTokenizer",
 "do_lower_case": true,
 "tokenize_chinese_chars": true,
 "strip_accents": null,
 "cls_token": "[CLS]",
 "pad_token": "[PAD]",
 "sep_token": "[SEP]",
 "unk_token": "[UNK]",
 "mask_token": "[MASK]"
}
"""


def count_pieces(texts: Iterable[str], tokenizer: DocumentTokenizer, longest: int) -> Counter[str]:
    """How often each piece stands in the texts' first `longest` pieces."""
    counts: Counter[str] = Counter()
    for text in texts:
        # A word is a piece at least, and splitting megabytes to count a few thousand pieces would take minutes.
        words = " ".join(text.split(None, longest)[:longest])
        counts.update(tokenizer.encode(words)[:longest])
    return counts


def read_pieces(folder: Path) -> list[str]:
    """The entries of vocab.txt, by their ids."""
    return [piece for _, piece in read_lines(folder / WORDPIECE_FILE)]


def choose_pieces(counts: Counter[str], known: Sequence[str], size: int) -> list[str]:
    """At most `size` entries: specials, the characters that occur, and the most frequent pieces, in their old order.

    Raises:
        LSGError: `size` has no room for specials and characters.
    """
    specials = {*FIRST, *LAST}
    # Ties are broken by the old order, so that the same corpus always gives the same vocabulary.
    place = {piece: number for number, piece in enumerate(known)}
    found = [piece for piece in counts if piece in place and piece not in specials]
    letters = set("".join(piece.removeprefix(CONTINUATION) for piece in found))
    kept = {piece for piece in known if piece.removeprefix(CONTINUATION) in letters}
    room = size - len(specials) - len(kept)
    if room < 0:
        raise LSGError(f"a vocabulary of {size} has no room for {len(kept)} characters: give {size - room} or more")
    others = [piece for piece in found if piece not in kept]
    kept.update(sorted(others, key=lambda piece: (-counts[piece], place[piece]))[:room])
    return [*FIRST, *(piece for piece in known if piece in kept), *LAST]


def write_vocabulary(pieces: Sequence[str], folder: Path) -> None:
    """The files of a Hugging Face BertTokenizer: vocab.txt and its settings."""
    (folder / WORDPIECE_FILE).write_text("".join(f"{piece}\n" for piece in pieces), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(SETTINGS, encoding="utf-8")


# --- what the decoder's attention over the encoder's output begins with: it reads the words it attends to -------------
# Untrained values say nothing of the source, and learning to copy from it takes thousands of updates. A linear map from
# an encoder's output to the embedding of the token at that place does most of it: as values, with an output projection
# that changes nothing, it adds to a decoder state the embeddings of what is attended to, and these are also the rows of
# the output projection.

LONGEST = 128  # tokens read of a text
RIDGE = 1e-3  # of the mean squared output, so that directions which hardly vary stay harmless


def embedding_reader(encoder_folder: Path, tokenizer: DocumentTokenizer, texts: Iterable[str]) -> tuple[Tensor, Tensor]:
    """(weight [C,C], bias [C]) of the linear map from an encoder's last hidden states to its token embeddings."""
    from transformers import AutoModel

    encoder = AutoModel.from_pretrained(encoder_folder).eval()
    place = {token: row for row, token in enumerate(tokenizer.tokens)}
    table = encoder.get_input_embeddings().weight
    longest = min(LONGEST, encoder.config.max_position_embeddings - 2)
    hidden, embedded = [], []
    with torch.inference_mode():
        for text in texts:
            words = [tokenizer.bos, *tokenizer.encode(text)[:longest], tokenizer.eos]
            ids = torch.tensor([place[word] for word in words])
            hidden.append(encoder(ids[None]).last_hidden_state[0])
            embedded.append(table[ids])
        return fit_linear(torch.cat(hidden), torch.cat(embedded))


def fit_linear(inputs: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Ridge regression of outputs [N,C] on inputs [N,D]: weight [C,D] and bias [C], as nn.Linear has them."""
    means = inputs.double().mean(0), outputs.double().mean(0)
    x, y = inputs.double() - means[0], outputs.double() - means[1]
    gram = x.T @ x
    ridge = RIDGE * gram.diagonal().mean()
    weight = torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), x.T @ y).T
    return weight.to(inputs.dtype), (means[1] - weight @ means[0]).to(inputs.dtype)


# --- the encoder-decoder, as a BART in Hugging Face's layout ----------------------------------------------------------

INITIAL_STD = 0.02  # BERT's (arXiv 1810.04805, released configuration: initializer_range)
SEED = 1


Values = tuple[Tensor, Tensor]


def write_start(
    encoder_folder: Path, pieces: Sequence[str], copied_layers: Sequence[int], values: Values, out: Path
) -> None:
    """Write config.json, model.safetensors and the tokenizer of the encoder-decoder into the folder `out`.

    Args:
        pieces: the vocabulary that is kept.
        copied_layers: the encoder's layer, from 0, that each decoder layer begins as.
        values: weight [C,C] and bias [C] of what attention over the source reads.

    Raises:
        LSGError: the folder is no BERT's, a piece is not in its vocabulary, or it has no such layer.
    """
    source = open_huggingface(encoder_folder, None)
    encoder = fold_token_types(source.weights(), source.spec)
    place = {token: row for row, token in enumerate(read_pieces(encoder_folder))}
    unknown = [piece for piece in pieces if piece not in place]
    if unknown:
        raise LSGError(f"{encoder_folder} has no piece {unknown[0]!r}: keep pieces of its own vocabulary only")
    # The weights are in the order of fairseq's dictionary.
    rows = embedding_rows(source.tokenizer, source.dictionary)[[place[piece] for piece in pieces]]
    state, spec = encoder_decoder(encoder, source.spec, rows, copied_layers, values)
    # Copies: safetensors refuses tensors that share memory, as a decoder layer does with the layer it begins as.
    tensors = {key: tensor.clone() for key, tensor in convert_to_hf(state, spec).items()}
    save_file(tensors, out / "model.safetensors", {"format": "pt"})
    (out / "config.json").write_text(json.dumps(bart_config(spec, source.args["encoder_attention_heads"]), indent=1))
    write_vocabulary(pieces, out)


def encoder_decoder(
    encoder: Mapping[str, Tensor], spec: ModelSpec, rows: Tensor, copied_layers: Sequence[int], values: Values
) -> tuple[dict[str, Tensor], ModelSpec]:
    """A fairseq encoder's state dict -> that of a short BART, and its spec.

    Args:
        encoder: names as fairseq's RoBERTa has them; its heads are left out.
        rows: [V] the old token row of each new one.
        values: as for write_start.

    Raises:
        LSGError: the encoder has no such layer.
    """
    if not all(0 <= layer < spec.encoder_layers for layer in copied_layers):
        raise LSGError(f"decoder layers can be copied from layers 0 to {spec.encoder_layers - 1}, not {copied_layers}")
    state = {f"encoder.{key.removeprefix(ENCODER)}": value for key, value in encoder.items() if key.startswith(ENCODER)}
    state.pop("encoder.version", None)
    state[TOKEN_TABLE] = state[TOKEN_TABLE][rows]
    state |= dict.fromkeys(TIED_TABLES, state[TOKEN_TABLE])
    state[TARGET_POSITIONS] = state[SOURCE_POSITIONS]
    state[LOGITS_BIAS] = state[TOKEN_TABLE].new_zeros(1, len(rows))
    state |= {key.replace("encoder", "decoder", 1): state[key] for key in state if ".layernorm_embedding." in key}
    for number, layer in enumerate(copied_layers):
        state |= _decoder_layer(state, f"encoder.layers.{layer}.", f"decoder.layers.{number}.")
        state |= source_attention(values, number, f"decoder.layers.{number}.encoder_attn")
    sizes = {"decoder_layers": len(copied_layers), "decoder_ffn_dim": spec.encoder_ffn_dim}
    lengths = {"max_target_positions": spec.max_source_positions, "token_types": 0}
    return state, replace(spec, family="bart", model_type="", vocab_size=len(rows), **sizes, **lengths)


def _decoder_layer(state: Mapping[str, Tensor], copied: str, name: str) -> dict[str, Tensor]:
    """A decoder layer that begins as the encoder layer `copied`, all but its attention over the source."""
    return {name + key.removeprefix(copied): value for key, value in state.items() if key.startswith(copied)}


def source_attention(values: Values, number: int, name: str) -> dict[str, Tensor]:
    """Attention over the source that looks nowhere in particular, and adds what `values` read there; and its norm."""
    weight, bias = values
    generator = torch.Generator().manual_seed(SEED + number)
    query, key = (INITIAL_STD * torch.randn(weight.shape, generator=generator) for _ in range(2))
    weights = {"q": query, "k": key, "v": weight, "out": torch.eye(len(weight))}
    state = {f"{name}.{part}_proj.weight": value for part, value in weights.items()}
    state |= {f"{name}.{part}_proj.bias": torch.zeros_like(bias) for part in weights} | {f"{name}.v_proj.bias": bias}
    return state | {
        f"{name}_layer_norm.weight": torch.ones_like(bias),
        f"{name}_layer_norm.bias": torch.zeros_like(bias),
    }


def bart_config(spec: ModelSpec, heads: int) -> dict[str, object]:
    """config.json of a Hugging Face BART of these sizes, with BERT's dropout."""
    return {
        "model_type": "bart",
        "architectures": ["BartForConditionalGeneration"],
        "vocab_size": spec.vocab_size,
        "d_model": spec.embed_dim,
        "encoder_layers": spec.encoder_layers,
        "decoder_layers": spec.decoder_layers,
        "encoder_attention_heads": heads,
        "decoder_attention_heads": heads,
        "encoder_ffn_dim": spec.encoder_ffn_dim,
        "decoder_ffn_dim": spec.decoder_ffn_dim,
        "max_position_embeddings": spec.max_source_positions,
        "activation_function": "gelu",
        "dropout": 0.1,
        "attention_dropout": 0.1,
        "activation_dropout": 0.0,
        "scale_embedding": False,
        "bos_token_id": 0,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 2,
    }
