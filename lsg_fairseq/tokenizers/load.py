"""Hugging Face tokenizer files -> DocumentTokenizer, read by `tokenizers` and `sentencepiece` themselves."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import (
    ALL_FILES,
    JSON_FILE,
    MERGES_FILE,
    ROLES,
    SENTENCEPIECE_FILES,
    VOCAB_FILE,
    WORDPIECE_FILE,
    DocumentTokenizer,
    add_tokens,
    check_gaps,
    filler,
    special_tokens,
    stated_rows,
)
from lsg_fairseq.tokenizers.languages import language_symbols
from lsg_fairseq.tokenizers.sentencepiece import BPE_MODEL, SentencePieceTokenizer
from lsg_fairseq.tokenizers.sequence_format import format_of_tokenizer
from lsg_fairseq.tokenizers.settings import (
    CONFIG_FILE,
    SETTINGS_FILE,
    added_tokens,
    clear_error,
    named_kind,
    read_json,
    read_settings,
)
from lsg_fairseq.weights.limits import check_file, check_name

# Names and order that BART's vocabulary starts with; <mask> is its last entry.
BART_SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
BART_MASK = "<mask>"
# Characters that are encoded at once: the library takes 200 bytes for each.
PART = 1 << 17


class JsonTokenizer(DocumentTokenizer):
    """What tokenizer.json holds: byte-level BPE (BART, RoBERTa), WordPiece (BERT), or any other model of its library.

    Special tokens take fairseq's names in `tokens` (`[CLS]` is `<s>`, `[MASK]` is `<mask>`, `en_XX` is `[en_XX]`),
    which its dictionary and tasks look for; in texts they keep their own.
    """

    def __init__(self, folder: Path, backend: Tokenizer, settings: dict[str, Any]) -> None:
        # A saved limit would silently cut documents.
        backend.no_truncation()
        backend.no_padding()
        if "add_prefix_space" in settings and isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
            # tokenizer_config.json overrides tokenizer.json in Hugging Face's byte-level tokenizers.
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings["add_prefix_space"]))
        apply_settings(backend, settings)
        by_id = {index: token for token, index in backend.get_vocab(with_added_tokens=True).items()}
        check_gaps(max(by_id, default=0), len(by_id))
        # An id without a token keeps its place, so that the rows after it stay where they are.
        tokens = [by_id.get(i, filler(i)) for i in range(max(by_id) + 1)]
        has_own_names = settings.get("tokenizer_class", "").startswith("Pegasus")
        # Pegasus' names are those of its sentencepiece model, whichever file is read.
        renamed = {} if has_own_names else fairseq_names(tokens, settings)
        self.sequence_format = format_of_tokenizer(settings.get("tokenizer_class", ""), tokens)
        renamed |= language_symbols(tokens) if self.sequence_format.languages else {}
        named = {key: renamed.get(t, t) if key.endswith("_token") else t for key, t in settings.items()}
        super().__init__(folder, [renamed.get(t, t) for t in tokens], named)
        self.backend = backend
        added = backend.get_added_tokens_decoder().values()
        self.special |= {renamed.get(token.content, token.content) for token in added if token.special}
        self._own_names = {fairseq: own for own, fairseq in renamed.items()}

    def starts_word(self, token: str) -> bool:
        """Whether a word starts with this token: with WordPiece all do that are not marked as a continuation."""
        if isinstance(self.backend.model, models.WordPiece):
            return not token.startswith(CONTINUATION)
        return super().starts_word(token)

    def _split(self, text: str) -> list[str]:
        # By ids: the library's own token strings include the space that <mask> takes along.
        parts = split_at_spaces(text, PART) if self._splits_at_spaces() else [text]
        encoded = (self.backend.encode(part, add_special_tokens=False).ids for part in parts)
        return [self.tokens[i] for ids in encoded for i in ids]

    def _splits_at_spaces(self) -> bool:
        """Whether a space between two words always starts a token, so that texts can be encoded in parts."""
        is_byte_level = isinstance(self.backend.pre_tokenizer, pre_tokenizers.ByteLevel)
        return is_byte_level or isinstance(self.backend.model, models.WordPiece)

    def _join(self, tokens: list[str]) -> str:
        own = [self._own_names.get(token, token) for token in tokens]
        return self.backend.decoder.decode(own) if self.backend.decoder else " ".join(own)


def split_at_spaces(text: str, size: int) -> Iterator[str]:
    """Parts of at least `size` characters, each but the first starting with a single space between two words."""
    start = 0
    while len(text) - start > 2 * size:
        space = text.find(" ", start + size)
        while 0 < space < len(text) - 1 and (text[space - 1].isspace() or text[space + 1].isspace()):
            space = text.find(" ", space + 1)
        if not 0 < space < len(text) - 1:
            break
        yield text[start:space]
        start = space
    yield text[start:]


def fairseq_names(tokens: list[str], settings: dict[str, Any]) -> dict[str, str]:
    """Special token -> fairseq's name for it, if that differs and is free, and the token has no other role."""
    special, known = special_tokens(tokens, settings), set(tokens)
    uses = Counter(special.values())
    names = {token: ROLES[role][0] for role, token in special.items() if token is not None and uses[token] == 1}
    return {token: name for token, name in names.items() if name not in known}


