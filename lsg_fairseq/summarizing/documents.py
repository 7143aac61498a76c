"""Documents from files or a stream -> summaries in order, resumable, in memory that their number does not change."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from tqdm import tqdm

from lsg_fairseq.hub.batches import WINDOW, BatchedGenerator
from lsg_fairseq.modules.lsg_config import LSGError

JSONL_SUFFIXES = (".jsonl", ".ndjson", ".json")
STDIN = "standard input"


@dataclass(frozen=True)
class Document:
    """A text to summarise, and the object that its output line repeats."""

    text: str
    record: dict[str, Any] = field(default_factory=dict)

    def output_line(self, summary: str, as_json: bool) -> str:
        """The line that is written for it, without line feed; a summary's own line feeds become spaces in text."""
        if not as_json:
            return " ".join(summary.split())
        line = json.dumps({**self.record, "summary": summary}, ensure_ascii=False)
        # JSON lets lone surrogates in, but they have no UTF-8.
        return line if _has_utf8(line) else json.dumps({**self.record, "summary": summary})


@dataclass(frozen=True)
class Inputs:
    """Where documents come from: text files (a document each), JSON Lines, folders of both; none: standard input.

    `jsonl` says what standard input is; `one_per_line` makes each line of a text a document.
    """

    paths: Sequence[Path] = ()
    document_field: str = "document"
    jsonl: bool = False
    one_per_line: bool = False

    def files(self) -> list[Path]:
        """The files, those of a folder in the order of their names.

        Raises:
            LSGError: a path does not exist, or a folder has no documents.
        """
        files: list[Path] = []
        for path in self.paths:
            if path.is_dir():
                found = sorted(p for p in path.iterdir() if p.suffix in (".txt", *JSONL_SUFFIXES) and p.is_file())
                if not found:
                    raise LSGError(f"the folder {path} has no documents: name one with .txt or .jsonl files in it")
                files += found
            elif path.exists():
                files.append(path)
            else:
                raise LSGError(f"the input {path} does not exist")
        return files

    def read(self) -> Iterator[Document]:
        """The documents in order.

        Raises:
            LSGError: a file is missing or is not UTF-8, or a line is no JSON object with the field.
        """
        if not self.paths:
            yield from self._read_stream(sys.stdin.buffer, STDIN, self.jsonl)
        for path in self.files():
            with path.open("rb") as file:
                yield from self._read_stream(file, str(path), path.suffix in JSONL_SUFFIXES)

    def count(self) -> int | None:
        """How many documents there are, as far as that is known without reading JSON."""
        if not self.paths:
            return None
        return sum(self._count_documents(path) for path in self.files())

    def _count_documents(self, path: Path) -> int:
        if path.suffix not in JSONL_SUFFIXES and not self.one_per_line:
            return 1
        with path.open("rb") as file:
            return sum(1 for line in file if line.strip() or path.suffix not in JSONL_SUFFIXES)

    def _read_stream(self, file: BinaryIO, name: str, is_jsonl: bool) -> Iterator[Document]:
        if is_jsonl:
            for number, line in _lines(file, name):
                if line.strip():
                    record = parse_record(line, f"{name}, line {number}")
                    yield Document(self._text_of(record, f"{name}, line {number}"), record)
        elif self.one_per_line:
            yield from (Document(line, {"file": name, "line": number}) for number, line in _lines(file, name))
        else:
            yield Document("\n".join(line for _, line in _lines(file, name)), {"file": name})

    def _text_of(self, record: dict[str, Any], where: str) -> str:
        text = record.get(self.document_field)
        if not isinstance(text, str):
            present = ", ".join(map(repr, record)) or "none"
            raise LSGError(
                f"{where}: the field {self.document_field!r} must be a string (fields present: {present}): name the "
                "right one with --document-field"
            )
        return text


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


class StreamOutput:
    """Lines for a stream that cannot be looked at again, such as standard output."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.num_written = stream, 0
        self.finished: dict[int, str] = {}

    def check(self, document: Document, place: int) -> None:
        """Nothing was written before."""

    def keep(self, place: int, summary: str) -> None:
        """Nothing can be kept for a rerun."""

    def write(self, line: str) -> None:
        """One whole line, at once."""
        self.stream.write(line + "\n")
        self.stream.flush()
        self.num_written += 1

    def end_window(self) -> None:
        """Nothing was kept."""


def summarize_documents(
    documents: Iterable[Document], generator: BatchedGenerator, output: StreamOutput, as_json: bool, bar: tqdm
) -> int:
    """Write a line for each document, in order; returns their number. What `output` has already is not done again."""
    documents, start = iter(documents), 0
    while window := list(islice(documents, WINDOW)):
        _run_window(window, start, generator, output, as_json, bar)
        start += len(window)
    if output.num_written > start:
        raise LSGError(
            f"the output has {output.num_written} lines and the input {start} documents: they do not belong together; "
            "use --overwrite to start again"
        )
    return start


def _run_window(
    window: list[Document], start: int, generator: BatchedGenerator, output: StreamOutput, as_json: bool, bar: tqdm
) -> None:
    """Summarise a window whose first document is number `start`; its batches are the same in a resumed run."""
    end = start + len(window)
    for place in range(start, min(end, output.num_written)):
        output.check(window[place - start], place)
    if output.num_written >= end:
        bar.update(len(window))
        return
    summaries = {place - start: text for place, text in output.finished.items() if start <= place < end}
    # An empty document has no batch, and what is written needs no summary.
    summaries |= {i: "" for i, document in enumerate(window) if not document.text.strip()}
    written = max(output.num_written - start, 0)
    is_done = [i < written or i in summaries for i in range(len(window))]
    bar.update(sum(is_done))
    _write_ready(window, start, summaries, output, as_json)
    for places, texts in generator.run_window([document.text for document in window], is_done):
        for place, text in zip(places, texts, strict=True):
            if start + place >= output.num_written and place not in summaries:
                output.keep(start + place, text)
                summaries[place] = text
        bar.update(sum(not is_done[place] for place in places))
        _write_ready(window, start, summaries, output, as_json)
    output.end_window()


def _write_ready(
    window: list[Document], start: int, summaries: dict[int, str], output: StreamOutput, as_json: bool
) -> None:
    """Write the lines whose turn it is."""
    while (place := output.num_written - start) in summaries:
        output.write(window[place].output_line(summaries[place], as_json))


def _lines(file: BinaryIO, name: str) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines of a UTF-8 stream, split at line feeds alone."""
    for number, raw in enumerate(file, start=1):
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise LSGError(f"{name}, line {number}, is not UTF-8 text (byte {error.start + 1} of the line)") from error
        yield number, text.removesuffix("\n").removesuffix("\r")


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
