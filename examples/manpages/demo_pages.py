"""The pages of `make demo`: long ones of packages that the model never saw, drawn by a hash.

python -m examples.manpages.demo_pages [--data manpages-run]

One page of each package below, all of them in test_unseen and under licences that let anyone pass a page on
(demo/licences/PACKAGE.txt). They were drawn before any model had described them. Writes
demo/pages.jsonl.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from examples.manpages.corpus.pages import Record, as_jsonl, read_records
from examples.manpages.corpus.selection import fraction
from examples.manpages.training.start import START
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer

PROGRAM = "examples.manpages.demo_pages"
PAGES = Path(__file__).parent / "demo" / "pages.jsonl"
SPLIT = "test_unseen"
LICENCES = {
    "bind9-utils": "MPL-2.0",
    "libio-compress-perl": "Artistic-1.0-Perl or GPL-1.0-or-later",
    "libopus-doc": "BSD-3-Clause",
    "libpam-modules": "BSD-3-Clause or GPL-1.0-or-later",
    "libpcre3-dev": "BSD-3-Clause",
    "libtype-tiny-perl": "Artistic-1.0-Perl or GPL-1.0-or-later",
}
SHORTEST, LONGEST = 1500, 4094  # tokens: nearly three times what MiniLM reads, and what the model reads without cutting
SEED = "pages of the demo, 1"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    args = parser.parse_args(argv)

    def work() -> None:
        tokenizer = load_tokenizer(args.data / START / "lsg" / "tokenizer")
        write_pages(choose(read_records(args.data, SPLIT), lambda text: len(tokenizer.encode(text))), PAGES)

    return run_command(PROGRAM, work)


def choose(records: Sequence[Record], length: Callable[[str], int]) -> list[Record]:
    """One long page of each package, in the order of the packages' names.

    Args:
        length: how many tokens a text has.

    Raises:
        LSGError: a package has none.
    """
    chosen = []
    for package, licence in LICENCES.items():
        pages = [
            page for page in records if page["package"] == package and SHORTEST <= length(page["document"]) <= LONGEST
        ]
        if not pages:
            raise LSGError(f"{SPLIT} has no page of {package} with {SHORTEST} to {LONGEST} tokens: prepare it anew")
        chosen.append(min(pages, key=_place) | {"licence": licence})
    return chosen


def _place(page: Record) -> float:
    return fraction(f"{SEED} {page['package']}/{page['name']}.{page['section']}")


def write_pages(pages: Sequence[Record], path: Path) -> None:
    """A page a line."""
    path.write_text(as_jsonl(pages), encoding="utf-8")
    for page in pages:
        print(f"{page['name']}({page['section']}) of {page['package']}: {len(page['document'].split()):,} words")


if __name__ == "__main__":
    sys.exit(main())
