"""Taking the description out of the text that it is to be written from."""

from __future__ import annotations

import re

SENTENCE_END = re.compile(r"(?<=[.!?;:])\s+")
CUT = "\x00"
FEWEST_WORDS = 4  # what is left of a sentence without the description is dropped if it has fewer


def copies_of(description: str) -> re.Pattern[str]:
    """A pattern for the description, whatever its capitals, line breaks and last full stop."""
    words = description.rstrip(" .!?;:,").split()
    return re.compile(r"(?<!\w)" + r"\s+".join(map(re.escape, words)) + r"(?!\w)", re.IGNORECASE)


def without_copies(paragraph: str, copies: re.Pattern[str]) -> str:
    """The paragraph with no copy in it; sentences that hardly said more go altogether ("ls - list files.")."""
    while copies.search(paragraph):
        lines = copies.sub(CUT, paragraph).split("\n")
        paragraph = "\n".join(filter(None, map(_close_gaps, lines)))
    return paragraph


def _close_gaps(line: str) -> str:
    if CUT not in line:
        return line
    return " ".join(filter(None, (_rest_of(sentence) for sentence in SENTENCE_END.split(line))))


def _rest_of(sentence: str) -> str:
    if CUT not in sentence:
        return sentence
    rest = sentence.replace(CUT, " ")
    return " ".join(rest.split()) if len(re.findall(r"\w[\w'-]*", rest)) >= FEWEST_WORDS else ""
