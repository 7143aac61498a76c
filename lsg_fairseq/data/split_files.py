"""The files of a split: binarized texts, and beside them the languages, query lengths and preprocess.json."""

from __future__ import annotations

import glob
import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset, _code_to_dtype

from lsg_fairseq.data.kept_part import check_part
from lsg_fairseq.data.output_folder import half_moved
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.base import DocumentTokenizer
from lsg_fairseq.tokenizers.languages import language_symbol
from lsg_fairseq.weights.limits import check_file

# Between a query and its document.
SEPARATOR = ("</s>",)
REPORT_FILE = "preprocess.json"
# fairseq/data/indexed_dataset.py: magic, version (uint64), code of the dtype (uint8), number of items (uint64); then
# the length (int32) of each item and the byte at which it begins (int64).
MAGIC = MMapIndexedDataset.Index._HDR_MAGIC
HEADER = struct.Struct("<9sQBQ")


# --- queries and languages: a text file with one line per example.


def queries_file(folder: Path, split: str) -> Path:
    """The file with the query lengths of a split: one number of tokens per example, 0 for no query.

    The row of a document with a query is: the query's tokens, `</s>`, the document's tokens, `</s>`; this is the pair
    form of every family that summarises (`encode(query, document)` of torch.hub). The query comes right after what the
    family puts in front of a source (`<s>`, a language code; SequenceFormat.num_front), and is never cut.
    """
    return folder / f"{split}.source-target.queries"


def write_queries(path: Path, lengths: Iterable[int]) -> None:
    """Write the number of tokens in each example's query."""
    path.write_text("".join(f"{length}\n" for length in lengths), encoding="utf-8")


def read_queries(folder: Path, split: str, count: int) -> list[int] | None:
    """The number of tokens in the query of each of `count` examples; None for a split without queries.

    Raises:
        LSGError: the file is damaged, or does not have `count` lines.
    """
    lines = _lines_of(queries_file(folder, split))
    if lines is None:
        return None
    if len(lines) != count or not all(line.isdecimal() and line.isascii() for line in lines):
        raise LSGError(
            f"{queries_file(folder, split)} must have one number of tokens in each of {count} lines, one per document "
            f"of {split}, and has {len(lines)} lines: preprocess the split again (lsg-preprocess --query-field)"
        )
    return [int(line) for line in lines]


def lead_of(query_length: int) -> int:
    """The number of tokens in front of a document: those of its query and the separator, or 0 without a query."""
    return query_length + len(SEPARATOR) if query_length else 0


def check_room(leads: Iterable[int], room: int, where: str) -> None:
    """Refuse queries that leave no room for the document behind them.

    Args:
        leads: the number of tokens in front of each document.
        room: the number of tokens that are read of query and document together.
        where: the name of a document in the error, which adds its number.

    Raises:
        LSGError: a query is too long.
    """
    for number, lead in enumerate(leads, start=1):
        if lead >= room:
            raise LSGError(
                f"{where} {number} has a query of {lead - len(SEPARATOR)} tokens, but the model reads only {room} "
                "tokens of text, so nothing of the document would be read: shorten it, or raise --max-source-positions"
            )


def languages_file(folder: Path, split: str) -> Path:
    """The file with the languages of a split: one line per example, the document's code and the summary's."""
    return folder / f"{split}.source-target.languages"


def write_languages(path: Path, pairs: Iterable[tuple[str, str]]) -> None:
    """Write the languages of each example's document and summary."""
    path.write_text("".join(f"{source} {target}\n" for source, target in pairs), encoding="utf-8")


def read_languages(folder: Path, split: str, count: int) -> list[tuple[str, str]] | None:
    """The languages of document and summary of each of `count` examples; None for a split without a file of languages.

    Raises:
        LSGError: the file is damaged, or does not have `count` lines.
    """
    lines = _lines_of(languages_file(folder, split))
    if lines is None:
        return None
    pairs = [tuple(line.split()) for line in lines]
    if len(pairs) != count or any(len(pair) != 2 for pair in pairs):
        raise LSGError(
            f"{languages_file(folder, split)} must have two language codes in each of {count} lines, one per document "
            f"of {split}, and has {len(pairs)} lines: preprocess the split again (lsg-preprocess --lang-field)"
        )
    return pairs


