"""A text in a record, by the name that a user gives: `abstract`, or `paper.abstract` in a record within the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lsg_fairseq.data.one_sentence import shortened
from lsg_fairseq.modules.lsg_config import LSGError

MISSING = object()


def has_field(record: Mapping[str, Any], name: str) -> bool:
    """Whether a record has the field."""
    return _value(record, name) is not MISSING


def text_of(record: Mapping[str, Any], name: str, where: object, which: str) -> str:
    """The text of a field; a list of strings (the sentences or paragraphs of a paper) is joined by line feeds.

    A field of that very name comes before one within another. In a list of records, each one's field is taken.

    Args:
        where: where the record stands, for the error.
        which: the flag that names the field, without its `--` and `-field`.

    Raises:
        LSGError: there is no such field, or it is no text.
    """
    value = _value(record, name)
    if value is MISSING:
        present = shortened(", ".join(map(repr, record))) or "none"
        raise LSGError(
            f"{where}, has no field {name!r}; fields present: {present}: name the right one with --{which}-field"
        )
    strings = [value] if isinstance(value, str) else _strings(value)
    if strings is None:
        kind = "a list with something else" if isinstance(value, list) else type(value).__name__
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
    """The strings of a list, or of the lists in it (sections of paragraphs); None if something else is among them."""
    if isinstance(value, str):
        return [value]
    if not isinstance(value, list) or depth > 2:
        return None
    parts = [_strings(each, depth + 1) for each in value]
    return None if any(part is None for part in parts) else [text for part in parts for text in part]
