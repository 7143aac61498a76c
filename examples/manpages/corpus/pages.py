"""What goes in and what comes out: a page as it was found, an example and its JSON, and why a page gave none."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path, PurePath
from typing import Any

from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.modules.lsg_config import LSGError

# --- pages and examples -----------------------------------------------------------------------------------------------

MAX_BYTES = 4 << 20  # unpacked; the longest real pages are under 2 MB
FILE_NAME = re.compile(r"(?P<name>.+)\.(?P<section>[1-9n][A-Za-z0-9_+-]*)(\.gz)?")
LOCALE = re.compile(r"[a-z]{2,3}([_@.][\w@.-]+)?")


class Reason(StrEnum):
    """Why a page, or what a package says of itself, gave no example, as the counts say it."""

    ALIAS = "another name of a page: a link or .so"
    TRANSLATED = "in a folder of translations"
    FILE_NAME = "file name is not NAME.SECTION"
    TOO_LARGE = f"over {MAX_BYTES >> 20} MiB"
    UNREADABLE = "compressed data is damaged"
    INCLUDES = "includes another file"
    UNSUPPORTED = "uses what the renderer does not support"
    NO_NAME = "no NAME section"
    NO_DESCRIPTION = "NAME is not `names - description`"
    SHORT_DESCRIPTION = "description too short"
    LONG_DESCRIPTION = "description too long"
    NOT_ENGLISH = "not English"
    SHORT_BODY = "body too short"
    GENERIC = "description shared by many pages"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near-duplicate"
    LIKE_TRAINING = "of a held-out package, but like a page of a training package"
    UNKNOWN_SOURCE = "package of another architecture: its source is not known"
    NO_CONTENT = "transitional package or metapackage, or nothing but what many packages say"
    HELD_OUT_SOURCE = "of a source package of test_unseen"
    SAME_AS_HELD_OUT = "same description as a page of valid or of a test set"
    LIKE_HELD_OUT = "like a part of a page of valid or of a test set"
    SAME_AS_ANOTHER = "same description as another package"
    LIKE_ANOTHER = "like another package"
    SHARED = "description that many packages have, but for their names"


class UnusablePage(Exception):
    """A page that gives no example; `reason` says why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


@dataclass(frozen=True)
class Package:
    """Where pages come from. Packages of one source are held out together."""

    name: str
    version: str = ""
    source: str = ""


@dataclass(frozen=True)
class RawPage:
    """A page as it was found; None is the content of a link, whatever it points to."""

    package: Package
    path: PurePath
    content: bytes | None


@dataclass(frozen=True)
class Example:
    """A line of the data set, and the source of its package."""

    document: str
    summary: str
    name: str
    section: str
    package: str
    source: str

    @property
    def key(self) -> str:
        """What orders and hashes examples."""
        return f"{self.package}/{self.name}.{self.section}"


def name_and_section(path: PurePath) -> tuple[str, str]:
    """("git-add", "1") for .../man1/git-add.1.gz.

    Raises:
        UnusablePage: the path is no page's, or that of a translation (.../man/de/man1/...).
    """
    language, above = path.parent.parent.name, path.parent.parent.parent.name
    if above == "man" and LOCALE.fullmatch(language) and language != "man":
        raise UnusablePage(Reason.TRANSLATED)
    match = FILE_NAME.fullmatch(path.name)
    if not match:
        raise UnusablePage(Reason.FILE_NAME)
    return match["name"], match["section"]


def source_of(page: RawPage) -> bytes:
    """The page's roff source, unpacked.

    Raises:
        UnusablePage: a link, too large, damaged, another page's alias, or with another file's text in it.
    """
    if page.content is None:
        raise UnusablePage(Reason.ALIAS)
    roff = _unpack(page.content)
    if len(roff) > MAX_BYTES:
        raise UnusablePage(Reason.TOO_LARGE)
    lines = [line for line in roff.splitlines() if line.strip() and not line.startswith((b'.\\"', b"'\\\""))]
    if any(re.match(rb"[.']\s*so\s", line) for line in lines):
        raise UnusablePage(Reason.ALIAS if len(lines) == 1 else Reason.INCLUDES)
    return roff


def _unpack(content: bytes) -> bytes:
    if not content.startswith(b"\x1f\x8b"):
        return content
    unpacker = zlib.decompressobj(wbits=31)
    try:
        # No further than the limit: a few kilobytes can hold gigabytes.
        text = unpacker.decompress(content, MAX_BYTES + 1)
    except zlib.error as error:
        raise UnusablePage(Reason.UNREADABLE) from error
    if not unpacker.eof and len(text) <= MAX_BYTES:
        raise UnusablePage(Reason.UNREADABLE)
    return text


# --- the examples of a split as JSON Lines ----------------------------------------------------------------------------

TEST_SETS = ("test_seen", "test_unseen")
EVALUATED = ("valid", *TEST_SETS)  # what a model can be scored on: it was trained on none of them
FIELDS = ("document", "summary", "name", "section", "package")
PREPARED_BY = {"descriptions": "python -m examples.manpages.descriptions.prepare"}
Record = dict[str, str]


def as_jsonl(records: Iterable[Mapping[str, Any]]) -> str:
    """A record a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write_examples(examples: Sequence[Example], path: Path) -> None:
    """One example a line."""
    records = ({field: getattr(example, field) for field in FIELDS} for example in examples)
    path.write_text(as_jsonl(records), encoding="utf-8")


def path_of(data: Path, split: str) -> Path:
    """Where the examples of a split are.

    Raises:
        LSGError: the split has not been prepared.
    """
    path = data / f"{split}.jsonl"
    if not path.is_file():
        command = PREPARED_BY.get(split.partition("_")[0], "scripts/prepare_manpages.py")
        raise LSGError(f"{path} does not exist: run {command} --out {data} first")
    return path


def read_records(data: Path, split: str) -> list[Record]:
    """The examples of a split; raises as path_of."""
    return [json.loads(text) for _, text in read_lines(path_of(data, split))]
