"""Hugging Face tokenizer files -> DocumentTokenizer, read by `tokenizers` and `sentencepiece` themselves.

transformers is kept out on purpose: its version 5 swaps Pegasus' ids 2 and 3 when it has nothing but spiece.model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from lsg_fairseq.data.sequence_format import PEGASUS_FORMAT, SequenceFormat
from lsg_fairseq.modules.lsg_config import LSGError

JSON_FILE, VOCAB_FILE, MERGES_FILE = "tokenizer.json", "vocab.json", "merges.txt"
SENTENCEPIECE_FILES = ("spiece.model", "sentencepiece.model")
SETTINGS_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
ALL_FILES = (JSON_FILE, VOCAB_FILE, MERGES_FILE, *SENTENCEPIECE_FILES, *SETTINGS_FILES)

# Names and order that BART's vocabulary starts with; <mask> is its last entry.
BART_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
BART_MASK = "<mask>"

# Pegasus puts 103 entries of its own in front of the pieces: Hugging Face id = piece + 103.
PEGASUS_OFFSET = 103
PEGASUS_SPECIALS = ("<pad>", "</s>", "<mask_1>", "<mask_2>", *(f"<unk_{i}>" for i in range(2, PEGASUS_OFFSET)), "<unk>")


class DocumentTokenizer:
    """Text <-> token strings.

    `tokens[i]` is the string of Hugging Face id i; `files` are what has to be copied along with the tokenizer;
    `pad`, `bos`, `eos`, `unk` and `mask` are token strings, None where the vocabulary has none.
    """

    sequence_format = SequenceFormat()

    def __init__(self, folder: Path, tokens: list[str], settings: dict[str, Any]) -> None:
        self.tokens = tokens
        self.files = [folder / name for name in ALL_FILES if (folder / name).is_file()]
        known = set(tokens)
        named = {key: settings.get(f"{key}_token") for key in ("pad", "bos", "eos", "unk", "mask")}
        usual = {"pad": "<pad>", "bos": "<s>", "eos": "</s>", "unk": "<unk>", "mask": BART_MASK}
        special = {key: name if name in known else usual[key] for key, name in named.items()}
        self.pad, self.bos, self.eos, self.unk, self.mask = (t if t in known else None for t in special.values())
        self._silent = {"<s>", "</s>", "<pad>", self.pad, self.bos, self.eos}

    def encode(self, text: str) -> list[str]:
        """The token strings of the text, nothing added at its ends; lone surrogates count as U+FFFD."""
        return self._split(replace_surrogates(text))

    def decode(self, tokens: Iterable[str]) -> str:
        """The text of token strings, without `<s>`, `</s>` and `<pad>`."""
        return self._join([token for token in tokens if token not in self._silent])

    def _split(self, text: str) -> list[str]:
        raise NotImplementedError

    def _join(self, tokens: list[str]) -> str:
        raise NotImplementedError


class JsonTokenizer(DocumentTokenizer):
    """What tokenizer.json holds: byte-level BPE (BART), or any other model of the tokenizers library."""

    def __init__(self, folder: Path, backend: Tokenizer, settings: dict[str, Any]) -> None:
        # A saved limit or padding would cut documents in silence.
        backend.no_truncation()
        backend.no_padding()
        if "add_prefix_space" in settings and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
            # tokenizer_config.json overrides tokenizer.json in Hugging Face's byte-level tokenizers.
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings["add_prefix_space"]))
        by_id = {index: token for token, index in backend.get_vocab(with_added_tokens=True).items()}
        # An id without a token keeps its place, so that the rows after it stay where they are.
        tokens = [by_id.get(i, f"<no_token_{i}>") for i in range(max(by_id) + 1)]
        super().__init__(folder, tokens, settings)
        self.backend = backend
        if settings.get("tokenizer_class", "").startswith("Pegasus"):
            self.sequence_format = PEGASUS_FORMAT

    def _split(self, text: str) -> list[str]:
        # By ids: the library's own token strings include the space that <mask> takes along.
        return [self.tokens[i] for i in self.backend.encode(text, add_special_tokens=False).ids]

    def _join(self, tokens: list[str]) -> str:
        return self.backend.decoder.decode(tokens) if self.backend.decoder else " ".join(tokens)


class SentencePieceTokenizer(DocumentTokenizer):
    """A sentencepiece model, with Pegasus' 103 extra entries or as it is.

    It is Pegasus' if tokenizer_config.json names a Pegasus class; without a class, if the model has Pegasus' own
    layout: `<pad>` 0, `</s>` 1, unknown 2, and no beginning of sentence. Special tokens written out in a text count
    as such for Pegasus only, as in Hugging Face; each stretch between two of them is encoded on its own.
    """

    def __init__(self, folder: Path, path: Path, settings: dict[str, Any]) -> None:
        with _clear_error(path, "a sentencepiece model"):
            self.processor = sentencepiece.SentencePieceProcessor(model_file=str(path))
        self.pieces = [self.processor.id_to_piece(i) for i in range(self.processor.get_piece_size())]
        specials: Sequence[str] = ()
        tokens = list(self.pieces)
        if self._is_pegasus(settings):
            specials, self.sequence_format = PEGASUS_SPECIALS, PEGASUS_FORMAT
            self.pieces[self.processor.unk_id()] = "<unk>"
            tokens = [*specials, *self.pieces[3:]]
        known = set(tokens)
        extra = [token for token in _added_tokens(folder, settings) if token not in known]
        super().__init__(folder, [*tokens, *extra], {"mask_token": "<mask_2>", **settings})
        self._verbatim = {*specials, *extra, self.unk}
        self._pattern = re.compile("|".join(map(re.escape, [*specials, *extra])) or r"(?!)")

    def _is_pegasus(self, settings: dict[str, Any]) -> bool:
        if settings.get("offset", PEGASUS_OFFSET) != PEGASUS_OFFSET:
            raise LSGError(
                f"a Pegasus tokenizer with offset {settings['offset']} is not supported, only {PEGASUS_OFFSET}"
            )
        if settings.get("tokenizer_class"):
            return settings["tokenizer_class"].startswith("Pegasus")
        model = self.processor
        return (model.pad_id(), model.eos_id(), model.unk_id(), model.bos_id()) == (0, 1, 2, -1)

    def _split(self, text: str) -> list[str]:
        tokens, start = [], 0
        for match in self._pattern.finditer(text):
            tokens += [*self._split_plain(text[start : match.start()]), match.group()]
            start = match.end()
        return tokens + self._split_plain(text[start:])

    def _split_plain(self, text: str) -> list[str]:
        return [self.pieces[i] for i in self.processor.encode(text)]

    def _join(self, tokens: list[str]) -> str:
        parts: list[str] = []
        for verbatim, run in groupby(tokens, key=self._verbatim.__contains__):
            pieces = list(run)
            # sentencepiece drops the space in front of a sequence; inside the text it belongs there.
            space = " " if parts and not verbatim and pieces[0].startswith("▁") else ""
            parts.append("".join(pieces) if verbatim else space + self.processor.decode(pieces))
        return "".join(parts)


def replace_surrogates(text: str) -> str:
    """The text with U+FFFD for lone surrogates: JSON lets them in, but they have no UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def has_tokenizer(folder: str | Path) -> bool:
    """Whether the folder has the files of a tokenizer that load_tokenizer can read."""
    folder = Path(folder)
    sufficient = ((JSON_FILE,), (VOCAB_FILE, MERGES_FILE), *((name,) for name in SENTENCEPIECE_FILES))
    return any(all((folder / name).is_file() for name in names) for names in sufficient)


