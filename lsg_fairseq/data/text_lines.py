"""Lines of UTF-8 text from plain or gzipped files; only one line is in memory at a time."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lsg_fairseq.modules.lsg_config import LSGError

COMPRESSED = ".gz"
# The most bytes of a line, or of a file that is one document: a few bytes of gzip can expand to gigabytes, and a device
# may never end. Models read at most 262,144 tokens, less than a hundredth of this.
MAX_TEXT = 2**28
DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


class Place(NamedTuple):
    """The place of a document: the number of its line, object or row (`unit`, from 1) in the file `name`."""

    name: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.name}, {self.unit} {self.number}"


def is_compressed(path: Path) -> bool:
    """Whether a file is gzipped, by its suffix."""
    return path.suffix == COMPRESSED


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """Open a file for reading bytes, decompressed.

    Raises:
        LSGError: the file is missing or is a folder.
    """
    if not path.exists():
        raise LSGError(f"the file {path} does not exist")
    if path.is_dir():
        raise LSGError(f"{path} is a folder, but a file is needed")
    with gzip.open(path) if is_compressed(path) else path.open("rb") as file:
        yield file


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) for each line of a UTF-8 file, without its line break.

    Lines end at line feeds only: documents may contain the other separators that str.splitlines knows.

    Raises:
        LSGError: the file is missing, a folder, damaged or not UTF-8, or a line is longer than MAX_TEXT.
    """
    with open_bytes(path) as file:
        yield from lines_of(file, str(path))


def lines_of(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """The same for an open file or a stream; `name` is its name in errors."""
    for number, raw in _raw_lines(file, name):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise LSGError(f"{name}, line {number}, is not UTF-8 text (byte {error.start + 1} of the line)") from error
        yield number, text.removesuffix("\n").removesuffix("\r")


def whole_text(file: BinaryIO, name: str) -> str:
    """The text of an open file as one document, with its lines joined by line feeds.

    Raises:
        LSGError: it is damaged, not UTF-8, or longer than MAX_TEXT.
    """
    lines: list[str] = []
    size = 0
    for _, line in lines_of(file, name):
        lines.append(line)
        size += len(line) + 1
        if size > MAX_TEXT:
            raise too_large(name)
    return "\n".join(lines)


def count_lines(path: Path, without_blank: bool) -> int:
    """The number of lines in a file; raises as read_lines, except that the text is not decoded."""
    with open_bytes(path) as file:
        return sum(1 for _, line in _raw_lines(file, str(path)) if not without_blank or line.strip())


def too_large(where: str) -> LSGError:
    """The error for a text that is longer than MAX_TEXT."""
    return LSGError(
        f"{where} is larger than {MAX_TEXT:,} bytes, the most that is read as one document: split it into documents"
    )


def damaged_gzip(name: str, after: str, error: Exception) -> LSGError:
    """The error for a gzip file that is truncated or corrupt; `after` is the last place that could be read."""
    return LSGError(f"{name} is damaged after {after} ({error}), or is not a gzip file: fetch it again")


def _raw_lines(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    while True:
        try:
            line = file.readline(MAX_TEXT + 1)
        except DAMAGED_GZIP as error:
            raise damaged_gzip(name, f"line {number}", error) from error
        if not line:
            return
        number += 1
        if len(line) > MAX_TEXT:
            raise too_large(f"{name}, line {number},")
        yield number, line
