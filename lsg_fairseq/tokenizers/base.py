"""What every tokenizer is here: text <-> token strings, the special tokens in fairseq's names, and its files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.languages import CODES_50, language_symbol
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat

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
# Settings that are read here; transformers writes null, too, where nothing is stated.
TOKEN_NAMES = {name for _, names, _ in ROLES.values() for name in names}
SETTING_TYPES: dict[str, type] = {
    "tokenizer_class": str,
    "added_tokens_decoder": dict,
    "offset": int,
    **dict.fromkeys(("src_lang", "tgt_lang"), str),
    **dict.fromkeys(("add_prefix_space", "do_lower_case", "strip_accents", "tokenize_chinese_chars"), bool),
}


class DocumentTokenizer:
    """Text <-> token strings.

    `tokens[i]` is the string of Hugging Face id i; `files` are what has to be copied along with the tokenizer;
    `pad`, `bos`, `eos`, `unk` and `mask` are token strings, None where the vocabulary has none; `languages` are those
    of its language codes.
    """

    sequence_format = SequenceFormat()

    def __init__(self, folder: Path, tokens: list[str], settings: dict[str, Any]) -> None:
        self.tokens = tokens
        self.files = [folder / name for name in ALL_FILES if (folder / name).is_file()]
        special = special_tokens(tokens, settings)
        self.pad, self.bos, self.eos, self.unk, self.mask = (special[role] for role in ROLES)
        known = set(tokens)
        self.languages = tuple(symbol for symbol in map(language_symbol, CODES_50) if symbol in known)
        self._silent = {"<s>", "</s>", "<pad>", self.pad, self.bos, self.eos, *self.languages}
        self.sequence_format = self._settled(settings)

    def encode(self, text: str) -> list[str]:
        """The token strings of the text, nothing added at its ends; lone surrogates count as U+FFFD."""
        return self._split(replace_surrogates(text))

    def decode(self, tokens: Iterable[str]) -> str:
        """The text of token strings, without `<s>`, `</s>`, `<pad>` and language codes."""
        return self._join([token for token in tokens if token not in self._silent])

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


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for lone surrogates: JSON lets them in, but they have no UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def added_tokens(folder: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Token string -> flags of the tokens that the settings add, in the order of their ids."""
    path = folder / "added_tokens.json"
    names = _read_json(path) if path.is_file() else {}
    _check(path, names, all(type(index) is int for index in names.values()), "token strings with their ids")
    added: dict[int, dict[str, Any]] = {index: {"content": name} for name, index in names.items()}
    added |= {int(index): entry for index, entry in settings.get("added_tokens_decoder", {}).items()}
    entries = [added[index] for index in sorted(added)]
    return {e["content"]: {key: value for key, value in e.items() if key != "content"} for e in entries}


def read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; special tokens as plain strings, null as not stated.

    Raises:
        LSGError: a file is damaged, or a value is of another type than transformers writes.
    """
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            content = _read_json(folder / name)
            # To BERT's normalizer, no strip_accents is an answer of its own.
            stated = {key: value for key, value in content.items() if value is not None or key == "strip_accents"}
            _check_settings(folder / name, stated)
            settings |= stated
    return {k: v["content"] if k in TOKEN_NAMES and isinstance(v, dict) else v for k, v in settings.items()}


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    for name in TOKEN_NAMES & settings.keys():
        value = settings[name]
        text = value.get("content") if isinstance(value, dict) else value
        _check(path, value, isinstance(text, str), f"{name} as a string")
    for name, kind in SETTING_TYPES.items():
        value = settings.get(name)
        _check(path, value, value is None or type(value) is kind, f"{name} as a {kind.__name__}")
    entries = settings.get("added_tokens_decoder", {})
    is_right = all(
        index.isdecimal() and isinstance(entry, dict) and isinstance(entry.get("content"), str)
        for index, entry in entries.items()
    )
    _check(path, entries, is_right, "added_tokens_decoder as ids with objects that have a content")


def _check(path: Path, value: Any, is_right: bool, wanted: str) -> None:
    if not is_right:
        raise LSGError(f"{path} must state {wanted}, not {value!r:.80}: correct it, or download it again")


def _read_json(path: Path) -> dict[str, Any]:
    with clear_error(path, "a JSON object"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
        return content


@contextmanager
def clear_error(path: Path, wanted: str) -> Iterator[None]:
    """Turn whatever a reader raises (tokenizers raises bare Exception) into one sentence."""
    try:
        yield
    except LSGError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise LSGError(f"{path} cannot be read as {wanted}: {reason}") from error