def load_tokenizer(folder: str | Path) -> DocumentTokenizer:
    """Read a tokenizer folder. A sentencepiece model wins over a tokenizer.json that was made from it (Unigram).

    Raises:
        LSGError: the folder or the files are missing or cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise LSGError(f"the tokenizer folder {folder} does not exist")
    if not has_tokenizer(folder):
        wanted = f"{JSON_FILE}, {VOCAB_FILE} with {MERGES_FILE}, or {SENTENCEPIECE_FILES[0]}"
        raise LSGError(f"{folder} has no tokenizer: none of {wanted} is there")
    settings = _read_settings(folder)
    piece_files = [folder / name for name in SENTENCEPIECE_FILES if (folder / name).is_file()]
    if not (folder / JSON_FILE).is_file():
        if piece_files:
            return SentencePieceTokenizer(folder, piece_files[0], settings)
        return JsonTokenizer(folder, byte_level_backend(folder, settings), settings)
    with _clear_error(folder / JSON_FILE, "a tokenizer of the tokenizers library"):
        backend = Tokenizer.from_file(str(folder / JSON_FILE))
    if piece_files and isinstance(backend.model, models.Unigram):
        return SentencePieceTokenizer(folder, piece_files[0], settings)
    return JsonTokenizer(folder, backend, settings)


def byte_level_backend(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    """Byte-level BPE from vocab.json and merges.txt; BART's special tokens unless the settings describe their own."""
    vocab, merges = folder / VOCAB_FILE, folder / MERGES_FILE
    with _clear_error(vocab, f"a byte-level vocabulary together with {merges.name}"):
        backend = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space", False)))
    backend.decoder = decoders.ByteLevel()
    # BART's <mask> takes the space in front of it along.
    names = [name for name in (*BART_SPECIALS, BART_MASK) if backend.token_to_id(name) is not None]
    described = {name: {"lstrip": name == BART_MASK, "special": True} for name in names}
    for name, flags in _added_tokens(folder, settings).items():
        if flags or name not in described:
            described[name] = flags
    for name, flags in described.items():
        token = AddedToken(name, **{key: bool(flags.get(key)) for key in ("lstrip", "rstrip", "single_word")})
        (backend.add_special_tokens if flags.get("special") else backend.add_tokens)([token])
    return backend


def _added_tokens(folder: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Token string -> flags of the tokens that the settings add, in the order of their ids."""
    path = folder / "added_tokens.json"
    names = _read_json(path) if path.is_file() else {}
    added: dict[int, dict[str, Any]] = {index: {"content": name} for name, index in names.items()}
    added |= {int(index): entry for index, entry in settings.get("added_tokens_decoder", {}).items()}
    entries = [added[index] for index in sorted(added)]
    return {e["content"]: {key: value for key, value in e.items() if key != "content"} for e in entries}


def _read_settings(folder: Path) -> dict[str, Any]:
    """tokenizer_config.json over special_tokens_map.json; every *_token as a plain string."""
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            settings |= _read_json(folder / name)
    return {k: v["content"] if k.endswith("_token") and isinstance(v, dict) else v for k, v in settings.items()}


def _read_json(path: Path) -> dict[str, Any]:
    with _clear_error(path, "a JSON object"):
        return dict(json.loads(path.read_text(encoding="utf-8")))


@contextmanager
def _clear_error(path: Path, wanted: str) -> Iterator[None]:
    """Turn whatever a reader raises (tokenizers raises bare Exception) into one sentence."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise LSGError(f"{path} cannot be read as {wanted}: {reason}") from error
