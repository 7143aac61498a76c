"""The files of a split: texts of one run, and beside them queries, languages and preprocess.json."""

from __future__ import annotations

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

SEPARATOR = ("</s>",)


def queries_file(folder: Path, split: str) -> Path:
    """Where the lengths of a split's queries are."""
    return folder / f"{split}.source-target.queries"


def write_queries(path: Path, lengths: Iterable[int]) -> None:
    """Write how many tokens each row's query has."""
    path.write_text("".join(f"{length}\n" for length in lengths), encoding="utf-8")


def read_queries(folder: Path, split: str, count: int) -> list[int] | None:
    """How many tokens the query of each of `count` rows has; None where the split has no queries.

    Raises:
        LSGError: the file is damaged or has another number of lines.
    """
    path = queries_file(folder, split)
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if len(lines) != count or not all(line.isdecimal() and line.isascii() for line in lines):
        raise LSGError(
            f"{path} must have a number of tokens in each of {count} lines, one a document of {split}, and has "
            f"{len(lines)} lines: make the data again (lsg-preprocess --query-field)"
        )
    return [int(line) for line in lines]


def lead_of(query_length: int) -> int:
    """How many tokens are in front of a document for a query of so many: its own, and the separator."""
    return query_length + len(SEPARATOR) if query_length else 0


def check_room(leads: Iterable[int], room: int, where: str) -> None:
    """Refuse queries that leave no room for a document.

    Raises:
        LSGError: there is one.
    """
    for number, lead in enumerate(leads, start=1):
        if lead >= room:
            raise LSGError(
                f"{where} {number} has a query of {lead - len(SEPARATOR)} tokens, and {room} tokens of text are read, "
                "so that none of the document would be: shorten the query, or raise --max-source-positions"
            )


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
    pairs = [tuple(line.split()) for line in path.read_text(encoding="utf-8").splitlines()]
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


# fairseq/data/indexed_dataset.py: magic, version (uint64), code of the type (uint8), number of items (uint64); then
# their lengths (int32) and the bytes that each begins at (int64).
MAGIC = MMapIndexedDataset.Index._HDR_MAGIC
HEADER = struct.Struct("<9sQBQ")


def check_pairs(folder: Path, split: str) -> None:
    """See that the files of a split belong together; files of other formats are fairseq's business.

    Raises:
        LSGError: they are of two runs, or one is cut.
    """
    if half_moved(folder):
        raise LSGError(
            f"lsg-preprocess was killed while it put its files into {folder}: run it again with --out {folder}, which "
            "finishes that first"
        )
    counts = {path.name: _check_pair(path) for path in sorted(folder.glob(f"{split}.*-*.*.idx"))}
    known = {name: count for name, count in counts.items() if count is not None}
    if len(set(known.values())) > 1:
        found = " and ".join(f"{count} examples in {name}" for name, count in known.items())
        raise LSGError(f"{folder} has {found}, which must correspond: preprocess the {split} split again")


def _check_pair(index: Path) -> int | None:
    """The number of items of a pair; None where it is not of the format that lsg-preprocess writes."""
    data = index.with_suffix(".bin")
    with index.open("rb") as file:
        header = file.read(HEADER.size)
        if len(header) < HEADER.size or not header.startswith(MAGIC):
            return None
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


REPORT_FILE = "preprocess.json"


def read_report(folder: Path) -> dict[str, Any]:
    """What is known about the splits in a folder, {} where there is no report.

    Raises:
        LSGError: the file is damaged.
    """
    path = folder / REPORT_FILE
    if not path.is_file():
        return {}
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(report["splits"], dict) and isinstance(report["tokenizer"], dict):
            return report
        reason = "splits and tokenizer must be objects"
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = f"{type(error).__name__}: {error}"
    raise LSGError(f"{path} is damaged ({reason}): remove it, and it is written anew, with that run's splits alone")


def part_of_split(folder: Path, split: str) -> str | None:
    """The part of long documents that a split was made for (lsg-preprocess --keep-part), None where it says nothing.

    Raises:
        LSGError: the report is damaged.
    """
    entry = read_report(folder).get("splits", {}).get(split)
    part = entry.get("keep_part") if isinstance(entry, dict) else None
    check_part(part, f"{folder / REPORT_FILE}: keep_part of {split}")
    return part
