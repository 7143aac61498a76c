"""The documents that lsg-summarize reads: from files, folders or standard input, never from its own output."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from lsg_fairseq.data.one_sentence import shortened
from lsg_fairseq.data.raw_lines import raw_lines
from lsg_fairseq.modules.lsg_config import LSGError

logger = logging.getLogger(__name__)

JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json")
STDIN = "standard input"
JOURNAL_SUFFIX = ".journal"
MAX_HEADER = 10_000_000  # bytes; a journal's first line names its inputs


@dataclass(frozen=True)
class Document:
    """A text to summarise, the object that its output line repeats, where it stands, and its language, if named."""

    text: str
    record: dict[str, Any] = field(default_factory=dict)
    where: str = STDIN
    language: str = ""


@dataclass
class Inputs:
    """Where documents come from: text files (a document each), JSON Lines, folders of both; none: standard input.

    `jsonl` says what standard input is; `one_per_line` makes each line of a text a document. `output` is never read: it
    may lie in a folder that is. `lang_field` is where an object names its document's language.
    """

    paths: Sequence[Path] = ()
    document_field: str = "document"
    jsonl: bool = False
    one_per_line: bool = False
    output: Path | None = None
    lang_field: str | None = None

    @cached_property
    def files(self) -> list[Path]:
        """The files, those of a folder in the order of their names; looked up once.

        Raises:
            LSGError: a path does not exist or is the output, or a folder has no documents.
        """
        files: list[Path] = []
        for path in self.paths:
            if path.is_dir():
                files += self._files_in(path)
            elif not path.exists():
                raise LSGError(f"the input {path} does not exist")
            elif self._is_output(path):
                raise LSGError(f"{path} is both input and output: name another --output")
            else:
                files.append(path)
        if not self.paths and self.output is not None and _is_standard_input(self.output):
            raise LSGError(f"{self.output} is both standard input and output: name another --output")
        return files

    def read(self) -> Iterator[Document]:
        """The documents in order.

        Raises:
            LSGError: a file is missing or is not UTF-8, or a line is no JSON object with the field.
        """
        if not self.paths:
            yield from self._read_stream(sys.stdin.buffer, STDIN, self.jsonl)
        for path in self.files:
            with path.open("rb") as file:
                yield from self._read_stream(file, str(path), path.suffix in JSONL_SUFFIXES)

    def count(self) -> int | None:
        """How many documents there are, as far as that is known without reading JSON or a pipe."""
        if not self.paths or not all(path.is_file() for path in self.files):
            return None
        return sum(self._count_documents(path) for path in self.files)

    def _files_in(self, folder: Path) -> list[Path]:
        found = sorted(p for p in folder.iterdir() if p.suffix in (".txt", *JSONL_SUFFIXES) and p.is_file())
        kept = [path for path in found if not (self._is_output(path) or has_journal(path))]
        if not kept:
            raise LSGError(f"the folder {folder} has no documents: name one with .txt or .jsonl files in it")
        earlier = [path.name for path in found if path not in kept and not self._is_output(path)]
        if earlier:
            logger.info(f"{folder}: {', '.join(earlier)} was written by lsg-summarize and is not read")
        return kept

    def _is_output(self, path: Path) -> bool:
        """Whether it is the output or its journal, by whatever name: a link, or another case."""
        if self.output is None:
            return False
        return any(_is_same(path, own) for own in (self.output, journal_of(self.output)))

    def _count_documents(self, path: Path) -> int:
        if path.suffix not in JSONL_SUFFIXES and not self.one_per_line:
            return 1
        with path.open("rb") as file:
            return sum(1 for line in raw_lines(file, str(path)) if line.strip() or path.suffix not in JSONL_SUFFIXES)

    def _read_stream(self, file: BinaryIO, name: str, is_jsonl: bool) -> Iterator[Document]:
        if is_jsonl:
            for number, line in _lines(file, name):
                if line.strip():
                    where = f"{name}, line {number}"
                    record = parse_record(line, where)
                    language = "" if self.lang_field is None else self._text_of(record, where, "lang")
                    yield Document(self._text_of(record, where), record, where, language)
        elif self.lang_field is not None:
            raise LSGError(f"--lang-field names a field of JSON Lines, and {name} is text: use --source-lang-token")
        elif self.one_per_line:
            for number, line in _lines(file, name):
                yield Document(line, {"file": name, "line": number}, f"{name}, line {number}")
        else:
            text = "\n".join(line for _, line in _lines(file, name, is_one=True))
            yield Document(text, {"file": name}, name)

    def _text_of(self, record: dict[str, Any], where: str, which: str = "document") -> str:
        name = self.lang_field if which == "lang" else self.document_field
        text = record.get(name)
        if not isinstance(text, str):
            present = shortened(", ".join(map(repr, record))) or "none"
            raise LSGError(
                f"{where}: the field {name!r} must be a string (fields present: {present}): name the "
                f"right one with --{which}-field"
            )
        return text


def journal_of(output: Path) -> Path:
    """Where the journal of an output is."""
    return Path(f"{output}{JOURNAL_SUFFIX}")


def has_journal(path: Path) -> bool:
    """Whether lsg-summarize wrote this file: its journal is beside it."""
    try:
        with journal_of(path).open("rb") as file:
            header = json.loads(file.readline(MAX_HEADER))
    except (OSError, ValueError, RecursionError):
        return False
    settings = header.get("settings", header) if isinstance(header, dict) else {}
    return isinstance(settings, dict) and "inputs" in settings


def _is_same(path: Path, other: Path) -> bool:
    if path.exists() and other.exists():
        return path.samefile(other)
    return path.resolve() == other.resolve()


def _is_standard_input(path: Path) -> bool:
    try:
        return path.exists() and os.path.samestat(os.fstat(sys.stdin.fileno()), path.stat())
    except (OSError, ValueError):  # a standard input that is no file
        return False


def parse_record(line: str, where: str) -> dict[str, Any]:
    """A line of JSON Lines.

    Raises:
        LSGError: it is no JSON object.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise LSGError(f"{where}, is not valid JSON ({error}): each line must be a JSON object") from error
    if not isinstance(record, dict):
        raise LSGError(f"{where}, is a JSON {type(record).__name__}: each line must be a JSON object")
    return record


def in_shard(documents: Iterable[Document], num_shards: int, shard_id: int) -> Iterator[Document]:
    """Every num_shards-th document, from number shard_id on."""
    return islice(documents, shard_id, None, num_shards)


def _lines(file: BinaryIO, name: str, is_one: bool = False) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines of a UTF-8 stream, split at line feeds alone."""
    for number, raw in enumerate(raw_lines(file, name, is_one), start=1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise LSGError(f"{name}, line {number}, is not UTF-8 text (byte {error.start + 1} of the line)") from error
        yield number, text.removesuffix("\n").removesuffix("\r")
