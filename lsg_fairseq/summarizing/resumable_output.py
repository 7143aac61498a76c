"""The output of lsg-summarize: the format of its lines, streams, and files that a rerun continues."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from lsg_fairseq.checkpoints.loading import CheckpointFiles
from lsg_fairseq.checkpoints.open_fairseq import read_original
from lsg_fairseq.data.one_sentence import written_whole
from lsg_fairseq.data.output_folder import only_writer
from lsg_fairseq.huggingface.generation_config import source_prefix
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.documents import Document, journal_of
from lsg_fairseq.tokenizers.base import ALL_FILES
from lsg_fairseq.tokenizers.sequence_format import SEQUENCE_FORMAT_FILE

logger = logging.getLogger(__name__)

# The field for a summary; the second one if the record already has a (reference) summary.
SUMMARY_FIELD, GENERATED_FIELD = "summary", "generated_summary"
AGAIN = "use --overwrite to start again, or another --output"


@dataclass
class LineFormat:
    """The format of output lines: the summary as text, or (`as_json`) the document's object with the summary added.

    `summary_field` is the field for it; None: SUMMARY_FIELD, or GENERATED_FIELD if the object has that already.
    `was_told` is whether the user was told about the second.
    """

    as_json: bool = False
    summary_field: str | None = None
    was_told: bool = False

    def line(self, document: Document, summary: str) -> str:
        """The line for a document, without a line feed; as text, line feeds in the summary become spaces.

        Raises:
            LSGError: the document's object already has the field.
        """
        if not self.as_json:
            return " ".join(summary.split())
        record = {**document.record, self.field_for(document): summary}
        line = json.dumps(record, ensure_ascii=False)
        # JSON may contain lone surrogates, which UTF-8 cannot encode.
        return line if _has_utf8(line) else json.dumps(record)

    def field_for(self, document: Document) -> str:
        """The field for the summary, one that the document's object does not have.

        Raises:
            LSGError: the object already has the field.
        """
        record = document.record
        names = (SUMMARY_FIELD, GENERATED_FIELD) if self.summary_field is None else (self.summary_field,)
        free = [name for name in names if name not in record]
        if not free:
            raise LSGError(
                f"{document.where}: the object already has the field {names[-1]!r}, which would be overwritten: give "
                "another with --summary-field"
            )
        if free[0] != names[0] and not self.was_told:
            self.was_told = True
            logger.info(f"objects that already have a {SUMMARY_FIELD!r} keep it, and get the new one as {free[0]!r}")
        return free[0]

    def belongs_to(self, line: Any, document: Document) -> bool:
        """Whether the object `line` was written for a document, with any summary."""
        name = self.field_for(document)
        # Compared as text because records may contain NaN, which is not equal to itself.
        return isinstance(line, dict) and json.dumps(line) == json.dumps({**document.record, name: line.get(name)})


class StreamOutput:
    """Output to a stream that cannot be read back, such as standard output; it ignores all that a rerun would need.

    `num_written` is the number of lines written so far, `finished` the summaries by place that wait for their turn.
    """

    def __init__(self, stream: TextIO, lines: LineFormat) -> None:
        self.stream, self.lines, self.num_written = stream, lines, 0
        self.finished: dict[int, str] = {}

    def begin_window(self, window: Sequence[Document], start: int) -> None:
        """See ResumableOutput."""

    def check(self, document: Document, place: int) -> None:
        """See ResumableOutput."""

    def keep(self, place: int, summary: str) -> None:
        """See ResumableOutput."""

    def write(self, line: str) -> None:
        """Write one line and flush it."""
        self.stream.write(line + "\n")
        self.stream.flush()
        self.num_written += 1

    def end_window(self) -> None:
        """See ResumableOutput."""


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True)
class Run:
    """What identifies a run: its settings (JSON values), and hashes of what it reads, by name."""

    settings: Mapping[str, Any]
    content: Mapping[str, str]

    def header(self) -> bytes:
        """The journal's first line."""
        return json.dumps(asdict(self)).encode() + b"\n"


