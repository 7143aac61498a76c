"""Debian's package lists: stanzas of `Field: value` lines, a blank line between two of them (deb822(5))."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.modules.lsg_config import LSGError

Stanza = dict[str, list[str]]
NAME, SOURCE, DESCRIPTION = "Package", "Source", "Description-en"


@dataclass(frozen=True)
class Description:
    """What a package says of itself: a line, and the lines of the extended description without their first blank."""

    package: str
    synopsis: str
    extended: tuple[str, ...]


def read_descriptions(path: Path) -> Iterator[Description]:
    """The descriptions in a file Translation-en, in its order; a package of two versions has two.

    Raises:
        LSGError: no such file, or it is no list of descriptions.
    """
    for number, stanza in read_stanzas(path, (NAME, DESCRIPTION)):
        synopsis, *extended = _field(stanza, DESCRIPTION, path, number)
        yield Description(_field(stanza, NAME, path, number)[0], synopsis, tuple(extended))


def read_sources(path: Path) -> dict[str, str]:
    """The source package of each package in a file Packages: its own name where it has no field of that.

    Raises:
        LSGError: no such file, or it is no list of packages.
    """
    sources: dict[str, str] = {}
    for number, stanza in read_stanzas(path, (NAME, SOURCE)):
        [package] = _field(stanza, NAME, path, number)
        # "Source: name (version)" where the versions differ.
        sources[package] = stanza.get(SOURCE, [package])[0].partition(" ")[0]
    return sources


def _field(stanza: Stanza, name: str, path: Path, number: int) -> list[str]:
    if not stanza.get(name, [""])[0]:
        raise LSGError(f"{path}: the stanza that ends before line {number} has no field {name}: is it the right list?")
    return stanza[name]


def read_stanzas(path: Path, fields: Collection[str]) -> Iterator[tuple[int, Stanza]]:
    """The number of the line after each stanza, and the lines of those of the fields that it has.

    Raises:
        LSGError: no such file, no stanza in it, or a line that is neither a field nor goes on with one.
    """
    number, found, stanza, value = 0, False, {}, None
    for number, line in read_lines(path):
        if not line:
            if value is not None:
                yield number, stanza
            stanza, value = {}, None
        elif line.startswith((" ", "\t")) and value is not None:
            value.append(line[1:])
        else:
            name, value = _parse_field(line, path, number)
            found = True
            if name in fields:
                stanza[name] = value
    if not found:
        raise LSGError(f"{path} has no stanza: it is empty")
    if value is not None:
        yield number + 1, stanza


def _parse_field(line: str, path: Path, number: int) -> tuple[str, list[str]]:
    name, colon, text = line.partition(":")
    if not colon or not name or " " in name:
        raise LSGError(f"{path}, line {number}, is no line of a package list (`Field: value`): {line[:60]!r}")
    return name, [text.strip()]
