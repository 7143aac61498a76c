"""Documents a minute side by side: `python -m benchmarks.summarizing --lsg PYTHON --ctranslate2 PYTHON`.

Both are pythons of environments of their own: requirements-peers.txt, and the same transformers with ctranslate2==4.6.0
and setuptools<81 in place of lsg-converter. All have the same random weights of BART-base's sizes and read the same
ids. Every contestant is a process of its own; all of a row are started, warmed up on its first documents and then run
in turn, round after round, so that a change in the machine's speed hits all of them. Rows of 64 documents have 32 new
tokens each: three rounds of ours, and a single one with the peers. Takes about an hour and a quarter on 2 cores; writes
benchmarks/results/summarizing.json after every row, and goes on there if it was interrupted, then summarizing.md and
summarizing.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.results_file import add_row, open_results
from benchmarks.summarizing_report import Contest, draw, rows, to_markdown
from recipes.machine import machine

HERE = Path(__file__).resolve().parent


class Pythons(NamedTuple):
    """Who runs what."""

    lsg: str
    ctranslate2: str

    def of(self, name: str) -> str:
        """The python of a contestant."""
        return {"public_lsg": self.lsg, "ctranslate2": self.ctranslate2}.get(name, sys.executable)


class Contestant:
    """A running summarizing_contestants.py."""

    def __init__(self, python: str, folder: Path, contest: Contest, name: str, dtype: str) -> None:
        kind = "mixed" if contest.mixed else "long"
        arguments = [name, folder.resolve(), dtype, contest.documents, kind, contest.new_tokens]
        command = [str(part) for part in (python, "-m", "benchmarks.summarizing_contestants", *arguments)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **pipes, text=True, cwd=HERE.parent)
        self.built_mib = self._answer()["built_mib"]
        self.runs: list[dict[str, Any]] = []

    def run(self, command: str = "run") -> dict[str, Any]:
        """What one run took and found; that of "warm up" is short."""
        self.process.stdin.write(f"{command}\n")
        self.process.stdin.flush()
        return self._answer()

    def result(self) -> dict[str, Any]:
        """Median and extremes over the runs kept; memory over what the built model needs; the last output."""
        self.process.stdin.close()
        self.process.wait()
        seconds = [run["seconds"] for run in self.runs]
        figures = {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}
        figures["runs"] = len(seconds)
        return {**figures, "extra_mib": self.runs[-1]["peak_mib"] - self.built_mib, "ids": self.runs[-1]["ids"]}

    def _answer(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended without an answer; run it by hand to see why")
        return json.loads(line)


def measure(contest: Contest, pythons: Pythons, folder: Path, rounds: int) -> dict[str, dict[str, Any]]:
    """Start, warm up and run all contestants in turn; how much of the first one's ids each of them found."""
    running = {
        f"{name} {dtype}": Contestant(pythons.of(name), folder, contest, name, dtype)
        for name, dtype in contest.contestants
    }
    for contestant in running.values():
        contestant.run("warm up")
    for _ in range(min(rounds, contest.most_rounds)):
        for contestant in running.values():
            contestant.runs.append(contestant.run())
    results = {label: contestant.result() for label, contestant in running.items()}
    # CTranslate2 leaves `</s>` out.
    ids = {label: [[i for i in row if i != 2] for row in result.pop("ids")] for label, result in results.items()}
    first = next(iter(ids.values()))
    for label, result in results.items():
        result["same_ids"] = ids[label] == first
    return results


def make_models(pythons: Pythons, folder: Path) -> None:
    """The shared weights in each one's layout, unless they are there."""
    for python, what, made in ((pythons.lsg, "write", "bart/words.json"), (pythons.ctranslate2, "convert", "int8")):
        if not (folder / made).exists():
            subprocess.run(
                [python, "-m", "benchmarks.summarizing_model", what, folder.resolve()], check=True, cwd=HERE.parent
            )


def main() -> None:
    """Measure what the results file does not have yet; then the tables and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lsg", required=True, metavar="PYTHON", help="of the environment with lsg-converter")
    parser.add_argument("--ctranslate2", required=True, metavar="PYTHON", help="of the environment with ctranslate2")
    parser.add_argument("--models", type=Path, required=True, metavar="DIR", help="where the shared weights are kept")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="measure only rows whose title contains this")
    parser.add_argument("--quick", action="store_true", help="few documents and tokens: to see that it works")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "summarizing.json", help="default: %(default)s")
    args = parser.parse_args()
    pythons = Pythons(args.lsg, args.ctranslate2)
    conditions = {"machine": machine(), "rounds": args.rounds, "quick": args.quick}
    results = open_results(args.out, conditions)
    make_models(pythons, args.models)
    done = {row["title"] for row in results["rows"]}
    for contest in (c for c in rows(args.quick) if args.only in c.title and c.title not in done):
        print(f"{contest.title} ...", file=sys.stderr, flush=True)
        about = {**contest._asdict(), "contestants": [" ".join(each) for each in contest.contestants]}
        measured = measure(contest, pythons, args.models, args.rounds)
        add_row(results, {**about, "results": measured}, args.out)
    args.out.with_suffix(".md").write_text(to_markdown(results))
    draw(results, args.out.with_suffix(".png"))
    print(to_markdown(results))


if __name__ == "__main__":
    main()