class ResumableOutput(StreamOutput):
    """Output to a file that a rerun continues, with a journal beside it.

    The journal's first line identifies the run. Later lines are summaries that were finished before their turn, by the
    place of their document, and for each window a digest of all documents up to its end, which detects that standard
    input has changed. A killed run leaves at most one incomplete last line, which is dropped.
    """

    def __init__(self, file: BinaryIO, journal: BinaryIO, lines: LineFormat) -> None:
        self.file, self.journal, self.lines = file, journal, lines
        self.finished, self.digests = _read_journal(journal)
        self.num_written = _drop_broken_tail(file)
        self.earlier_lines = _lines_from_start(file.name) if lines.as_json else None
        self.digest = hashlib.sha256()
        self.window_line = ""

    def begin_window(self, window: Sequence[Document], start: int) -> None:
        """Compare all documents up to the end of this window with those of the run that is continued.

        Raises:
            LSGError: they differ.
        """
        for document in window:
            self.digest.update(json.dumps([document.text, document.record]).encode())
        digest, known = self.digest.hexdigest(), self.digests.get(start)
        if known is not None and known != digest:
            raise LSGError(
                f"{self.file.name} was begun with different documents (among the first {start + len(window)}): {AGAIN}"
            )
        self.window_line = json.dumps({"window": start, "digest": digest})
        if known is None and self.num_written < start + len(window):
            _append(self.journal, self.window_line)

    def check(self, document: Document, place: int) -> None:
        """Compare the next line of the file with its document, which is number `place` of the input.

        Raises:
            LSGError: the line repeats a different object.
        """
        if self.earlier_lines is None:
            return
        try:
            earlier = json.loads(next(self.earlier_lines))
        except (ValueError, StopIteration, RecursionError):
            earlier = None
        if not self.lines.belongs_to(earlier, document):
            raise LSGError(
                f"line {place + 1} of {self.file.name} does not belong to document {place + 1} of the input, which "
                f"must have changed: {AGAIN}"
            )

    def keep(self, place: int, summary: str) -> None:
        """Store a summary in the journal, in case the run ends before it is written."""
        _append(self.journal, json.dumps({"place": place, "summary": summary}))

    def write(self, line: str) -> None:
        """Append one line."""
        _append(self.file, line)
        self.num_written += 1

    def end_window(self) -> None:
        """Drop stored summaries from the journal: the lines of this window are all written."""
        self.finished = {}
        self.journal.seek(0)
        self.journal.readline()
        self.journal.truncate()
        _append(self.journal, self.window_line)