def has_tokenizer(folder: str | Path) -> bool:
    """Whether the folder has the files of a tokenizer that load_tokenizer can read."""
    folder = Path(folder)
    alone = (JSON_FILE, *SENTENCEPIECE_FILES, WORDPIECE_FILE)
    sufficient = ((VOCAB_FILE, MERGES_FILE), *((name,) for name in alone))
    return any(all((folder / name).is_file() for name in names) for names in sufficient)


def load_tokenizer(folder: str | Path, config: Mapping[str, Any] | None = None) -> DocumentTokenizer:
    """Read a tokenizer folder: raw Hugging Face files, or what a tokenizer's `save` wrote.

    A sentencepiece model wins over a tokenizer.json that was made from it (Unigram), but XLM-R's and CamemBERT's, whose
    folders often do not say which of the two they are. transformers itself is not used: what it makes of a
    sentencepiece model depends on its version and differs from sentencepiece (benchmarks/tokenizer_parity.py).

    Args:
        config: config.json of the checkpoint, for a folder that has none and does not name the tokenizer's class.

    Raises:
        LSGError: the folder or the files are missing or cannot be read.
    """
    folder = Path(folder)
    check_name(folder)
    if not folder.is_dir():
        raise LSGError(f"the tokenizer folder {folder} does not exist")
    if not has_tokenizer(folder):
        wanted = f"{WORDPIECE_FILE}, {JSON_FILE}, {VOCAB_FILE} with {MERGES_FILE}, or {SENTENCEPIECE_FILES[0]}"
        raise LSGError(f"{folder} has no tokenizer: none of {wanted} is there")
    for name in ALL_FILES:
        check_file(folder / name)
    with clear_error(folder, "a tokenizer"):
        tokenizer = _load(folder, config)
        tokenizer.fill_rows(stated_rows(folder, len(tokenizer.tokens)))
        return tokenizer


def _load(folder: Path, config: Mapping[str, Any] | None) -> DocumentTokenizer:
    settings = read_settings(folder)
    kind, fields = named_kind(folder, settings, config)
    read = _read_json_folder if (folder / JSON_FILE).is_file() else _read_vocabulary
    tokenizer = read(folder, settings, kind)
    if fields:
        tokenizer.rewritten[CONFIG_FILE] = json.dumps(fields, indent=2) + "\n"
    return tokenizer


def _pieces_of(folder: Path) -> Path | None:
    return next((folder / name for name in SENTENCEPIECE_FILES if (folder / name).is_file()), None)


def _read_vocabulary(folder: Path, settings: dict[str, Any], kind: str) -> DocumentTokenizer:
    """A folder without tokenizer.json."""
    settings, pieces = settings | {"tokenizer_class": kind}, _pieces_of(folder)
    if pieces is not None:
        return SentencePieceTokenizer(folder, pieces, settings)
    build = byte_level_backend if (folder / VOCAB_FILE).is_file() else wordpiece_backend
    return JsonTokenizer(folder, build(folder, settings), settings)


def _read_json_folder(folder: Path, settings: dict[str, Any], kind: str) -> DocumentTokenizer:
    """A folder with tokenizer.json, which says by its vocabulary alone whether it is Pegasus'."""
    with clear_error(folder / JSON_FILE, "a tokenizer of the tokenizers library"):
        backend = Tokenizer.from_file(str(folder / JSON_FILE))
    rewritten = {}
    if is_pegasus(backend):
        kind = PEGASUS_CLASS
        if masks_are_swapped(backend):
            backend = swap_masks(backend)
            rewritten[JSON_FILE] = backend.to_str(pretty=True)
            if "added_tokens_decoder" in settings:
                stated = swap_decoder(read_json(folder / SETTINGS_FILE))
                rewritten[SETTINGS_FILE] = json.dumps(stated, indent=2, ensure_ascii=False) + "\n"
        settings = {"mask_token": PEGASUS_MASK, **settings}
    settings, pieces = settings | {"tokenizer_class": kind or settings.get("tokenizer_class", "")}, _pieces_of(folder)
    if pieces is not None and isinstance(backend.model, models.Unigram) and pieces.name != BPE_MODEL:
        tokenizer: DocumentTokenizer = SentencePieceTokenizer(folder, pieces, settings)
    else:
        tokenizer = JsonTokenizer(folder, backend, settings)
    tokenizer.rewritten |= rewritten
    return tokenizer


# --- byte-level BPE from vocab.json and merges.txt.


def byte_level_backend(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    """Byte-level BPE from vocab.json and merges.txt; BART's special tokens unless the settings describe their own."""
    vocab, merges = folder / VOCAB_FILE, folder / MERGES_FILE
    with clear_error(vocab, f"a byte-level vocabulary together with {merges.name}"):
        backend = Tokenizer(models.BPE.from_file(str(vocab), str(merges)))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(settings.get("add_prefix_space", False)))
    backend.decoder = decoders.ByteLevel()
    # BART's <mask> takes the space in front of it along.
    names = [name for name in (*BART_SPECIALS, BART_MASK) if backend.token_to_id(name) is not None]
    described = {name: {"lstrip": name == BART_MASK, "special": True} for name in names}
    add_tokens(backend, described, added_tokens(folder, settings))
    return backend


