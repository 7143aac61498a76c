"""What a package says of itself -> clean paragraphs, and a synopsis without what is said of packages only."""

from __future__ import annotations

import re
from collections.abc import Iterable

from examples.manpages.corpus.rendering import clean_line

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
