"""What was kept and why the rest was dropped, for manpages.json and for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from examples.manpages.corpus.pages import Example, Reason
from examples.manpages.corpus.reading import Found
from recipes.files import sha256_of

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