# --- Pegasus in tokenizer.json: recognised by its vocabulary, and its two mask tokens under their own ids.

PEGASUS_CLASS, PEGASUS_MASK = "PegasusTokenizer", "<mask_2>"
# What the weights were trained with; transformers 5 (5.23) builds and saves the masks in the other order.
PEGASUS_FRONT = ("<pad>", "</s>", "<mask_1>", "<mask_2>")
SWAPPED = {"<mask_1>": "<mask_2>", "<mask_2>": "<mask_1>"}
SWAPPED_FRONT = tuple(SWAPPED.get(token, token) for token in PEGASUS_FRONT)


def is_pegasus(backend: Tokenizer) -> bool:
    """Whether the vocabulary starts as Pegasus' does, its masks in either order."""
    return isinstance(backend.model, models.Unigram) and _pegasus_front(backend) in (PEGASUS_FRONT, SWAPPED_FRONT)


def masks_are_swapped(backend: Tokenizer) -> bool:
    """Whether `<mask_2>` is id 2 and `<mask_1>` id 3, which is not what the rows of the weights stand for."""
    return _pegasus_front(backend) == SWAPPED_FRONT


def swap_masks(backend: Tokenizer) -> Tokenizer:
    """The same tokenizer with the ids of the two masks exchanged."""
    content = json.loads(backend.to_str())
    for entry in content["added_tokens"]:
        entry["content"] = SWAPPED.get(entry["content"], entry["content"])
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = [[SWAPPED.get(token, token), score] for token, score in vocabulary]
    return Tokenizer.from_str(json.dumps(content, ensure_ascii=False))


def swap_decoder(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with the contents of the masks exchanged in added_tokens_decoder, which states their ids too."""
    decoder = {index: dict(entry) for index, entry in settings.get("added_tokens_decoder", {}).items()}
    for entry in decoder.values():
        entry["content"] = SWAPPED.get(entry.get("content"), entry.get("content"))
    return settings | {"added_tokens_decoder": decoder}


def _pegasus_front(backend: Tokenizer) -> tuple[str | None, ...]:
    return tuple(backend.id_to_token(i) for i in range(len(PEGASUS_FRONT)))


# --- WordPiece (Wu et al. 2016; BERT, arXiv 1810.04805) from vocab.txt, and BERT's settings.

# What a piece inside a word starts with.
CONTINUATION = "##"
# Classes whose vocab.txt is BERT's; others (BertJapanese, Bertweet, ...) split words in ways of their own.
BERT_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer")
# tokenizer_config.json's name, the normalizer's name, and transformers' default.
NORMALIZER_SETTINGS: tuple[tuple[str, str, bool | None], ...] = (
    ("do_lower_case", "lowercase", True),
    ("strip_accents", "strip_accents", None),
    ("tokenize_chinese_chars", "handle_chinese_chars", True),
)


def wordpiece_backend(folder: Path, settings: dict[str, Any]) -> Tokenizer:
    """BERT's tokenizer from vocab.txt, one token a line; its special tokens are never split.

    Raises:
        LSGError: the settings name a class of another kind, or the vocabulary has no token for unknown words.
    """
    path = folder / WORDPIECE_FILE
    named = str(settings.get("tokenizer_class") or BERT_CLASSES[0])
    if named.removesuffix("Fast") not in BERT_CLASSES:
        raise LSGError(f"{path} belongs to a {named}, and without a tokenizer.json only BERT's own kind can be read")
    with clear_error(path, "a WordPiece vocabulary"), path.open(encoding="utf-8") as lines:
        vocabulary = {line.rstrip("\n"): number for number, line in enumerate(lines)}
    special = special_tokens(vocabulary, settings)
    if special["unk"] is None:
        raise LSGError(f"{path} has no {settings.get('unk_token', '[UNK]')}, which stands for unknown words: name it")
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token=special["unk"]))
    values = {name: settings.get(setting, default) for setting, name, default in NORMALIZER_SETTINGS}
    backend.normalizer = normalizers.BertNormalizer(clean_text=True, **values)
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(prefix=CONTINUATION)
    own = {token: {"special": True} for token in special.values() if token is not None}
    add_tokens(backend, own, added_tokens(folder, settings))
    return backend


def apply_settings(backend: Tokenizer, settings: dict[str, Any]) -> None:
    """Let what tokenizer_config.json states about BERT's normalizer win over tokenizer.json, as in transformers."""
    normalizer = backend.normalizer
    if isinstance(normalizer, normalizers.BertNormalizer):
        for setting, name, _ in NORMALIZER_SETTINGS:
            if setting in settings:
                setattr(normalizer, name, settings[setting])
        backend.normalizer = normalizer
