"""Debian's package descriptions -> descriptions_train and descriptions_valid as JSON Lines.

python -m examples.manpages.descriptions.prepare, after scripts/prepare_manpages.py, whose test sets they must not give
away.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.manpages.corpus.pages import Example, Reason, write_examples
from examples.manpages.corpus.prepare import counts_of, describe_counts
from examples.manpages.descriptions.examples import read_examples
from examples.manpages.descriptions.lists import PackageLists, fetch_lists, read_descriptions, read_sources
from examples.manpages.descriptions.selection import HeldOut, hold_out, read_split_pages, select_descriptions
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError
from recipes.files import sha256_of

PROGRAM = "examples.manpages.descriptions.prepare"
PREFIX = "descriptions"
IF_INTERRUPTED = "no descriptions were written; lists that were downloaded are used again"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args = build_parser().parse_args(argv)
    lists = PackageLists(*args.lists) if args.lists else None
    return run_command(PROGRAM, lambda: prepare_descriptions(lists, args.out), IF_INTERRUPTED)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__)
    parser.add_argument(
        "--lists",
        nargs=2,
        type=Path,
        metavar=("TRANSLATION", "PACKAGES"),
        help="unpacked files Translation-en and Packages of a release (default: those that apt fetches)",
    )
    parser.add_argument("--out", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    return parser


def prepare_descriptions(lists: PackageLists | None, out: Path) -> None:
    """Read the lists, or fetch them, and write what is kept and descriptions.json.

    Raises:
        LSGError: OUT has no pages, lists are missing or no lists, or no description gave an example.
    """
    pages = read_split_pages(out)
    lists = lists or fetch_lists(out / "downloads" / "apt")
    sources = read_sources(lists.packages)
    examples, unusable = read_examples(list(read_descriptions(lists.descriptions)), sources)
    if not examples:
        reasons = ", ".join(f"{reason.value}: {count}" for reason, count in unusable.most_common())
        raise LSGError(f"none of the {unusable.total()} descriptions gives an example ({reasons})")
    held_out = hold_out(pages, sources)
    splits, dropped = select_descriptions(examples, held_out)
    report = report_of_descriptions(lists, held_out, splits, unusable + dropped)
    with staged_output(out) as aside:
        for name, chosen in splits.items():
            write_examples(chosen, aside / f"{PREFIX}_{name}.jsonl")
        (aside / f"{PREFIX}.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    origins = {name: f"{count:,} source packages" for name, count in report["sources"].items()}
    lines = describe_counts(report, PREFIX, origins)
    if names := held_out.not_in_lists:
        found = f"{len(names):,} packages of test_unseen are not in the lists ({', '.join(names)})"
        lines.append(f"{found}: each counts as a source of its own")
    print("\n".join([*lines, f"wrote {out}"]))


def report_of_descriptions(
    lists: PackageLists, held_out: HeldOut, splits: Mapping[str, Sequence[Example]], dropped: Counter[Reason]
) -> dict[str, Any]:
    """What descriptions.json says; lengths are in words separated by white space."""
    return {
        PREFIX: sum(map(len, splits.values())) + dropped.total(),
        **counts_of(splits, dropped),
        "sources": {name: len({example.source for example in examples}) for name, examples in splits.items()},
        "held_out_sources": sorted(held_out.sources),
        "held_out_packages_not_in_lists": len(held_out.not_in_lists),
        "release": lists.release,
        "sha256": {
            "Translation-en": sha256_of([lists.descriptions]),
            "Packages": sha256_of([lists.packages]),
        },
    }


if __name__ == "__main__":
    sys.exit(main())
