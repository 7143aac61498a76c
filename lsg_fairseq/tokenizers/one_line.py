"""Texts in files and logs that hold a text a line."""

from __future__ import annotations

import re

# What readers take for the end of a line: everything that str.splitlines does.
LINE_BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_BREAK_AND_SPACES = re.compile(rf"\s*[{LINE_BREAKS}]\s*")


def on_one_line(text: str) -> str:
    """The text on one line, its line breaks written as `<n>`, which is how Pegasus writes them."""
    return _BREAK_AND_SPACES.sub(" <n> ", text).strip()
