"""Tokenizers in fairseq: the Dictionary of a tokenizer, the registered bpe "lsg", and training a tokenizer."""

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from fairseq.data import Dictionary
from fairseq.data.encoders import register_bpe
from fairseq.dataclass import FairseqDataclass
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from torch import LongTensor

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import (
    JSON_FILE,
    MERGES_FILE,
    VOCAB_FILE,
    DocumentTokenizer,
    on_one_line,
    replace_surrogates,
)
from lsg_fairseq.tokenizers.languages import language_symbol
from lsg_fairseq.tokenizers.load import (
    BART_MASK,
    BART_SPECIALS,
    byte_level_backend,
    has_tokenizer,
    load_tokenizer,
)
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat
from lsg_fairseq.tokenizers.settings import clear_error
from lsg_fairseq.weights.limits import check_file, check_number

logger = logging.getLogger(__name__)

__all__ = [
    "DICTIONARY_STATE",
    "LSGBPE",
    "DocumentTokenizer",
    "LineBPE",
    "SequenceFormat",
    "build_dictionary",
    "dictionary_fingerprint",
    "embedding_rows",
    "has_tokenizer",
    "hf_to_fairseq_ids",
    "load_tokenizer",
    "read_dictionary",
    "remove_mask",
    "symbol_from_token",
    "token_from_symbol",
    "token_rows",
    "train_tokenizer",
    "with_task_symbols",
]

# fairseq splits lines and dict.txt at whitespace. A backslash is escaped only where it would read as an escape itself,
# so that ordinary symbols stay what they are.
UNSAFE = re.compile(r"\s|\\(?=u[0-9a-f]{4})")
ESCAPED = re.compile(r"\\u([0-9a-f]{4})")
# Far longer than words are; base64 and the like have no spaces at all.
LONG_WORD = re.compile(r"\S{1000}|\s{1000}")

# The name under which a checkpoint keeps dictionary_fingerprint.
DICTIONARY_STATE = "dictionary"


def symbol_from_token(token: str) -> str:
    """The dictionary symbol of a token string: the same, with whitespace as backslash, u and four hex digits."""
    return UNSAFE.sub(lambda match: f"\\u{ord(match.group()):04x}", token)


def token_from_symbol(symbol: str) -> str:
    """The token string of a dictionary symbol."""
    return ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), symbol)


def build_dictionary(tokenizer: DocumentTokenizer) -> Dictionary:
    """The tokenizer's tokens in Hugging Face order, after fairseq's `<s> <pad> </s> <unk>` at 0..3.

    BART's ids stay as they are. Pegasus has no `<s>`, so its dictionary has one row more than Hugging Face's.
    """
    dictionary = Dictionary()
    for token in tokenizer.tokens:
        symbol = symbol_from_token(token)
        if symbol not in dictionary:
            dictionary.add_symbol(symbol)
    return dictionary


def read_dictionary(path: Path) -> Dictionary:
    """The dictionary in a dict.txt.

    Raises:
        LSGError: it is damaged.
    """
    check_file(path)
    with clear_error(path, "a dictionary, a symbol and a count in each line"):
        return Dictionary.load(str(path))


def dictionary_fingerprint(dictionary: Dictionary) -> str:
    """A hash of the symbols in their order, but for a final `<mask>`, which tasks add and take away."""
    symbols = dictionary.symbols[: -1 if dictionary.symbols[-1] == BART_MASK else None]
    return hashlib.sha256("\n".join(symbols).encode()).hexdigest()


def hf_to_fairseq_ids(tokenizer: DocumentTokenizer, dictionary: Dictionary) -> LongTensor:
    """(V,) the dictionary's row of every Hugging Face id.

    Raises:
        LSGError: the dictionary lacks a token of the tokenizer.
    """
    return _rows_of(tokenizer.tokens, dictionary)


def embedding_rows(tokenizer: DocumentTokenizer, dictionary: Dictionary) -> LongTensor:
    """(V,) the dictionary's row that each of Hugging Face's embedding rows goes to.

    The same as hf_to_fairseq_ids but for two things. Where `<s>` is no token of the tokenizer (Pegasus), it takes the
    embedding of `<pad>`, which starts Hugging Face's decoder; fairseq would mask its own `<pad>` there. And a final
    `<mask>` that the dictionary is without (a fine-tuned BART has no embedding for it) is left out.

    Raises:
        LSGError: the dictionary lacks a token of the tokenizer.
    """
    tokens = tokenizer.tokens
    rows = _rows_of(tokens[:-1] if tokens[-1] == BART_MASK and BART_MASK not in dictionary else tokens, dictionary)
    if dictionary.bos() not in rows:
        rows[rows == dictionary.pad()] = dictionary.bos()
    return rows


def _rows_of(tokens: list[str], dictionary: Dictionary) -> LongTensor:
    symbols = [symbol_from_token(token) for token in tokens]
    missing = [symbol for symbol in symbols if symbol not in dictionary]
    if missing:
        names = ", ".join(map(repr, missing[:3]))
        raise LSGError(f"the dictionary lacks {len(missing)} tokens of the tokenizer ({names}): they don't go together")
    return torch.tensor([dictionary.indices[symbol] for symbol in symbols])


def remove_mask(dictionary: Dictionary) -> None:
    """Take `<mask>`, its last symbol, out of a dictionary: a BART fine-tuned in fairseq has no embedding for it."""
    del dictionary.indices[dictionary.symbols.pop()], dictionary.count[-1]


