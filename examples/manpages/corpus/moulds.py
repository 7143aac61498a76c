"""Texts that are the same but for the names in them: "Functions for wxSizer class" and the like are from one mould."""

from __future__ import annotations

import re
from collections.abc import Container

MOST_SHARING = 10  # what more pages, or packages of more sources, say of themselves says too little of any of them
WORD = re.compile(r"[a-z0-9]+")


def words_of_name(name: str) -> set[str]:
    """The words that a name consists of, in lower case."""
    return set(WORD.findall(name.lower()))


def mould_of(text: str, name: Container[str]) -> str:
    """The words of the text, in lower case, without those of the name."""
    return " ".join(word for word in WORD.findall(text.lower()) if word not in name)
