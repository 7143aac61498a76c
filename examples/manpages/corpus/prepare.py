"""Manual pages -> train, valid, test_seen and test_unseen as JSON Lines: document (the page) and summary (its NAME)."""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from examples.manpages.corpus.examples import example_of, find_mandoc
from examples.manpages.corpus.find_pages import (
    describe_package,
    fetch_packages,
    pages_of_folder,
    pages_of_package,
    read_package_names,
)
from examples.manpages.corpus.pages import Example, Package, RawPage, Reason, write_examples
from examples.manpages.corpus.selection import select
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError
from recipes.files import sha256_of

# --- reading every page of packages or of a folder --------------------------------------------------------------------


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


# --- the report: what was kept, and why the rest was dropped ----------------------------------------------------------

QUANTILES = (0.1, 0.5, 0.9, 0.99, 1.0)


def report_of(
    found: Found, mandoc: Path, splits: Mapping[str, Sequence[Example]], dropped: Counter[Reason]
) -> dict[str, Any]:
    """What manpages.json says; lengths are in words separated by white space."""
    packages = {name: Counter(example.package for example in examples) for name, examples in splits.items()}
    return {
        "pages": sum(map(len, splits.values())) + dropped.total(),
        **counts_of(splits, dropped),
        "packages": {name: dict(sorted(counts.items())) for name, counts in packages.items()},
        "versions": {package.name: package.version for package in sorted(found.packages, key=lambda p: p.name)},
        "packages_not_in_this_release": found.unknown,
        # mandoc tells no version.
        "mandoc_sha256": sha256_of([mandoc]),
    }


def counts_of(splits: Mapping[str, Sequence[Example]], dropped: Counter[Reason]) -> dict[str, Any]:
    """What was kept and dropped, and how long the kept documents and summaries are."""
    return {
        "kept": {name: len(examples) for name, examples in splits.items()},
        "dropped": {reason.value: count for reason, count in dropped.most_common()},
        "words": {name: _lengths(examples) for name, examples in splits.items() if examples},
    }


def _lengths(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    texts = {"document": [e.document for e in examples], "summary": [e.summary for e in examples]}
    return {field: _quantiles([len(text.split()) for text in column]) for field, column in texts.items()}


def _quantiles(lengths: Sequence[int]) -> dict[str, int]:
    values = np.quantile(lengths, QUANTILES, method="inverted_cdf")
    return {f"{quantile:g}": int(value) for quantile, value in zip(QUANTILES, values, strict=True)}


def describe(report: Mapping[str, Any]) -> str:
    """The report in lines, for people."""
    origins = {name: f"{len(packages):,} packages" for name, packages in report["packages"].items()}
    lines = describe_counts(report, "pages", origins)
    if unknown := report["packages_not_in_this_release"]:
        lines.append(f"not in this release of Debian: {', '.join(unknown)}")
    return "\n".join(lines)


def describe_counts(report: Mapping[str, Any], what: str, origins: Mapping[str, str]) -> list[str]:
    """Lines that say how many of `what` were kept and dropped; `origins` says what those of each split come from."""
    kept = report["kept"]
    lines = [f"{report[what]:,} {what}, {sum(kept.values()):,} kept:"]
    for name, count in kept.items():
        words = {field: q["0.5"] for field, q in report["words"].get(name, {}).items()}
        about = f", median words {words['document']:,} -> {words['summary']}" if words else ""
        lines.append(f"  {count:>7,}  {name} ({origins[name]}{about})")
    lines.append(f"{sum(report['dropped'].values()):,} dropped:")
    return lines + [f"  {count:>7,}  {reason}" for reason, count in report["dropped"].items()]


# --- the command ------------------------------------------------------------------------------------------------------

PROGRAM = "prepare_manpages"
PACKAGES = Path(__file__).with_name("packages.txt")
IF_INTERRUPTED = "no split was written; what was downloaded is used again"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args = build_parser().parse_args(argv)
    return run_command(PROGRAM, lambda: prepare(args.folder, args.packages, args.out), IF_INTERRUPTED)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, help="manual pages (default: those of Debian packages)")
    parser.add_argument(
        "--packages", type=Path, default=PACKAGES, metavar="FILE", help="names of packages (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    return parser


def prepare(folder: Path | None, packages: Path, out: Path) -> None:
    """Read the pages of a folder, or of packages that are fetched, and write the splits and manpages.json.

    Raises:
        LSGError: a tool, a folder or a package is missing, or no page gave an example.
    """
    downloads = out / "downloads"
    found = find_in_folder(folder) if folder else find_in_packages(packages, downloads)
    mandoc = find_mandoc(downloads)
    examples, unusable = read_pages(found, mandoc)
    if not examples:
        reasons = ", ".join(f"{reason.value}: {count}" for reason, count in unusable.most_common())
        raise LSGError(f"none of the {unusable.total()} manual pages gives an example ({reasons})")
    splits, dropped = select(examples)
    report = report_of(found, mandoc, splits, unusable + dropped)
    with staged_output(out) as aside:
        for name, chosen in splits.items():
            write_examples(chosen, aside / f"{name}.jsonl")
        (aside / "manpages.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{describe(report)}\nwrote {out}")
