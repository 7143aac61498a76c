"""An output file that a rerun continues: whole lines only, and a journal of summaries that wait for their turn."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from lsg_fairseq.data.locks import only_writer
from lsg_fairseq.data.one_sentence import written_whole
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.documents import Document, journal_of
from lsg_fairseq.summarizing.output_lines import LineFormat, StreamOutput

AGAIN = "use --overwrite to start again, or another --output"


@dataclass(frozen=True)
class Run:
    """What makes two runs the same: settings (plain JSON values), and hashes of what they read, by its name."""

    settings: Mapping[str, Any]
    content: Mapping[str, str]

    def header(self) -> bytes:
        """The journal's first line."""
        return json.dumps(asdict(self)).encode() + b"\n"


class ResumableOutput(StreamOutput):
    """Lines for a file. Its journal says which run it belongs to, and holds what was finished out of turn.

    A killed run leaves at most a broken last line, which is dropped. `num_written` counts the lines that are there. The
    journal's later lines are finished summaries by place, and the digest of all documents up to the end of a window:
    that of standard input can be known in no other way.
    """

    def __init__(self, file: BinaryIO, journal: BinaryIO, lines: LineFormat) -> None:
        self.file, self.journal, self.lines = file, journal, lines
        self.finished, self.digests = _read_journal(journal)
        self.num_written = _drop_broken_tail(file)
        self.earlier_lines = _lines_from_start(file.name) if lines.as_json else None
        self.digest = hashlib.sha256()
        self.window_line = ""

    def begin_window(self, window: Sequence[Document], start: int) -> None:
        """Compare the documents up to here with those of the run that is continued.

        Raises:
            LSGError: they are others.
        """
        for document in window:
            self.digest.update(json.dumps([document.text, document.record]).encode())
        digest, known = self.digest.hexdigest(), self.digests.get(start)
        if known is not None and known != digest:
            raise LSGError(f"{self.file.name} was begun with other documents than these {start + len(window)}: {AGAIN}")
        self.window_line = json.dumps({"window": start, "digest": digest})
        if known is None and self.num_written < start + len(window):
            _append(self.journal, self.window_line)

    def check(self, document: Document, place: int) -> None:
        """Compare a line that is there with the document it should belong to.

        Raises:
            LSGError: it repeats another object.
        """
        if self.earlier_lines is None:
            return
        try:
            earlier = json.loads(next(self.earlier_lines))
        except (ValueError, StopIteration, RecursionError):
            earlier = None
        if not self.lines.belongs_to(earlier, document):
            raise LSGError(
                f"line {place + 1} of {self.file.name} is not about document {place + 1} of the input, which must have "
                f"changed: {AGAIN}"
            )

    def keep(self, place: int, summary: str) -> None:
        """Put a summary into the journal, in case the run ends before its turn."""
        _append(self.journal, json.dumps({"place": place, "summary": summary}))

    def write(self, line: str) -> None:
        """Append one whole line."""
        _append(self.file, line)
        self.num_written += 1

    def end_window(self) -> None:
        """All that was kept is written: leave what the journal says about the run and its documents."""
        self.finished = {}
        self.journal.seek(0)
        self.journal.readline()
        self.journal.truncate()
        _append(self.journal, self.window_line)


@contextmanager
def open_output(path: Path, run: Run, overwrite: bool, lines: LineFormat) -> Iterator[StreamOutput]:
    """Open an output, new or to be continued, for this process alone; a pipe or a device is only written to.

    Raises:
        LSGError: the file is another run's or nobody's, or another process is writing it.
    """
    if path.is_dir():
        raise LSGError(f"the output {path} is a folder: name a file")
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
    """Put the run's name on a file that is new, empty or to be overwritten; else see that it is on it."""
    journal.seek(0)
    known = journal.readline()
    whole = known.endswith(b"\n")
    is_empty = file.seek(0, 2) == 0 and not _read_journal(journal)[0]
    if not overwrite and not is_empty:
        if not whole:
            raise LSGError(f"{file.name} exists and was not written by this command: {AGAIN}")
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
        raise LSGError(f"{path} was begun by another version, or {journal_of(path).name} is damaged: {AGAIN}")
    settings, content = ({k: [before[part].get(k), v] for k, v in now[part].items()} for part in now)
    changed = {name: pair for name, pair in settings.items() if pair[0] != pair[1]}
    if changed:
        raise LSGError(
            f"{path} was begun with another {' and '.join(changed)} "
            f"({', '.join(f'{old!r}, not {new!r}' for old, new in changed.values())}): {AGAIN}"
        )
    others = [name for name, pair in content.items() if pair[0] != pair[1]]
    raise LSGError(f"{path} was begun when {' and '.join(others) or 'a file'} had another content: {AGAIN}")


def _remove_if_empty(path: Path, journal: BinaryIO) -> None:
    """A run that ended before its first summary leaves nothing that the next one would have to ask about."""
    if path.exists() and path.stat().st_size == 0 and not _read_journal(journal)[0]:
        path.unlink()
        journal_of(path).unlink(missing_ok=True)


def _read_journal(journal: BinaryIO) -> tuple[dict[int, str], dict[int, str]]:
    """Summaries by place, and digests by the start of their window; from the first damaged line on, all is cut off."""
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
    """Cut the file after its last whole line; returns the number of lines.

    A machine that loses power can leave a block of NULs at the end, where the last lines should have been.
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
    """The whole line, handed to the system at once; the file is opened for appending.

    Past the file object's own buffer, which would try once more when it is closed.

    Raises:
        LSGError: there is no room.
    """
    data = line.encode() + b"\n"
    with written_whole(Path(file.name)):
        while data:
            data = data[os.write(file.fileno(), data) :]
