"""The NAME section: `names - description`."""

from __future__ import annotations

import re

from examples.manpages.corpus.pages import Reason, UnusablePage
from examples.manpages.corpus.rendering import Section

HEADINGS = ("NAME", "NAMES")
# The dash of mdoc is an en dash; pages by hand also have two hyphens or an em dash, and some miss a space.
SEPARATOR = re.compile(r"\s+(?:--?|\u2013|\u2014)\s+|\s+[-\u2013\u2014](?=[A-Za-z])|(?<=\w)--?\s+")


def is_name_section(section: Section) -> bool:
    """Whether this is NAME, however it is capitalised."""
    return section.heading.upper() in HEADINGS


def parse_name_section(sections: list[Section]) -> tuple[list[str], str]:
    """The page's names and its description, which are in the first paragraph; others hold remarks.

    Raises:
        UnusablePage: there is no NAME section, or it has not exactly one description.
    """
    found = [section for section in sections if is_name_section(section)]
    if not found:
        raise UnusablePage(Reason.NO_NAME)
    lines = found[0].paragraphs[0].split("\n") if found[0].paragraphs else []
    names, *rest = SEPARATOR.split(" ".join(lines), maxsplit=1)
    if not names or not rest or not rest[0] or sum(bool(SEPARATOR.search(line)) for line in lines) > 1:
        raise UnusablePage(Reason.NO_DESCRIPTION)
    return [name for name in re.split(r"[,\s]+", names) if name], rest[0].strip()
