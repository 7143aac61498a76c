"""Debian's lists of packages and of descriptions: fetched by apt, which checks signatures, into a folder of our own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.manpages.corpus.debian import NO_SANDBOX, check_tools
from lsg_fairseq.modules.lsg_config import LSGError

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
