"""How long the package takes to import and `lsg-summarize --help` to print, beside another commit of this repository.

python -m benchmarks.start_time REVISION [--rounds 7]

Each run is a process of its own in a checkout of its own. Both checkouts take turns, so that a change in the machine's
speed hits both; a first round, which compiles the modules, is not counted. The last figure is the median of the rounds'
ratios. Writes nothing but a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from io import BytesIO
from pathlib import Path

from recipes.machine import machine

HERE = Path(__file__).resolve().parents[1]
STARTS = {
    "import fairseq": ["-c", "import fairseq"],
    "import lsg_fairseq": ["-c", "import lsg_fairseq"],
    "lsg-summarize --help": ["-m", "lsg_fairseq.commands.summarize", "--help"],
}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("revision", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="default: %(default)s")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        checkouts = [Path(folder) / name for name in ("before", "now")]
        for revision, checkout in zip((args.revision, "HEAD"), checkouts, strict=True):
            check_out(revision, checkout)
        print(f"{machine()}; before: {args.revision}; medians of {args.rounds} rounds\n")
        print("| start | before, s | now, s | now / before |\n|---|--:|--:|--:|")
        for name, command in STARTS.items():
            before, now, ratio = compare(command, checkouts, args.rounds)
            print(f"| `{name}` | {before:.2f} | {now:.2f} | {ratio:.2f} |", flush=True)


def check_out(revision: str, folder: Path) -> None:
    """The files of a commit."""
    archive = subprocess.run(["git", "archive", revision], cwd=HERE, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as files:
        files.extractall(folder, filter="data")


def compare(command: list[str], checkouts: list[Path], rounds: int) -> tuple[float, float, float]:
    """Median seconds in each of two checkouts, and the median of their ratios."""
    for checkout in checkouts:
        seconds(command, checkout)
    runs = [[seconds(command, checkout) for checkout in checkouts] for _ in range(rounds)]
    before, now = (statistics.median(column) for column in zip(*runs, strict=True))
    return before, now, statistics.median(now / before for before, now in runs)


def seconds(command: list[str], checkout: Path) -> float:
    """How long a Python process takes from start to end; the checkout comes before what is installed."""
    begin = time.perf_counter()
    subprocess.run(
        [sys.executable, *command],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
