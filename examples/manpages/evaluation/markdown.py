"""Tables of Markdown in which texts stay what they are."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

# What Markdown, or HTML in it, would read as something else than text wherever it stands in a line. What counts at the
# start of a line alone ("1." makes a list) stays: no text starts one, in a cell or behind the marks of a heading.
SPECIAL = re.compile(r"[\\`*_{}\[\]<>#|~&$@]")


def escape(text: str) -> str:
    """A text in one line of Markdown that shows as it is, but for white space."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], alignment: str) -> str:
    """A table; `alignment` has an l or r for each column. Cells are Markdown."""
    ruler = ["--:" if side == "r" else "---" for side in alignment]
    lines = [header, ruler, *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
