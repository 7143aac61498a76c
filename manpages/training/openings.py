"""The first words of pages: what a page is about mostly stands there, and they are quick to read."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from lsg_fairseq.data.document_files import read_lines
from manpages.corpus.records import path_of

WORDS = 140  # about 260 tokens: pages are full of names, which are spelled in pieces


def opening_of(split: str) -> str:
    """The name of the file with a split's openings."""
    return f"{split}_{WORDS}_words.jsonl"


def write_opening(data: Path, split: str) -> None:
    """Write the pages of a split, cut to WORDS words, into a file in DATA; an interruption leaves no half of it.

    Raises:
        LSGError: the split has not been prepared.
    """
    lines = []
    for _, text in read_lines(path_of(data, split)):
        record = json.loads(text)
        lines.append(json.dumps(record | {"document": cut(record["document"], WORDS)}, ensure_ascii=False) + "\n")
    aside = data / f".{opening_of(split)}.partial"
    aside.write_text("".join(lines), encoding="utf-8")
    os.replace(aside, data / opening_of(split))


def cut(text: str, words: int) -> str:
    """The first words of a text, with the white space between them."""
    return re.match(rf"(?:\s*\S+){{0,{words}}}", text)[0]