@contextmanager
def open_output(path: Path, run: Run, overwrite: bool, lines: LineFormat) -> Iterator[StreamOutput]:
    """Lock and open an output file, new or to be continued; a pipe or a device is opened as a stream.

    Raises:
        LSGError: the file is not from this run, or another process is writing it.
    """
    if path.is_dir():
        raise LSGError(f"the output {path} is a folder: give a file")
    if (path.exists() and not path.is_file()) or os.path.abspath(path).startswith(("/dev/", "/proc/")):
        with path.open("a", encoding="utf-8") as stream:
            yield StreamOutput(stream, lines)
        return
    _check_journal(journal_of(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with only_writer(Path(f"{path}.lock"), path), journal_of(path).open("a+b") as journal:
        try:
            with path.open("a+b") as file:
                _prepare(file, journal, run, overwrite)
                yield ResumableOutput(file, journal, lines)
        finally:
            _remove_if_empty(path, journal)


def _check_journal(path: Path) -> None:
    """Refuse a journal that is a link, as it is emptied where it belongs to no run, or is no file."""
    if path.is_symlink() or (path.exists() and not path.is_file()):
        kind = "a link to another file" if path.is_symlink() else "no file"
        raise LSGError(f"{path}, the journal of the output, is {kind}: remove it, or name another --output")


def _prepare(file: BinaryIO, journal: BinaryIO, run: Run, overwrite: bool) -> None:
    """Write the run's header to the journal of a file that is new, empty or to be overwritten; else check it."""
    journal.seek(0)
    known = journal.readline()
    whole = known.endswith(b"\n")
    is_empty = file.seek(0, 2) == 0 and not _read_journal(journal)[0]
    if not overwrite and not is_empty:
        if not whole:
            raise LSGError(f"{file.name} exists, but has no journal of lsg-summarize: {AGAIN}")
        _check_run(Path(file.name), known, run)
    if overwrite or is_empty or not whole:
        file.truncate(0)
        journal.truncate(0)
        journal.write(run.header())
        journal.flush()


def _check_run(path: Path, known: bytes, run: Run) -> None:
    if known == run.header():
        return
    before, now = _parse(known), json.loads(run.header())
    if not isinstance(before.get("settings"), dict) or not isinstance(before.get("content"), dict):
        raise LSGError(f"{path} was begun by a different version, or {journal_of(path).name} is damaged: {AGAIN}")
    settings, content = ({k: [before[part].get(k), v] for k, v in now[part].items()} for part in now)
    changed = {name: pair for name, pair in settings.items() if pair[0] != pair[1]}
    if changed:
        raise LSGError(
            f"{path} was begun with a different {' and '.join(changed)} "
            f"({', '.join(f'{old!r}, not {new!r}' for old, new in changed.values())}): {AGAIN}"
        )
    others = [name for name, pair in content.items() if pair[0] != pair[1]]
    raise LSGError(f"{path} was begun with different content of {' and '.join(others) or 'a file'}: {AGAIN}")


def _remove_if_empty(path: Path, journal: BinaryIO) -> None:
    """Delete the files of a run that ended before its first summary, so that the next run starts afresh."""
    if path.exists() and path.stat().st_size == 0 and not _read_journal(journal)[0]:
        path.unlink()
        journal_of(path).unlink(missing_ok=True)


def _read_journal(journal: BinaryIO) -> tuple[dict[int, str], dict[int, str]]:
    """Summaries by place, and digests by the start of their window; truncates the journal at the first damaged line."""
    journal.seek(0)
    journal.readline()
    finished: dict[int, str] = {}
    digests: dict[int, str] = {}
    position = journal.tell()
    while line := journal.readline():
        entry = _parse(line) if line.endswith(b"\n") else {}
        if type(entry.get("place")) is int and isinstance(entry.get("summary"), str):
            finished[entry["place"]] = entry["summary"]
        elif type(entry.get("window")) is int and isinstance(entry.get("digest"), str):
            digests[entry["window"]] = entry["digest"]
        else:
            journal.truncate(position)
            break
        position = journal.tell()
    return finished, digests


def _parse(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _drop_broken_tail(file: BinaryIO) -> int:
    """Truncate the file after its last complete line; returns the number of lines.

    After a loss of power, the file can end in a block of NULs instead of its last lines.
    """
    file.seek(0)
    count = whole = 0
    for line in file:
        if not line.endswith(b"\n") or line.startswith(b"\0"):
            break
        count, whole = count + 1, whole + len(line)
    if file.seek(0, 2) > whole:
        file.truncate(whole)
    return count


def _lines_from_start(name: str) -> Iterator[bytes]:
    with open(name, "rb") as file:
        yield from file


def _append(file: BinaryIO, line: str) -> None:
    """Write one line to a file that is opened for appending.

    This bypasses the file object's buffer, which would retry a failed write when the file is closed.

    Raises:
        LSGError: it could not be written, for example because the disk is full.
    """
    data = line.encode() + b"\n"
    with written_whole(Path(file.name)):
        while data:
            data = data[os.write(file.fileno(), data) :]


# --- the content that a run reads: a rerun must notice that a file of the same name has changed.


def content_of_checkpoint(files: CheckpointFiles) -> str:
    """The SHA-256 of everything that a checkpoint's summaries depend on."""
    beside = [*sorted(files.vocabulary.glob("dict*.txt")), files.vocabulary / SEQUENCE_FORMAT_FILE]
    tokenizer = [files.tokenizer / name for name in ALL_FILES]
    found = [path for path in (files.model, *beside, *tokenizer) if path.is_file()]
    described = [[path.name, hash_file(path)] for path in found]
    # A converted folder also stores its original's config; only the prefix in it affects summaries.
    prefix = source_prefix(read_original(files.model.parent).get("config", {}))
    content = [described, sorted(files.generation.items()), *([prefix] if prefix else [])]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def content_of_inputs(paths: Iterable[Path]) -> dict[str, str]:
    """Path -> SHA-256 for each regular file; a pipe can be read only once, and has none."""
    return {str(path): hash_file(path) for path in paths if path.is_file()}


def hash_file(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
