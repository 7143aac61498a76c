"""WordPiece (Wu et al. 2016; BERT, arXiv 1810.04805) from vocab.txt, and what BERT's settings say about its texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import WORDPIECE_FILE, add_tokens, special_tokens
from lsg_fairseq.tokenizers.settings import added_tokens, clear_error

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
