"""DocumentTokenizer, the base of all tokenizers: text <-> token strings, special tokens in fairseq's names, files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.languages import CODES_50, language_symbol
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat
from lsg_fairseq.weights.limits import check_file

# --- embedding rows without a token: tables padded to a multiple of 8 or 64, or published with more rows than tokens.
# --- They take filler symbols in the vocabulary, so that every row is kept; no text has them, and decoding drops them.

# Beside a converted model's tokenizer files, none of which says how many rows the model has.
ROWS_FILE, ROWS_FIELD = "embedding_rows.json", "embedding_rows"
# A Hugging Face folder's own statement.
CONFIG_FILE, CONFIG_FIELD = "config.json", "vocab_size"
FILLER = re.compile(r"<no_token_\d+>")
# dbmdz' Italian BERTs have 1,000 rows more than 31,102 tokens; with far more the tokenizer is another model's.
FEW_ROWS, FEW_PARTS = 64, 10


def filler(index: int) -> str:
    """The symbol of the embedding row `index`."""
    return f"<no_token_{index}>"


def are_fillers(rows: int, tokens: int) -> bool:
    """Whether a model with this tokenizer can have so many embedding rows."""
    return tokens <= rows <= tokens + max(FEW_ROWS, tokens // FEW_PARTS)


def check_gaps(largest_id: int, tokens: int) -> None:
    """Refuse ids with more gaps than tokens: every gap takes a row, and one wrong id can ask for a billion.

    Raises:
        LSGError: there are so many.
    """
    if largest_id >= 2 * tokens + FEW_ROWS:
        raise LSGError(
            f"the largest id of the vocabulary's {tokens} tokens is {largest_id}: the ids are damaged, or most of the "
            "tokens are missing; download the tokenizer again"
        )


def stated_rows(folder: Path, tokens: int) -> int:
    """The number of embedding rows that a tokenizer folder, or the Hugging Face model in it, states; else `tokens`.

    Raises:
        LSGError: ROWS_FILE is damaged, or states a number that does not go with the tokens.
    """
    own = _stated(folder / ROWS_FILE, ROWS_FIELD)
    if (folder / ROWS_FILE).is_file() and not (type(own) is int and are_fillers(own, tokens)):
        raise LSGError(
            f"{folder / ROWS_FILE} must state {ROWS_FIELD} as an integer from {tokens}, the number of tokens, to "
            f"{tokens + max(FEW_ROWS, tokens // FEW_PARTS)}, not {own!r:.80}: convert the checkpoint again"
        )
    # A checkpoint's own number that does not go with the tokens is a matter for whoever opens the checkpoint.
    candidates = (own, _stated(folder / CONFIG_FILE, CONFIG_FIELD))
    return next((rows for rows in candidates if type(rows) is int and are_fillers(rows, tokens)), tokens)


def save_rows(rows: int, folder: Path) -> None:
    """Write ROWS_FILE."""
    (folder / ROWS_FILE).write_text(json.dumps({ROWS_FIELD: rows}) + "\n", encoding="utf-8")


def _stated(path: Path, field: str) -> object:
    check_file(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return content.get(field) if isinstance(content, dict) else None


# --- tokenizers.

JSON_FILE, VOCAB_FILE, MERGES_FILE, WORDPIECE_FILE = "tokenizer.json", "vocab.json", "merges.txt", "vocab.txt"
SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.model", "sentencepiece.bpe.model")
SETTINGS_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
ALL_FILES = (JSON_FILE, VOCAB_FILE, MERGES_FILE, WORDPIECE_FILE, *SENTENCEPIECE_FILES, *SETTINGS_FILES)

# The roles of special tokens: fairseq's name, the settings that name the token, and BERT's name where none does.
# A sequence starts with cls_token and ends with sep_token in Hugging Face; most models have them equal to bos and eos.
ROLES: dict[str, tuple[str, tuple[str, ...], str]] = {
    "pad": ("<pad>", ("pad_token",), "[PAD]"),
    "bos": ("<s>", ("cls_token", "bos_token"), "[CLS]"),
    "eos": ("</s>", ("sep_token", "eos_token"), "[SEP]"),
    "unk": ("<unk>", ("unk_token",), "[UNK]"),
    "mask": ("<mask>", ("mask_token",), "[MASK]"),
}


class DocumentTokenizer:
    """Text <-> token strings.

    `tokens[i]` is the string of Hugging Face id i, a filler for an embedding row without a token; `special` are those
    that transformers leaves out of texts. `files` are those that it was read from, and `rewritten` the names and
    contents of those that `save` writes anew, as what they said was wrong or said elsewhere.
    `pad`, `bos`, `eos`, `unk` and `mask` are token strings, None where the vocabulary has none.
    """

    sequence_format = SequenceFormat()

    def __init__(self, folder: Path, tokens: list[str], settings: dict[str, Any]) -> None:
        self.tokens = tokens
        self.files = [folder / name for name in ALL_FILES if (folder / name).is_file()]
        self.rewritten: dict[str, str] = {}
        special = special_tokens(tokens, settings)
        self.pad, self.bos, self.eos, self.unk, self.mask = (special[role] for role in ROLES)
        known, fillers = set(tokens), filter(FILLER.fullmatch, tokens)
        self.languages = tuple(symbol for symbol in map(language_symbol, CODES_50) if symbol in known)
        self._silent = {"<s>", "</s>", "<pad>", self.pad, self.bos, self.eos, *fillers, *self.languages}
        self.sequence_format = self._settled(settings)
        self.special = {name for name in special.values() if name} | self._silent | listed_specials(settings)
        self._has_fillers = False

    def fill_rows(self, rows: int) -> None:
        """Extend the tokens to the number of embedding rows of a model: rows without a token take fillers."""
        fillers = [filler(index) for index in range(len(self.tokens), rows)]
        self.tokens = [*self.tokens, *fillers]
        self._silent |= set(fillers)
        self.special |= set(fillers)
        self._has_fillers |= bool(fillers)

    def encode(self, text: str) -> list[str]:
        """The token strings of the text, nothing added at its ends; lone surrogates count as U+FFFD."""
        return self._split(replace_surrogates(text))

    def decode(self, tokens: Iterable[str]) -> str:
        """The text of token strings, without `<s>`, `</s>`, `<pad>` and language codes."""
        return self._join([token for token in tokens if token not in self._silent])

    def decode_plain(self, tokens: Iterable[str]) -> str:
        """The text without any special token, as transformers' skip_special_tokens gives it: what a summary is."""
        return self.decode(token for token in tokens if token not in self.special)

    def save(self, folder: Path, with_rows: bool = True) -> None:
        """Write the files of the tokenizer into a folder, from which load_tokenizer reads the same again.

        Args:
            with_rows: write down how many embedding rows there are, if some have no token; a model's own config.json
                says so, too.
        """
        for path in self.files:
            shutil.copyfile(path, folder / path.name)
        for name, content in self.rewritten.items():
            (folder / name).write_text(content, encoding="utf-8")
        if with_rows and self._has_fillers:
            save_rows(len(self.tokens), folder)

    def starts_word(self, token: str) -> bool:
        """Whether a word starts with this token."""
        return token.startswith(("Ġ", "▁")) or token == self.mask

    def _settled(self, settings: dict[str, Any]) -> SequenceFormat:
        """The sequence format with the languages that the settings name, as far as the tokenizer has them."""
        if not self.sequence_format.languages:
            return self.sequence_format
        named = [settings.get(name) or "" for name in ("src_lang", "tgt_lang")]
        return self.sequence_format.speaking(*(c if language_symbol(c) in self.languages else "" for c in named))

    def _split(self, text: str) -> list[str]:
        raise NotImplementedError

    def _join(self, tokens: list[str]) -> str:
        raise NotImplementedError


