"""DATA/box -> the package, with model card and licence, if the results say that it is good enough.

python -m examples.manpages.box.put [--data manpages-run] [--results examples/manpages/results/results.json]

Good enough: surely better than both baselines on pages of packages that training had (the target of the results).
Whether its sentences make sense is for people to judge: examples/manpages/results/examples.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.manpages.box.card import model_card
from examples.manpages.box.files import CARD, LICENCE, hashes
from examples.manpages.box.pack import BOX
from examples.manpages.corpus.records import TEST_SETS
from examples.manpages.evaluation.results import OUT
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.output_folder import written_aside
from lsg_fairseq.hub.entry_checkpoints import DEFAULT_ENTRY, ENTRY_CHECKPOINTS
from lsg_fairseq.modules.lsg_config import LSGError

PROGRAM = "examples.manpages.box.put"
# MiniLM is under it, so what was made of MiniLM is, and whoever passes it on has to add its text.
APACHE = Path(__file__).with_name("LICENSE-Apache-2.0.txt")
LARGEST = 48_000_000  # bytes: everybody who installs the package downloads them


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--results", type=Path, default=OUT / "results.json", metavar="FILE", help="of this box")
    args = parser.parse_args(argv)
    package = Path(ENTRY_CHECKPOINTS[DEFAULT_ENTRY].location)
    return run_command(PROGRAM, lambda: put(args.data / BOX, args.results, package))


def put(box: Path, results: Path, package: Path) -> None:
    """Copy the box into the package, with its README.md and LICENSE.

    Raises:
        LSGError: there is no box or no result, they do not belong together, or the box is too large or not good enough.
    """
    if not results.is_file():
        raise LSGError(f"{results} is missing: run python -m examples.manpages.evaluation.results --model {box} first")
    found = json.loads(results.read_text(encoding="utf-8"))
    check(box, found)
    with written_aside(package, stale=["*"]) as aside:
        for path in sorted(box.iterdir()):
            shutil.copyfile(path, aside / path.name)
        (aside / CARD).write_text(model_card(found), encoding="utf-8")
        shutil.copyfile(APACHE, aside / LICENCE)
    print(f"wrote {package}")


def check(box: Path, results: Mapping[str, Any]) -> None:
    """Refuse what should not be in the package; raises as `put`."""
    seen, _ = TEST_SETS
    if not (box / "config.json").is_file():
        raise LSGError(f"there is no box in {box}: run python -m examples.manpages.box.pack first")
    size = sum(path.stat().st_size for path in box.iterdir())
    if results.get("box") != hashes(box):
        raise LSGError(f"the results are not of {box}: run python -m examples.manpages.evaluation.results again")
    if not results["target"].get(seen):
        raise LSGError(f"the model is not surely better than both baselines on {seen}, so it stays out of the package")
    if size > LARGEST:
        raise LSGError(f"{box} has {size:,} bytes and may have {LARGEST:,}: train with a smaller vocabulary")


if __name__ == "__main__":
    sys.exit(main())
