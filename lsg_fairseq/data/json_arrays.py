"""A JSON file that holds one array, parsed element by element: memory does not depend on its length."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from lsg_fairseq.data.text_lines import DAMAGED_GZIP, MAX_TEXT, damaged_gzip, too_large
from lsg_fairseq.modules.lsg_config import LSGError

CHUNK = 2**20
DECODER = json.JSONDecoder()
# If the text in memory ends within a value, json reports an error at most this many characters before that end (two
# \uXXXX, -Infinity); only for an unterminated string it reports where the string begins.
TORN = 16
OPEN_STRING = "Unterminated string"


def array_elements(file: BinaryIO, name: str) -> Iterator[tuple[int, Any]]:
    """Yield (number from 1, value) for each element of the array in a file.

    Raises:
        LSGError: the file is damaged, truncated or not UTF-8, or has text after the array.
    """
    text = _Text(file, name)
    text.take("[")
    while text.next_character() != "]" or text.number:
        text.number += 1
        yield text.number, text.value()
        if text.next_character() != ",":
            break
        text.take(",")
    text.take("]")
    if text.next_character():
        raise text.error("there is text after the array")


class _Text:
    """The part of a file's text that is in memory; `number` is that of the current element, from 1."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.file, self.name, self.number = file, name, 0
        self.decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text, self.place, self.dropped = "", 0, 0  # `dropped` characters came before `text`
        self.num_bytes, self.has_ended = 0, False

    def next_character(self) -> str:
        """The next character that is not white space, without consuming it; "" at the end of the file."""
        while True:
            while self.place < len(self.text):
                if not self.text[self.place].isspace():
                    return self.text[self.place]
                self.place += 1
            if not self._read_on():
                return ""

    def take(self, character: str) -> None:
        """Consume a character; raises LSGError if the next one is different."""
        found = self.next_character()
        if not found:
            raise LSGError(f"{self.name} ends after object {self.number}, within its array: fetch it again")
        if found != character:
            raise self.error(f"{found!r} instead of {character!r}")
        self.place += 1

    def value(self) -> Any:
        """Consume the next JSON value and return it; raises LSGError if it is not valid."""
        self.next_character()
        while True:
            try:
                value, self.place = DECODER.raw_decode(self.text, self.place)
                return value
            except json.JSONDecodeError as error:
                is_torn = error.msg.startswith(OPEN_STRING) or error.pos > len(self.text) - TORN
                if not (is_torn and self._read_on()):
                    self.place = min(error.pos, len(self.text))
                    raise self.error(error.msg) from error
            except RecursionError as error:
                raise self.error("it is nested too deeply") from error
            if len(self.text) > MAX_TEXT:
                raise too_large(f"{self.name}, object {self.number},")

    def error(self, reason: str) -> LSGError:
        """The error for the current position."""
        at = self.dropped + self.place + 1
        return LSGError(
            f"{self.name}, object {self.number}, is not valid JSON ({reason}, at character {at:,} of the file): it "
            "must be one array of objects"
        )

    def _read_on(self) -> bool:
        """Drop consumed text and read more: at least as much as is left, so that a long value is parsed few times."""
        if self.has_ended:
            return False
        left = self.text[self.place :]
        torn = len(self.decoder.getstate()[0])  # bytes of an incomplete character
        try:
            raw = self.file.read(max(CHUNK, len(left)))
            more = self.decoder.decode(raw, final=not raw)
        except DAMAGED_GZIP as error:
            raise damaged_gzip(self.name, f"object {self.number}", error) from error
        except UnicodeDecodeError as error:
            at = self.num_bytes - torn + error.start + 1
            raise LSGError(f"{self.name} is not UTF-8 text (byte {at:,} of the file): save it as UTF-8") from error
        self.num_bytes += len(raw)
        self.has_ended = not raw
        self.dropped += self.place
        self.text, self.place = left + more, 0
        return bool(raw)
