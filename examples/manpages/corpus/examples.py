"""One page -> one example, or the reason why not."""

from __future__ import annotations

import re
from pathlib import Path

from examples.manpages.corpus.leaks import copies_of, without_copies
from examples.manpages.corpus.name_section import is_name_section, parse_name_section
from examples.manpages.corpus.pages import Example, RawPage, Reason, UnusablePage, name_and_section, source_of
from examples.manpages.corpus.rendering import Section, read_sections, render

DESCRIPTION_WORDS = (3, 40)
FEWEST_BODY_WORDS = 50
# The commonest English words that no other European language shares a good part of.
ENGLISH = frozenset("the of and to is for in this with that are be it as if by not from or an which you can".split())
LEAST_ENGLISH = 0.05


def example_of(page: RawPage, mandoc: Path) -> Example | Reason:
    """The example that a page gives, or why it gives none."""
    try:
        name, section = name_and_section(page.path)
        sections = read_sections(render(source_of(page), mandoc))
        _, summary = parse_name_section(sections)
        check_description(summary)
        document = body_without(sections, summary)
        check_body(document)
    except UnusablePage as unusable:
        return unusable.reason
    return Example(document, summary, name, section, page.package.name, page.package.source)


def body_without(sections: list[Section], summary: str) -> str:
    """All sections but NAME, paragraphs and headings a blank line apart, with no copy of the description in them."""
    copies = copies_of(summary)
    blocks: list[str] = []
    for section in sections:
        kept = [text for paragraph in section.paragraphs if (text := without_copies(paragraph, copies))]
        if kept and not is_name_section(section):
            blocks += [text for text in (without_copies(section.heading, copies), *kept) if text]
    document = "\n\n".join(blocks)
    while copies.search(document):  # one that runs on from a paragraph to the next
        document = copies.sub("", document)
    return document


def check_description(summary: str) -> None:
    """Raise UnusablePage if a description has too few or too many words."""
    fewest, most = DESCRIPTION_WORDS
    count = len(re.findall(r"\w[\w'-]*", summary))
    if count < fewest:
        raise UnusablePage(Reason.SHORT_DESCRIPTION)
    if count > most:
        raise UnusablePage(Reason.LONG_DESCRIPTION)


def check_body(document: str, fewest: int = FEWEST_BODY_WORDS) -> None:
    """Raise UnusablePage if a body has fewer words than that, or is not English."""
    words = re.findall(r"[^\W\d_]+", document.lower())
    if len(words) < fewest:
        raise UnusablePage(Reason.SHORT_BODY)
    if sum(word in ENGLISH for word in words) < LEAST_ENGLISH * len(words):
        raise UnusablePage(Reason.NOT_ENGLISH)
