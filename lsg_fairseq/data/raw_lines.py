"""Lines of a file or pipe that somebody names, which may be anything: a device has no end, and no line feed either."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

from lsg_fairseq.modules.lsg_config import LSGError

# Bytes of a line, or of a text that is one document: some 50 million words, far more than any model reads.
MAX_LINE = 1 << 28


def raw_lines(file: BinaryIO, name: str, is_one: bool = False) -> Iterator[bytes]:
    """The lines with their line feeds.

    Args:
        is_one: the lines are one document together.

    Raises:
        LSGError: a line, or the document, is longer than MAX_LINE.
    """
    size = number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        size = size + len(line) if is_one else len(line)
        if size > MAX_LINE:
            where = name if is_one else f"{name}, line {number},"
            raise LSGError(f"{where} has more than {MAX_LINE:,} bytes: split it, or name a file of documents")
        yield line