def special_tokens(tokens: Iterable[str], settings: dict[str, Any]) -> dict[str, str | None]:
    """Role -> token string: as the settings say, else by its usual name; None where the vocabulary has neither."""
    known = set(tokens)
    candidates = {
        role: (*(settings.get(name) for name in names), fairseq, bert) for role, (fairseq, names, bert) in ROLES.items()
    }
    return {role: next((t for t in found if t in known), None) for role, found in candidates.items()}


def listed_specials(settings: dict[str, Any]) -> set[str]:
    """The special tokens without a role that the settings list; transformers 5 names some, as an object."""
    listed: set[str] = set()
    for field in ("additional_special_tokens", "extra_special_tokens"):
        stated = settings.get(field) or []
        for entry in stated.values() if isinstance(stated, dict) else stated if isinstance(stated, list) else []:
            name = entry.get("content") if isinstance(entry, dict) else entry
            listed |= {name} if isinstance(name, str) else set()
    return listed


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for lone surrogates: JSON lets them in, but they have no UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def add_tokens(
    backend: Tokenizer, special: Mapping[str, Mapping[str, Any]], added: Mapping[str, Mapping[str, Any]]
) -> None:
    """Add the special tokens of a kind and those of the settings, whose flags win; known ones keep their ids.

    Raises:
        LSGError: a token's stated id is not the next one that the vocabulary leaves free.
    """
    for name in {**special, **added}:
        flags = {**special.get(name, {}), **added.get(name, {})}
        is_special = bool(flags.get("special"))
        spaces = {key: bool(flags.get(key)) for key in ("lstrip", "rstrip", "single_word")}
        token = AddedToken(name, normalized=bool(flags.get("normalized", not is_special)), **spaces)
        (backend.add_special_tokens if is_special else backend.add_tokens)([token])
        index = backend.token_to_id(name)
        if index != flags.get("id", index):
            raise LSGError(
                f"the added token {name!r} is to have id {flags['id']}, and the vocabulary gives it {index}: correct "
                "added_tokens.json or tokenizer_config.json, or give a tokenizer.json"
            )


# --- texts in files and logs that hold a text a line.

# What readers take for the end of a line: everything that str.splitlines does.
LINE_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_BREAK_AND_SPACES = re.compile(rf"\s*[{LINE_BREAKS}]\s*")


def on_one_line(text: str) -> str:
    """The text on one line, its line breaks written as `<n>`, which is how Pegasus writes them."""
    return _BREAK_AND_SPACES.sub(" <n> ", text).strip()
