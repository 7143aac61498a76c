"""Speed and memory side by side with the peers: `python -m benchmarks.speed --peers PEERS_PYTHON`.

PEERS_PYTHON is the python of an environment made with requirements-peers.txt. Every model is a process of its own; all
models of a row are started, warmed up once, and then run in turn, round after round, so that a change in the machine's
speed hits all of them. Takes about an hour and a half; writes benchmarks/results/speed.json after every row, and goes
on there if it was interrupted, then speed.md and speed.png.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.contestants import AUTOCAST, PEERS, TYPES
from benchmarks.results_file import add_row, open_results
from benchmarks.speed_report import draw, to_markdown
from recipes.machine import machine

HERE = Path(__file__).resolve().parent
ENCODERS = ("lsg_fairseq", "floor", "public_lsg", "bart_full", "led", "bigbird")
HALVES = ("lsg_fairseq", "floor", "public_lsg", "bart_full")
LIMITS = ("lsg_fairseq", "floor", "products")
FORWARD = "encoder forward"
LIMIT = "encoder forward and its limits"
TRAIN = "encoder forward + backward"


@dataclass(frozen=True)
class Row:
    """One comparison: which models, over how many tokens, how."""

    title: str
    names: tuple[str, ...]
    tokens: int
    mode: str = "forward"
    dtype: str = "fp32"


def rows() -> list[Row]:
    """Everything that is measured, the short rows first."""
    layers = ("layer", "layer_products", "layer_public_lsg", "layer_full")
    # Full attention with dropout keeps its score matrices: 24 GiB were not enough for it.
    dropouts = ("dropout", "dropout_public_lsg")
    table = [Row("attention layer", layers, n) for n in (4096, 16384)]
    table += [Row("encoder forward by sparsity type", tuple(f"type_{name}" for name in TYPES), 4096)]
    table += [Row("beam-4 generation of 128 tokens", ("generation", "generation_public_lsg"), 4096)]
    table += [Row(FORWARD, ENCODERS, n) for n in (1024, 2048, 4096)]
    table += [Row(f"{LIMIT}, {dtype}", LIMITS, 4096, dtype=dtype) for dtype in ("fp32", "bf16")]
    table += [Row(TRAIN, ENCODERS, 4096, "train")]
    table += [Row(f"{TRAIN}, attention dropout 0.1", dropouts, 4096, "train")]
    table += [Row(f"{FORWARD}, {dtype}", HALVES, 4096, dtype=dtype) for dtype in ("bf16", AUTOCAST)]
    return [*table, *(Row(FORWARD, ENCODERS, n) for n in (8192, 16384))]


class Contestant:
    """A running contestants.py."""

    def __init__(self, python: str, name: str, row: Row) -> None:
        command = [python, "-m", "benchmarks.contestants", name, str(row.tokens), row.mode, row.dtype]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **pipes, text=True, cwd=HERE.parent)
        self.built_mib = self._answer()["built_mib"]
        self.runs: list[dict[str, float]] = []

    def run(self) -> dict[str, float]:
        """Seconds and peak memory of one run."""
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        return self._answer()

    def result(self) -> dict[str, float]:
        """Medians and extremes over the runs kept; memory over what the built model needs."""
        self.process.stdin.close()
        self.process.wait()
        seconds = [run["seconds"] for run in self.runs]
        figures = {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}
        return {**figures, "built_mib": self.built_mib, "extra_mib": self.runs[-1]["peak_mib"] - self.built_mib}

    def _answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended without an answer; run it by hand to see why")
        return json.loads(line)


def measure(row: Row, peers_python: str, rounds: int) -> dict[str, dict[str, float]]:
    """Start, warm up and run all models of a row in turn."""
    contestants = {n: Contestant(peers_python if n in PEERS else sys.executable, n, row) for n in row.names}
    for kept in [False] + [True] * rounds:
        for contestant in contestants.values():
            run = contestant.run()
            contestant.runs += [run] if kept else []
    return {name: contestant.result() for name, contestant in contestants.items()}


def main() -> None:
    """Measure what the results file does not have yet; then the table and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, metavar="PYTHON", help="python of the peers' environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="measure only rows whose title contains this")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "speed.json", help="default: %(default)s")
    args = parser.parse_args()
    conditions = {"machine": machine(), "rounds": args.rounds}
    results = open_results(args.out, conditions)
    for row in (row for row in rows() if args.only in row.title):
        about = asdict(row) | {"names": list(row.names)}
        if any(all(done[key] == value for key, value in about.items()) for done in results["rows"]):
            continue
        print(f"{row.title}, {row.tokens:,} tokens ...", file=sys.stderr, flush=True)
        add_row(results, {**about, "models": measure(row, args.peers, args.rounds)}, args.out)
    args.out.with_suffix(".md").write_text(to_markdown(results))
    draw(results, args.out.with_suffix(".png"))
    print(to_markdown(results))


if __name__ == "__main__":
    main()
