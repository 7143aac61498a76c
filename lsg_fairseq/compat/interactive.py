"""fairseq-interactive: a document a line, and a line ends at a line feed alone, as in every other command."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType

from lsg_fairseq.modules.lsg_config import LSGError

COMMAND = "fairseq-interactive"
# The module of the command, as it is installed or run.
MODULES = ("fairseq_cli.interactive", "__main__")

# --- Python's text files end a line at a lone carriage return, too, which tears a document in two.


def carriage_returns_end_documents() -> bool:
    module = _command()
    return module is not None and not hasattr(module.buffered_read, "lsg_fairseq_fix")


def end_documents_at_line_feeds() -> None:
    _command().buffered_read = buffered_read


def buffered_read(input: str, buffer_size: int) -> Iterator[list[str]]:
    """The lines of a UTF-8 file, or of standard input ("-"), stripped, up to `buffer_size` at a time.

    Raises:
        LSGError: one is not UTF-8.
    """
    buffer: list[str] = []
    with nullcontext(sys.stdin.buffer) if input == "-" else Path(input).open("rb") as file:
        for number, line in enumerate(file, start=1):
            buffer.append(_text_of(line, f"{'standard input' if input == '-' else input}, line {number}"))
            if len(buffer) >= buffer_size:
                yield buffer
                buffer = []
    if buffer:
        yield buffer


buffered_read.lsg_fairseq_fix = True


def _text_of(line: bytes, where: str) -> str:
    try:
        return line.decode().strip()
    except UnicodeDecodeError as error:
        raise LSGError(f"{where}, is not UTF-8 text (byte {error.start + 1} of the line): save it as UTF-8") from error


def _command() -> ModuleType | None:
    if Path(sys.argv[0]).name != COMMAND:
        return None
    return next((m for name in MODULES if hasattr(m := sys.modules.get(name), "buffered_read")), None)
