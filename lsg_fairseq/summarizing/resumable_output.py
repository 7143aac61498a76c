"""An output file that a rerun continues: whole lines only, and a journal of summaries that wait for their turn."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.documents import Document, StreamOutput

JOURNAL_SUFFIX = ".journal"


class ResumableOutput(StreamOutput):
    """Lines for a file. Its journal says which run it belongs to, and holds what was finished out of turn.

    A killed run leaves at most a broken last line, which is dropped. `num_written` counts the lines that are there.
    """

    def __init__(self, file: BinaryIO, journal: BinaryIO, as_json: bool) -> None:
        self.file, self.journal = file, journal
        self.finished = _read_journal(journal)
        self.num_written = _drop_broken_tail(file)
        self.earlier_lines = _lines_from_start(file.name) if as_json else None

    def check(self, document: Document, place: int) -> None:
        """Compare a line that is there with the document it should belong to.

        Raises:
            LSGError: it repeats another object.
        """
        if self.earlier_lines is None:
            return
        try:
            earlier = json.loads(next(self.earlier_lines))
        except (ValueError, StopIteration):
            earlier = None
        if not isinstance(earlier, dict) or earlier != {**document.record, "summary": earlier.get("summary")}:
            raise LSGError(
                f"line {place + 1} of {self.file.name} is not about document {place + 1} of the input, which must have "
                "changed: use --overwrite to start again, or another --output"
            )

    def keep(self, place: int, summary: str) -> None:
        """Put a summary into the journal, in case the run ends before its turn."""
        _append(self.journal, json.dumps({"place": place, "summary": summary}))

    def write(self, line: str) -> None:
        """Append one whole line."""
        _append(self.file, line)
        self.num_written += 1

    def end_window(self) -> None:
        """All that was kept is written: leave the journal's first line alone."""
        self.finished = {}
        self.journal.seek(0)
        self.journal.readline()
        self.journal.truncate()


@contextmanager
def open_resumable(path: Path, run: Mapping[str, Any], overwrite: bool, as_json: bool) -> Iterator[ResumableOutput]:
    """Open an output, new or to be continued, for this process alone.

    Args:
        run: what makes two runs the same (inputs, checkpoint, settings); plain JSON values.
        overwrite: start again, whatever is there.

    Raises:
        LSGError: the file is another run's or nobody's, or another process is writing it.
    """
    if path.is_dir():
        raise LSGError(f"the output {path} is a folder: name a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{path}{JOURNAL_SUFFIX}", "a+b") as journal:
        _lock(journal, path)
        journal.seek(0)
        known = journal.readline()
        header = json.dumps(run).encode() + b"\n"
        if not overwrite:
            _check_run(path, known, header)
        with path.open("a+b") as file:
            if overwrite or not known.endswith(b"\n"):
                file.truncate(0)
                journal.truncate(0)
                journal.write(header)
                journal.flush()
            yield ResumableOutput(file, journal, as_json)


def _lock(journal: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise LSGError(f"another process is writing {path}: wait for it, or choose another --output") from error


def _check_run(path: Path, known: bytes, header: bytes) -> None:
    if not known.endswith(b"\n"):  # no journal, or one that was not even begun
        if path.exists() and path.stat().st_size:
            raise LSGError(f"{path} exists and was not written by this command: use --overwrite, or another --output")
        return
    if known == header:
        return
    before, now = json.loads(known), json.loads(header)
    changed = [name for name in now if before.get(name) != now[name]]
    raise LSGError(
        f"{path} was begun with another {' and '.join(changed) or 'version'} "
        f"({', '.join(f'{before.get(name)!r}, not {now[name]!r}' for name in changed)}): use --overwrite to start "
        "again, or another --output"
    )


def _read_journal(journal: BinaryIO) -> dict[int, str]:
    """Summaries by place; a broken last line is left out and cut off."""
    journal.seek(0)
    journal.readline()
    finished: dict[int, str] = {}
    while (position := journal.tell()) >= 0 and (line := journal.readline()):
        if not line.endswith(b"\n"):
            journal.truncate(position)
            break
        entry = json.loads(line)
        finished[entry["place"]] = entry["summary"]
    return finished


def _drop_broken_tail(file: BinaryIO) -> int:
    """Cut the file after its last line feed; returns the number of lines."""
    file.seek(0)
    count = whole = 0
    for line in file:
        if line.endswith(b"\n"):
            count, whole = count + 1, whole + len(line)
    if file.tell() > whole:
        file.truncate(whole)
    return count


def _lines_from_start(name: str) -> Iterator[bytes]:
    with open(name, "rb") as file:
        yield from file


def _append(file: BinaryIO, line: str) -> None:
    """One write for the whole line, handed to the system at once; the file is opened for appending."""
    file.write(line.encode() + b"\n")
    file.flush()