def with_task_symbols(dictionary: Dictionary, langs: str | None) -> Dictionary:
    """The dictionary with the language codes and the `<mask>` that fairseq's multilingual tasks add to it.

    Args:
        langs: --langs of translation_from_pretrained_bart or multilingual_denoising, with commas; None: another task.
    """
    for code in langs.split(",") if langs else ():
        dictionary.add_symbol(language_symbol(code))
    if langs:
        dictionary.add_symbol(BART_MASK)
    return dictionary


def token_rows(tokenizer: DocumentTokenizer, dictionary: Dictionary) -> dict[str, int]:
    """Token string -> row of the dictionary."""
    return dict(zip(tokenizer.tokens, hf_to_fairseq_ids(tokenizer, dictionary).tolist(), strict=True))


@dataclass
class LSGBPEConfig(FairseqDataclass):
    lsg_tokenizer: str = field(default="", metadata={"help": "folder with the Hugging Face tokenizer files"})


@register_bpe("lsg", dataclass=LSGBPEConfig)
class LSGBPE:
    """fairseq's view of a tokenizer: a text <-> symbols with spaces between them."""

    def __init__(self, cfg: LSGBPEConfig) -> None:
        if not cfg.lsg_tokenizer:
            raise LSGError("--bpe lsg needs --lsg-tokenizer FOLDER, for instance the tokenizer folder beside the data")
        self.tokenizer = load_tokenizer(cfg.lsg_tokenizer)

    @classmethod
    def from_folder(cls, folder: str | Path) -> "LSGBPE":
        """The bpe of a tokenizer folder."""
        return cls(LSGBPEConfig(lsg_tokenizer=str(folder)))

    def encode(self, text: str) -> str:
        """The symbols of a text, without `<s>` and `</s>`."""
        return " ".join(map(symbol_from_token, self.tokenizer.encode(text)))

    def decode(self, symbols: str) -> str:
        """The text of symbols, without special tokens; fairseq writes an unknown one in a reference as `<<unk>>`."""
        return self.tokenizer.decode_plain(token_from_symbol(s) for s in symbols.replace("<<unk>>", "<unk>").split())

    def decode_to_line(self, symbols: str) -> str:
        """The text on one line, its line breaks written as `<n>`, which is how Pegasus writes them.

        fairseq's commands print an example a line, so a line break inside one would tear it apart.
        """
        return on_one_line(self.decode(symbols))

    def is_beginning_of_word(self, symbol: str) -> bool:
        """Whether a word starts here (fairseq's denoising task masks whole words)."""
        return self.tokenizer.starts_word(token_from_symbol(symbol))


class LineBPE:
    """A bpe for fairseq's commands, which print an example a line: line breaks in it come out as `<n>`.

    Args:
        tokenize: the tokens of what is read of a text; of one that is far longer, not all need be among them.
    """

    def __init__(self, bpe: LSGBPE, tokenize: Callable[[str], Iterable[str]] | None = None) -> None:
        self.bpe, self.tokenize = bpe, tokenize or bpe.tokenizer.encode
        self.decode = bpe.decode_to_line

    def encode(self, text: str) -> str:
        """The symbols of a text, without `<s>` and `</s>`."""
        return " ".join(map(symbol_from_token, self.tokenize(text)))


def train_tokenizer(texts: Iterable[str], vocab_size: int, folder: str | Path) -> DocumentTokenizer:
    """Train byte-level BPE with BART's special tokens and write the files that Hugging Face's BART tokenizer reads.

    The vocabulary has at most vocab_size entries: `<s> <pad> </s> <unk>`, the 256 bytes, merges, `<mask>` last.

    Raises:
        LSGError: vocab_size is below 261, the size without any merge, or above two million.
    """
    check_number("train_tokenizer", vocab_size, called="the size of a byte-level vocabulary")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,
        special_tokens=list(BART_SPECIALS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(map(_in_short_words, texts), trainer)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _write_bart_files(backend, folder)
    return load_tokenizer(folder)


def _in_short_words(text: str) -> str:
    """The text for counting pairs: what has no space for a thousand characters gets some, as time grows squared."""
    return LONG_WORD.sub(lambda match: f"{match.group()} ", replace_surrogates(text))


def _write_bart_files(backend: Tokenizer, folder: Path) -> None:
    """vocab.json, merges.txt, their settings, and tokenizer.json made from exactly these."""
    vocab = {**backend.get_vocab(), BART_MASK: backend.get_vocab_size()}
    merges = json.loads(backend.to_str())["model"]["merges"]
    pairs = [pair if isinstance(pair, str) else " ".join(pair) for pair in merges]
    specials = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), BART_SPECIALS, strict=True))
    specials |= {"cls_token": "<s>", "sep_token": "</s>"}
    mask = {"content": BART_MASK, "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
    config = {**specials, "mask_token": BART_MASK, "tokenizer_class": "BartTokenizer", "add_prefix_space": False}
    _write_json(folder / VOCAB_FILE, dict(sorted(vocab.items(), key=lambda item: item[1])))
    (folder / MERGES_FILE).write_text("\n".join(["#version: 0.2", *pairs]) + "\n", encoding="utf-8")
    _write_json(folder / "special_tokens_map.json", {**specials, "mask_token": mask})
    _write_json(folder / "tokenizer_config.json", config)
    complete = byte_level_backend(folder, config)
    complete.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    complete.save(str(folder / JSON_FILE))


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
