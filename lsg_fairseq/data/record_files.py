"""Files of documents in any format: their records one by one, and the texts in a record's fields.

JSON Lines, JSON arrays and Parquet hold records; a text file holds documents. All but Parquet may be gzipped.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from lsg_fairseq.data.json_arrays import array_elements
from lsg_fairseq.data.one_sentence import shortened
from lsg_fairseq.data.parquet_files import count_rows, parquet_rows
from lsg_fairseq.data.text_lines import COMPRESSED, DAMAGED_GZIP, Place, count_lines, damaged_gzip, lines_of, open_bytes
from lsg_fairseq.modules.lsg_config import LSGError

TEXT, LINES, JSON, PARQUET = "text", "JSON Lines", "JSON", "Parquet"
KINDS = {".txt": TEXT, ".jsonl": LINES, ".ndjson": LINES, ".json": JSON, ".parquet": PARQUET}
FORMATS = "JSON Lines (.jsonl), a JSON array (.json), either also as .gz, or Parquet (.parquet)"


def kind_of(path: Path, otherwise: str) -> str:
    """The format of a file (TEXT, LINES, JSON or PARQUET) by its suffix; `otherwise` if the suffix is unknown."""
    return _known_kind(path) or otherwise


def is_known(path: Path) -> bool:
    """Whether the suffix of a file is one of KINDS."""
    return _known_kind(path) is not None


def read_records(
    path: Path, kind: str, fields: Collection[str] | None = None
) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the records of a file with their places; blank lines are skipped.

    Args:
        kind: LINES, JSON (an array, or else JSON Lines) or PARQUET.
        fields: the fields that are needed; Parquet files are not read beyond their columns. None: all.

    Raises:
        LSGError: the file is missing, damaged or not UTF-8, or an item in it is not a record.
    """
    if kind == PARQUET:
        for number, row in parquet_rows(path, fields):
            yield Place(str(path), number, "row"), row
        return
    with open_bytes(path) as file:
        if kind == JSON and _is_array(file, str(path)):
            for number, element in array_elements(file, str(path)):
                place = Place(str(path), number, "object")
                yield place, _as_record(element, place, "element of the array")
        else:
            yield from records_of(file, str(path))


def records_of(file: BinaryIO, name: str) -> Iterator[tuple[Place, dict[str, Any]]]:
    """Yield the records of an open file or stream of JSON Lines; raises as read_records."""
    for number, line in lines_of(file, name):
        if not line:
            continue
        place = Place(name, number)
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise LSGError(f"{place}, is not valid JSON ({error}): each line must be a JSON object") from error
        yield place, _as_record(value, place, "line")


def count_records(path: Path, kind: str) -> int | None:
    """The number of records or lines in a file; None for a JSON array, which is not parsed. Raises as read_records."""
    if kind == PARQUET:
        return count_rows(path)
    if kind == JSON:
        with open_bytes(path) as file:
            if _is_array(file, str(path)):
                return None
    return count_lines(path, without_blank=kind != TEXT)


def _known_kind(path: Path) -> str | None:
    kind = KINDS.get(path.with_suffix("").suffix if path.suffix == COMPRESSED else path.suffix)
    return None if kind == PARQUET and path.suffix == COMPRESSED else kind


def _is_array(file: BinaryIO, name: str) -> bool:
    try:
        return file.peek(1).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")
    except DAMAGED_GZIP as error:
        raise damaged_gzip(name, "byte 0", error) from error


def _as_record(value: Any, place: Place, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise LSGError(f"{place}, is a JSON {type(value).__name__}: each {what} must be a JSON object")
    return value


MISSING = object()


def has_field(record: Mapping[str, Any], name: str) -> bool:
    """Whether a record has the field; `a.b` is the field b of the record a."""
    return _value(record, name) is not MISSING


def text_of(record: Mapping[str, Any], name: str | None, where: object, which: str) -> str:
    """The text of a field; a list of strings (the sentences or paragraphs of a paper) is joined by line feeds.

    `paper.abstract` is a field of that name, else the field `abstract` of the record `paper`, or of each record in the
    list `paper`.

    Args:
        name: None for an optional field that the user did not name; the text is "" then.
        where: the record's place, for the error.
        which: the flag that names the field, without its `--` and `-field`.

    Raises:
        LSGError: there is no such field, or it is not text.
    """
    if name is None:
        return ""
    value = _value(record, name)
    if value is MISSING:
        present = shortened(", ".join(map(repr, record))) or "none"
        raise LSGError(
            f"{where}, has no field {name!r}; fields present: {present}: give the right one with --{which}-field"
        )
    strings = [value] if isinstance(value, str) else _strings(value)
    if strings is None:
        kind = "a list with other values" if isinstance(value, list) else type(value).__name__
        raise LSGError(f"{where}: the field {name!r} must be a string, not {kind} (a list of strings is joined)")
    return "\n".join(strings)


def _value(record: Any, name: str) -> Any:
    if isinstance(record, list):
        found = [_value(each, name) for each in record]
        return MISSING if not found or any(value is MISSING for value in found) else found
    if not isinstance(record, Mapping):
        return MISSING
    if name in record:
        return record[name]
    for place in reversed([i for i, character in enumerate(name) if character == "."]):
        found = _value(record.get(name[:place]), name[place + 1 :])
        if found is not MISSING:
            return found
    return MISSING


def _strings(value: Any, depth: int = 0) -> list[str] | None:
    """The strings of a list, and of the lists in it (sections of paragraphs); None if it has other values."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or depth > 2:
        return None
    parts = [_strings(each, depth + 1) for each in value]
    return None if any(part is None for part in parts) else [text for part in parts for text in part]
