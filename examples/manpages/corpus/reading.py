"""Reading every page of packages or of a folder."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from tqdm import tqdm

from examples.manpages.corpus.debian import describe_package, fetch_packages, pages_of_package, read_package_names
from examples.manpages.corpus.examples import example_of
from examples.manpages.corpus.folder import pages_of_folder
from examples.manpages.corpus.pages import Example, Package, RawPage, Reason


@dataclass(frozen=True)
class Found:
    """Packages, the pages of each, and the names of those that were asked for and do not exist."""

    packages: list[Package]
    pages: Iterable[list[RawPage]]
    unknown: list[str] = field(default_factory=list)


def find_in_packages(names: Path, downloads: Path) -> Found:
    """The Debian packages that a file names, fetched unless they lie in `downloads`."""
    files, unknown = fetch_packages(read_package_names(names), downloads)
    # A package's pages are read when their turn comes: all of them at once would fill the memory.
    return Found([describe_package(path) for path in files], (list(pages_of_package(p)) for p in files), unknown)


def find_in_folder(folder: Path) -> Found:
    """The pages of a folder."""
    pages = list(pages_of_folder(folder))
    return Found([batch[0].package for batch in pages], pages)


def read_pages(found: Found, mandoc: Path) -> tuple[list[Example], Counter[Reason]]:
    """The examples in the order of the pages, and how many pages gave none, by reason."""
    examples: list[Example] = []
    dropped: Counter[Reason] = Counter()
    # Threads are enough: most of the time goes into mandoc.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        bar = tqdm(found.pages, total=len(found.packages), desc="reading pages", unit="package")
        for pages in bar:
            for result in pool.map(partial(example_of, mandoc=mandoc), pages):
                if isinstance(result, Reason):
                    dropped[result] += 1
                else:
                    examples.append(result)
    return examples, dropped
