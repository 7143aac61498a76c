"""The languages of a split's examples, which stand in a file beside its binarized texts, a line each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import DocumentTokenizer
from lsg_fairseq.tokenizers.languages import language_symbol


def languages_file(folder: Path, split: str) -> Path:
    """Where the languages of a split are."""
    return folder / f"{split}.source-target.languages"


def write_languages(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write the languages of each example's document and summary."""
    path.write_text("".join(f"{source} {target}\n" for source, target in pairs), encoding="utf-8")


def read_languages(folder: Path, split: str, count: int) -> list[tuple[str, str]] | None:
    """The languages of document and summary of `count` examples; None where the split has one language.

    Raises:
        LSGError: the file is damaged or has another number of lines.
    """
    path = languages_file(folder, split)
    if not path.is_file():
        return None
    pairs = [tuple(line.split()) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    if len(pairs) != count or any(len(pair) != 2 for pair in pairs):
        raise LSGError(
            f"{path} must have two language codes in each of {count} lines, one a document of {split}, and has "
            f"{len(pairs)} lines: make the data again (lsg-preprocess --lang-field)"
        )
    return pairs


def check_codes(tokenizer: DocumentTokenizer, codes: Mapping[str, str]) -> None:
    """Refuse languages that the tokenizer has no code of.

    Args:
        codes: each language with where it is named.

    Raises:
        LSGError: there is one.
    """
    for code, where in codes.items():
        if language_symbol(code) not in tokenizer.languages:
            known = ", ".join(symbol.strip("[]") for symbol in tokenizer.languages) or "no language codes"
            raise LSGError(f"{code!r} ({where}) is no language of this tokenizer, which has {known}: name one of them")
