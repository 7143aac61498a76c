"""Lines of UTF-8 text, from a file as it is or compressed with gzip, in memory that the longest line alone decides."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple

from lsg_fairseq.modules.lsg_config import LSGError

COMPRESSED = ".gz"
# Bytes of a line, or of a text that is one document. A few bytes of gzip can stand for gigabytes, and a device has no
# end. No model reads a hundredth of this: 262,144 tokens at most.
MAX_TEXT = 2**28
DAMAGED_GZIP = (EOFError, gzip.BadGzipFile, zlib.error)


class Place(NamedTuple):
    """Where a document stands: which line, object or row (`unit`, counted from 1) of which file."""

    name: str
    number: int
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.name}, {self.unit} {self.number}"


def is_compressed(path: Path) -> bool:
    """Whether a file's name says that it is compressed."""
    return path.suffix == COMPRESSED


@contextmanager
def open_bytes(path: Path) -> Iterator[BinaryIO]:
    """A file's content, decompressed.

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
    """(number from 1, text) of the lines of a UTF-8 file, split at line feeds alone, as documents may hold any other.

    Raises:
        LSGError: the file is missing, is a folder, is damaged, or is not UTF-8.
    """
    with open_bytes(path) as file:
        yield from lines_of(file, str(path))


def lines_of(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """The same of an open file or a stream."""
    for number, raw in _raw_lines(file, name):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise LSGError(f"{name}, line {number}, is not UTF-8 text (byte {error.start + 1} of the line)") from error
        yield number, text.removesuffix("\n").removesuffix("\r")


def whole_text(file: BinaryIO, name: str) -> str:
    """A text file as one document, its lines ended by line feeds.

    Raises:
        LSGError: it is damaged, is not UTF-8, or is larger than any document.
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
    """How many lines a file has; raises as read_lines but for what is not UTF-8."""
    with open_bytes(path) as file:
        return sum(1 for _, line in _raw_lines(file, str(path)) if not without_blank or line.strip())


def too_large(where: str) -> LSGError:
    """The error of something that cannot be a document."""
    return LSGError(
        f"{where} is larger than {MAX_TEXT:,} bytes, which no document is: split it, or name a file of documents"
    )


def damaged_gzip(name: str, after: str, error: Exception) -> LSGError:
    """The error of a compressed file that ends too early or was changed."""
    return LSGError(f"{name} is damaged after {after} ({error}), or is no gzip file: fetch it again")


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