def _lines_of(path: Path) -> list[str] | None:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else None


def check_codes(tokenizer: DocumentTokenizer, codes: Mapping[str, str]) -> None:
    """Refuse languages for which the tokenizer has no code.

    Args:
        codes: each language, with the place that names it.

    Raises:
        LSGError: a language is unknown.
    """
    for code, where in codes.items():
        if language_symbol(code) not in tokenizer.languages:
            known = ", ".join(symbol.strip("[]") for symbol in tokenizer.languages) or "no language codes"
            raise LSGError(
                f"{code!r} ({where}) is not a language of this tokenizer, which has {known}: use one of them"
            )


# --- the binarized texts.


def check_pairs(folder: Path, split: str) -> None:
    """Check that the .bin and .idx files of a split belong together: fairseq reads files of two runs without an error.

    Files of other formats than lsg-preprocess writes are left to fairseq.

    Raises:
        LSGError: they are of two runs, or one is truncated.
    """
    if half_moved(folder):
        raise LSGError(
            f"lsg-preprocess was killed while it moved its files into {folder}: run it again with --out {folder}, "
            "which finishes that first"
        )
    counts = {path.name: _check_pair(path) for path in sorted(folder.glob(f"{glob.escape(split)}.*-*.*.idx"))}
    known = {name: count for name, count in counts.items() if count is not None}
    if len(set(known.values())) > 1:
        found = " and ".join(f"{count} examples in {name}" for name, count in known.items())
        raise LSGError(f"{folder} has {found}, which must correspond: preprocess the {split} split again")


def _check_pair(index: Path) -> int | None:
    """The number of items in a pair of files; None if they are not of the format that lsg-preprocess writes."""
    data = index.with_suffix(".bin")
    with index.open("rb") as file:
        header = file.read(HEADER.size)
        if not header.startswith(MAGIC):
            return None
        if len(header) < HEADER.size:
            raise LSGError(f"{index} is cut within its beginning: preprocess that split again")
        if not data.is_file():
            raise LSGError(f"{data}, which belongs to {index.name}, is missing: preprocess that split again")
        _, version, code, count = HEADER.unpack(header)
        is_whole = version == 1 and code in _code_to_dtype and index.stat().st_size == HEADER.size + 12 * count
        lengths = np.fromfile(file, dtype="<i4", count=count if is_whole else 0).astype(np.int64)
        starts = np.fromfile(file, dtype="<i8", count=count if is_whole else 0)
    ends = lengths.cumsum() * np.dtype(_code_to_dtype.get(code, np.int8)).itemsize
    in_order = is_whole and not lengths.min(initial=0) < 0 and np.array_equal(starts, np.append([0], ends)[:-1])
    if not in_order or data.stat().st_size != (ends[-1] if count else 0):
        raise LSGError(f"{data} does not belong to {index.name}, or one of them is cut: preprocess that split again")
    return count


# --- preprocess.json.


def read_report(folder: Path) -> dict[str, Any]:
    """The report on the splits of a folder; {} if there is none.

    Raises:
        LSGError: the file is damaged.
    """
    path = folder / REPORT_FILE
    if not path.is_file():
        return {}
    check_file(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(report["splits"], dict) and isinstance(report["tokenizer"], dict):
            return report
        reason = "splits and tokenizer must be objects"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise LSGError(f"{path} is damaged ({reason}): remove it; the next run writes a new one with its own splits only")


def part_of_split(folder: Path, split: str) -> str | None:
    """The part of long documents that a split was made for (lsg-preprocess --keep-part); None if it names none.

    Raises:
        LSGError: the report is damaged, or names an unknown part.
    """
    entry = read_report(folder).get("splits", {}).get(split)
    part = entry.get("keep_part") if isinstance(entry, dict) else None
    check_part(part, f"{folder / REPORT_FILE}: keep_part of {split}")
    return part
