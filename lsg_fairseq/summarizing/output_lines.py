"""What a line of the output looks like, and lines for a stream."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TextIO

from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.summarizing.documents import Document

logger = logging.getLogger(__name__)

# Where a summary goes; the second where a record has a summary of its own, the reference.
SUMMARY_FIELD, GENERATED_FIELD = "summary", "generated_summary"


@dataclass
class LineFormat:
    """Summaries as lines: text, or (`as_json`) the document's object with a field more, named or chosen here."""

    as_json: bool = False
    summary_field: str | None = None
    has_said: bool = False

    def line(self, document: Document, summary: str) -> str:
        """The line for a document, without line feed; a summary's own line feeds become spaces in text.

        Raises:
            LSGError: the document's object has the field already.
        """
        if not self.as_json:
            return " ".join(summary.split())
        record = {**document.record, self.field_for(document): summary}
        line = json.dumps(record, ensure_ascii=False)
        # JSON lets lone surrogates in, but they have no UTF-8.
        return line if _has_utf8(line) else json.dumps(record)

    def field_for(self, document: Document) -> str:
        """The field that gets the summary: nothing in the object is replaced."""
        record = document.record
        names = (SUMMARY_FIELD, GENERATED_FIELD) if self.summary_field is None else (self.summary_field,)
        free = [name for name in names if name not in record]
        if not free:
            raise LSGError(
                f"{document.where}: the object has the field {names[-1]!r} already, which would be replaced: name "
                "another with --summary-field"
            )
        if free[0] != names[0] and not self.has_said:
            self.has_said = True
            logger.info(f"objects with a {SUMMARY_FIELD!r} of their own keep it; they get {free[0]!r} beside it")
        return free[0]

    def belongs_to(self, line: Any, document: Document) -> bool:
        """Whether an object read from a line is the one written for a document, whatever its summary."""
        name = self.field_for(document)
        # Compared as text: NaN, which records may hold, is not equal to itself.
        return isinstance(line, dict) and json.dumps(line) == json.dumps({**document.record, name: line.get(name)})


class StreamOutput:
    """Lines for a stream that cannot be looked at again, such as standard output."""

    def __init__(self, stream: TextIO, lines: LineFormat) -> None:
        self.stream, self.lines, self.num_written = stream, lines, 0
        self.finished: dict[int, str] = {}

    def begin_window(self, window: Sequence[Document], start: int) -> None:
        """Nothing was written before."""

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


def _has_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
