"""Sentences that say nothing of what is in a package: those of many packages, and "This is a metapackage."."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Sequence

from examples.manpages.corpus.leaks import FEWEST_WORDS, SENTENCE_END
from examples.manpages.corpus.moulds import MOST_SHARING, mould_of, words_of_name
from examples.manpages.corpus.pages import Package

NO_CONTENT = re.compile(
    r"\bmeta-?packages?\b|\b(transitional|dummy|empty|virtual|dependency|placeholder)( [\w-]+)? packages?\b"
    r"|\btransitional placeholder\b|\bsafely (be )?removed?\b",
    re.IGNORECASE,
)


def sentence_mould(sentence: str, package: str) -> str:
    """The sentence without the words of the package's name, with "lib" and without."""
    name = words_of_name(package)
    return mould_of(sentence, name | {word.removeprefix("lib") for word in name})


def shared_moulds(described: Iterable[tuple[Package, Sequence[str]]]) -> frozenset[str]:
    """The moulds of sentences that packages of more than MOST_SHARING sources have in their paragraphs."""
    sources = defaultdict(set)
    for package, paragraphs in described:
        for sentence in _whole_sentences(paragraphs):
            sources[sentence_mould(sentence, package.name)].add(package.source)
    return frozenset(mould for mould, having in sources.items() if len(having) > MOST_SHARING)


def has_no_content(text: str) -> bool:
    """Whether a text says that a package is a transitional one, a metapackage or the like."""
    return bool(NO_CONTENT.search(text))


def without_boilerplate(paragraph: str, package: str, shared: Container[str]) -> str:
    """The paragraph without the sentences of those moulds and those that say that there is nothing in the package."""
    lines = [
        " ".join(sentence for sentence in SENTENCE_END.split(line) if not _is_boilerplate(sentence, package, shared))
        for line in paragraph.split("\n")
    ]
    return "\n".join(filter(None, lines))


def _is_boilerplate(sentence: str, package: str, shared: Container[str]) -> bool:
    return has_no_content(sentence) or (_is_whole(sentence) and sentence_mould(sentence, package) in shared)


def _whole_sentences(paragraphs: Sequence[str]) -> Iterator[str]:
    for paragraph in paragraphs:
        for line in paragraph.split("\n"):
            yield from filter(_is_whole, SENTENCE_END.split(line))


def _is_whole(sentence: str) -> bool:
    """Not "Features:", which many have and which leads to what is a package's own."""
    return sentence.endswith(".") and len(sentence.split()) >= FEWEST_WORDS
