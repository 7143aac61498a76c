"""Debian's lists of packages and of descriptions, fetched and read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.manpages.corpus.find_pages import NO_SANDBOX, check_tools
from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.modules.lsg_config import LSGError

# --- fetched by apt, which checks signatures, into a folder of our own ------------------------------------------------

# Plain files, in English; the system's hooks, which clean up and rebuild caches elsewhere, are not run.
CONFIGURATION = """\
#clear Acquire::Languages;
Acquire::Languages { "en"; };
Acquire::GzipIndexes "false";
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
"""
MAIN = ("Origin: Debian", "Label: Debian", "Component: main")
COLUMNS = "$(CODENAME)|$(VERSION)|$(CREATED_BY)|$(FILENAME)"
BY_HAND = "name files with --lists"


@dataclass(frozen=True)
class PackageLists:
    """The files Translation-en (descriptions) and Packages (their sources) of a release, and its name and version."""

    descriptions: Path
    packages: Path
    release: str = ""


def fetch_lists(folder: Path) -> PackageLists:
    """The lists of the main section of the release of Debian that apt is set up for; those in `folder` are reused.

    Neither updates nor security: they change from day to day, and describe the same packages.

    Raises:
        LSGError: apt is missing, nothing could be fetched, or apt is set up for none or several releases.
    """
    check_tools("apt-get")
    folder = folder.resolve()
    for name in ("lists/partial", "cache/archives/partial"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "apt.conf").write_text(CONFIGURATION)
    if lists := _find_lists(folder):
        return lists
    print("fetching Debian's package lists", file=sys.stderr)
    done = _apt_get(folder, ["update"])
    # Another source of the system's may have failed: what counts is whether the lists are there.
    if lists := _find_lists(folder):
        return lists
    words = done.stderr.strip() or "no line of its sources is one"
    raise LSGError(f"apt fetched no lists of a Debian release ({words}): try again, or {BY_HAND}")


def _find_lists(folder: Path) -> PackageLists | None:
    printed = _apt_get(folder, ["indextargets", "--format", COLUMNS, *MAIN]).stdout
    releases: dict[str, dict[str, Path]] = {}
    for line in printed.splitlines():
        codename, version, kind, path = line.split("|", maxsplit=3)
        if "-" not in codename:  # bookworm-updates and the like
            # The first of several architectures is the system's own.
            releases.setdefault(f"{codename} {version}".strip(), {}).setdefault(kind, Path(path))
    complete = {name: lists for name, lists in releases.items() if {"Packages", "Translations"} <= lists.keys()}
    if len(complete) > 1:
        raise LSGError(f"apt is set up for several releases of Debian ({', '.join(complete)}): {BY_HAND}")
    for release, lists in complete.items():
        return PackageLists(lists["Translations"], lists["Packages"], release)
    return None


def _apt_get(folder: Path, words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    options = ["-c", str(folder / "apt.conf"), *NO_SANDBOX]
    options += ["-o", f"Dir::State::lists={folder / 'lists'}", "-o", f"Dir::Cache={folder / 'cache'}"]
    return subprocess.run(["apt-get", "-q", *options, *words], capture_output=True, text=True)


# --- stanzas of `Field: value` lines, a blank line between two of them (deb822(5)) ------------------------------------

Stanza = dict[str, list[str]]
NAME, SOURCE, DESCRIPTION = "Package", "Source", "Description-en"


@dataclass(frozen=True)
class Description:
    """What a package says of itself: a line, and the lines of the extended description without their first blank."""

    package: str
    synopsis: str
    extended: tuple[str, ...]


def read_descriptions(path: Path) -> Iterator[Description]:
    """The descriptions in a file Translation-en, in its order; a package of two versions has two.

    Raises:
        LSGError: no such file, or it is no list of descriptions.
    """
    for number, stanza in read_stanzas(path, (NAME, DESCRIPTION)):
        synopsis, *extended = _field(stanza, DESCRIPTION, path, number)
        yield Description(_field(stanza, NAME, path, number)[0], synopsis, tuple(extended))


def read_sources(path: Path) -> dict[str, str]:
    """The source package of each package in a file Packages: its own name where it has no field of that.

    Raises:
        LSGError: no such file, or it is no list of packages.
    """
    sources: dict[str, str] = {}
    for number, stanza in read_stanzas(path, (NAME, SOURCE)):
        [package] = _field(stanza, NAME, path, number)
        # "Source: name (version)" where the versions differ.
        sources[package] = stanza.get(SOURCE, [package])[0].partition(" ")[0]
    return sources


def _field(stanza: Stanza, name: str, path: Path, number: int) -> list[str]:
    if not stanza.get(name, [""])[0]:
        raise LSGError(f"{path}: the stanza that ends before line {number} has no field {name}: is it the right list?")
    return stanza[name]


def read_stanzas(path: Path, fields: Collection[str]) -> Iterator[tuple[int, Stanza]]:
    """The number of the line after each stanza, and the lines of those of the fields that it has.

    Raises:
        LSGError: no such file, no stanza in it, or a line that is neither a field nor goes on with one.
    """
    number, found, stanza, value = 0, False, {}, None
    for number, line in read_lines(path):
        if not line:
            if value is not None:
                yield number, stanza
            stanza, value = {}, None
        elif line.startswith((" ", "\t")) and value is not None:
            value.append(line[1:])
        else:
            name, value = _parse_field(line, path, number)
            found = True
            if name in fields:
                stanza[name] = value
    if not found:
        raise LSGError(f"{path} has no stanza: it is empty")
    if value is not None:
        yield number + 1, stanza


def _parse_field(line: str, path: Path, number: int) -> tuple[str, list[str]]:
    name, colon, text = line.partition(":")
    if not colon or not name or " " in name:
        raise LSGError(f"{path}, line {number}, is no line of a package list (`Field: value`): {line[:60]!r}")
    return name, [text.strip()]
