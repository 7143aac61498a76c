"""The documents that lsg-summarize reads, from files, folders or standard input, but never from its own output."""

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

from lsg_fairseq.data.record_files import TEXT, count_records, is_known, kind_of, read_records, records_of, text_of
from lsg_fairseq.data.text_lines import Place, lines_of, open_bytes, whole_text
from lsg_fairseq.modules.lsg_config import LSGError

logger = logging.getLogger(__name__)

STDIN = "standard input"
JOURNAL_SUFFIX = ".journal"
MAX_HEADER = 10_000_000  # most bytes of a journal's first line, which lists the inputs


@dataclass(frozen=True)
class Document:
    """A text to summarise, the object that its output line repeats, its place, language and query ("": none)."""

    text: str
    record: dict[str, Any] = field(default_factory=dict)
    where: str = STDIN
    language: str = ""
    query: str = ""


@dataclass
class Inputs:
    """The inputs of a run.

    Args:
        paths: text files (one document each), files of records, or folders of both; none: standard input.
        document_field: the field of a record with its text.
        jsonl: standard input is JSON Lines, not text.
        one_per_line: each line of a text is a document.
        output: the output file, which is not read even if it is in an input folder.
        lang_field, query_field: the fields of a record with its language and its query; None: the records have none.
    """

    paths: Sequence[Path] = ()
    document_field: str = "document"
    jsonl: bool = False
    one_per_line: bool = False
    output: Path | None = None
    lang_field: str | None = None
    query_field: str | None = None

    @cached_property
    def files(self) -> list[Path]:
        """The input files, those of a folder sorted by name; looked up only once.

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
                raise LSGError(f"{path} is both input and output: give another --output")
            else:
                files.append(path)
        if not self.paths and self.output is not None and _is_standard_input(self.output):
            raise LSGError(f"{self.output} is both standard input and output: give another --output")
        return files

    def read(self) -> Iterator[Document]:
        """Yield the documents in order.

        Raises:
            LSGError: a file is missing, damaged or not UTF-8, or an item is not a record with the fields.
        """
        if not self.paths and self.jsonl:
            yield from self._from_records(records_of(sys.stdin.buffer, STDIN))
        elif not self.paths:
            yield from self._from_text(sys.stdin.buffer, STDIN)
        for path in self.files:
            kind = kind_of(path, TEXT)
            if kind != TEXT:
                yield from self._from_records(read_records(path, kind))
            else:
                with open_bytes(path) as file:
                    yield from self._from_text(file, str(path))

    def count(self) -> int | None:
        """The number of documents; None if it takes parsing JSON or reading a pipe to know."""
        if not self.paths or not all(path.is_file() for path in self.files):
            return None
        counts = [self._count_documents(path) for path in self.files]
        return None if None in counts else sum(counts)

    def _files_in(self, folder: Path) -> list[Path]:
        found = sorted(p for p in folder.iterdir() if is_known(p) and p.is_file())
        kept = [path for path in found if not (self._is_output(path) or has_journal(path))]
        if not kept:
            raise LSGError(f"the folder {folder} has no documents: give one with .txt or .jsonl files")
        earlier = [path.name for path in found if path not in kept and not self._is_output(path)]
        if earlier:
            logger.info(f"{folder}: skipped {', '.join(earlier)}, written by lsg-summarize")
        return kept

    def _is_output(self, path: Path) -> bool:
        """Whether a path leads to the output or its journal, also through a link or with different case."""
        if self.output is None:
            return False
        return any(_is_same(path, own) for own in (self.output, journal_of(self.output)))

    def _count_documents(self, path: Path) -> int | None:
        kind = kind_of(path, TEXT)
        return 1 if kind == TEXT and not self.one_per_line else count_records(path, kind)

    def _from_records(self, records: Iterable[tuple[Place, dict[str, Any]]]) -> Iterator[Document]:
        for place, record in records:
            text = text_of(record, self.document_field, place, "document")
            language = text_of(record, self.lang_field, place, "lang")
            query = text_of(record, self.query_field, place, "query")
            yield Document(text, record, str(place), language, query)

    def _from_text(self, file: BinaryIO, name: str) -> Iterator[Document]:
        if self.lang_field is not None:
            raise LSGError(f"--lang-field is a field of records, but {name} is text: use --source-lang-token")
        if self.query_field is not None:
            raise LSGError(f"--query-field is a field of records, but {name} is text: give JSON Lines")
        if self.one_per_line:
            for number, line in lines_of(file, name):
                yield Document(line, {"file": name, "line": number}, str(Place(name, number)))
        else:
            yield Document(whole_text(file, name), {"file": name}, name)


def journal_of(output: Path) -> Path:
    """The path of an output's journal."""
    return Path(f"{output}{JOURNAL_SUFFIX}")


def has_journal(path: Path) -> bool:
    """Whether lsg-summarize wrote this file, that is, whether its journal is beside it."""
    try:
        if not journal_of(path).is_file():  # of a pipe, nothing might ever come
            return False
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
    except (OSError, ValueError):  # standard input is closed, or has no file descriptor
        return False


def in_shard(documents: Iterable[Document], num_shards: int, shard_id: int) -> Iterator[Document]:
    """Yield every num_shards-th document, starting with number shard_id."""
    return islice(documents, shard_id, None, num_shards)
