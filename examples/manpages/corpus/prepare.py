"""Manual pages -> train, valid, test_seen and test_unseen as JSON Lines: document (the page) and summary (its NAME)."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from examples.manpages.corpus.reading import find_in_folder, find_in_packages, read_pages
from examples.manpages.corpus.records import write_examples
from examples.manpages.corpus.rendering import find_mandoc
from examples.manpages.corpus.report import describe, report_of
from examples.manpages.corpus.selection import select
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.output_folder import written_aside
from lsg_fairseq.modules.lsg_config import LSGError

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
    with written_aside(out) as aside:
        for name, chosen in splits.items():
            write_examples(chosen, aside / f"{name}.jsonl")
        (aside / "manpages.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{describe(report)}\nwrote {out}")
