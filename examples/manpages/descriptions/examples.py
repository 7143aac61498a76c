"""What packages say of themselves -> examples, or the reasons why not."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from tqdm import tqdm

from examples.manpages.corpus.examples import (
    FEWEST_WORDS_LEFT,
    SENTENCE_END,
    Section,
    body_without,
    check_body,
    check_description,
    clean_line,
)
from examples.manpages.corpus.pages import Example, Package, Reason, UnusablePage
from examples.manpages.corpus.selection import MOST_SHARING, mould_of, words_of_name
from examples.manpages.descriptions.lists import Description

# --- clean paragraphs, and a synopsis without what is said of packages only -------------------------------------------

ITEM = re.compile(r"([-+*o•·°]|\d+[.)])\s+\S")
# What stands before the last part of a synopsis: "(development files)", " - documentation", "; profiling libraries".
SEPARATOR = re.compile(r"\s+(?:--?|\u2013|\u2014)\s+|[;:]\s+|\s*(?=\()")
# A last part of these words alone tells packages of one source apart, and says nothing of what they are about.
PACKAGING = frozenset(
    """a all an and api arch architecture assemblies base basic bin binaries binary bindings bit build cli
    client clients code command command-line common compatibility core cross cross-compiling daemon data debug
    debugging default dependency deprecated dev devel developer development dialect dkms doc docs documentation
    dummy example examples executable executables extra file files for gir go gobject gobject-introspection
    golang graphical gui header headers headless html in independent info interface introspection java javadoc
    javascript jni lib libraries library libs line lisp main manual manuals meta meta-package metapackage module
    modules multilib n32 node node.js nodejs of package packages pages pdf perl plugin plugins private profiling
    program programs python python2 python3 qch qml qt qt5 qt6 reference ruby run-time runtime rust scripts
    server shared signed source sources standalone static support symbols test tests the this tool tools
    transitional translations utilities utility utils version with x32 2 2.x 3 3.x 32 32-bit 32bit 64 64-bit
    64bit"""
    .split()
)  # fmt: skip


def paragraphs_of_description(lines: Iterable[str]) -> list[str]:
    """The paragraphs, each of one line but for list items and indented lines, which are lines of their own.

    A line that is a single full stop parts paragraphs (Debian Policy, 5.6.13); how lists are written is a habit.
    """
    paragraphs: list[list[str]] = [[]]
    start, is_item = 0, False
    for line in lines:
        text = clean_line(line)
        indent = len(line) - len(line.lstrip())
        if text in ("", "."):
            paragraphs.append([])
            continue
        starts_item = bool(ITEM.match(text))
        is_next = indent >= start if is_item else indent == start == 0
        if paragraphs[-1] and is_next and not starts_item:
            joint = "" if re.search(r"\w-$", paragraphs[-1][-1]) else " "
            paragraphs[-1][-1] += joint + text
        else:
            paragraphs[-1].append(text)
            start, is_item = indent, starts_item
    return ["\n".join(paragraph) for paragraph in paragraphs if paragraph]


def without_packaging(synopsis: str) -> str:
    """The synopsis without the last parts that consist of words for kinds of packages."""
    text = clean_line(synopsis)
    for separator in SEPARATOR.finditer(text):
        words = re.findall(r"\w[\w.+-]*(?<!\.)", text[separator.end() :].lower())
        if words and PACKAGING.issuperset(words):
            return text[: separator.start()]
    return text


# --- sentences that say nothing of a package: those of many packages, and "This is a metapackage." --------------------

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
    return sentence.endswith(".") and len(sentence.split()) >= FEWEST_WORDS_LEFT


# --- examples ---------------------------------------------------------------------------------------------------------

SECTION = "package"
FEWEST_WORDS = 15


def read_examples(
    descriptions: Sequence[Description], sources: Mapping[str, str]
) -> tuple[list[Example], Counter[Reason]]:
    """The examples in the order of the descriptions, and how many descriptions gave none, by reason."""
    known, dropped = [], Counter()
    for description in descriptions:
        if source := sources.get(description.package):
            package = Package(description.package, source=source)
            known.append((package, description.synopsis, paragraphs_of_description(description.extended)))
        else:
            dropped[Reason.UNKNOWN_SOURCE] += 1
    shared = shared_moulds((package, paragraphs) for package, _, paragraphs in known)
    examples = []
    bar = tqdm(known, desc="reading descriptions", unit="package", disable=len(known) < 1000)
    for package, synopsis, paragraphs in bar:
        try:
            examples.append(example_of_package(package, synopsis, paragraphs, shared))
        except UnusablePage as unusable:
            dropped[unusable.reason] += 1
    return examples, dropped


def example_of_package(
    package: Package, synopsis: str, paragraphs: Sequence[str], shared: Container[str] = ()
) -> Example:
    """The example that a description gives; `shared` has the moulds of sentences that many packages have.

    Raises:
        UnusablePage: it gives none.
    """
    summary = without_packaging(synopsis)
    own = [text for paragraph in paragraphs if (text := without_boilerplate(paragraph, package.name, shared))]
    if has_no_content(summary) or (paragraphs and not own):
        raise UnusablePage(Reason.NO_CONTENT)
    check_description(summary)
    document = body_without([Section("", own)], summary)
    check_body(document, FEWEST_WORDS)
    return Example(document, summary, package.name, SECTION, package.name, package.source)
