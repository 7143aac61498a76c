"""The first words of pages: what a page is about mostly stands there, and they are quick to read."""

from __future__ import annotations

import re
from pathlib import Path

from lsg_fairseq.data.output_folder import written_aside
from manpages.corpus.records import as_jsonl, read_records

WORDS = 140  # about 260 tokens: pages are full of names, which are spelled in pieces


def opening_of(split: str) -> str:
    """The name of the file with a split's openings."""
    return f"{split}_{WORDS}_words.jsonl"


def write_opening(data: Path, split: str) -> None:
    """Write the pages of a split, cut to WORDS words, into a file in DATA; an interruption leaves no half of it.

    Raises:
        LSGError: the split has not been prepared.
    """
    records = [record | {"document": cut(record["document"], WORDS)} for record in read_records(data, split)]
    with written_aside(data) as aside:
        (aside / opening_of(split)).write_text(as_jsonl(records), encoding="utf-8")


def cut(text: str, words: int) -> str:
    """The first words of a text, with the white space between them."""
    return re.match(rf"(?:\s*\S+){{0,{words}}}", text)[0]
