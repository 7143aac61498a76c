"""Speed and memory side by side with the peers: `python benchmarks/speed.py --peers PEERS_PYTHON`.

PEERS_PYTHON is the python of an environment made with requirements-peers.txt. Every model is a process of its own; all
models of a row are started, warmed up once, and then run in turn, round after round, so that a change in the machine's
speed hits all of them. Writes benchmarks/results/speed.json, .md and .png.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PEERS = ("public_lsg", "bart_full", "led", "bigbird", "layer_public_lsg")
LABELS = {
    "lsg_fairseq": "lsg_fairseq",
    "floor": "floor (no attention)",
    "public_lsg": "public LSG-BART",
    "bart_full": "BART, fused full attention",
    "led": "LED",
    "bigbird": "BigBird-Pegasus",
    "layer_sgemm": "sgemm of 641 keys",
    "layer_lsg_fairseq": "lsg_fairseq",
    "layer_public_lsg": "public LSG-BART",
    "layer_full": "fused full attention",
}
LAYER = ("layer_sgemm", "layer_lsg_fairseq", "layer_public_lsg", "layer_full")
ENCODERS = ("lsg_fairseq", "floor", "public_lsg", "bart_full", "led", "bigbird")
TYPES = ("none", "norm", "pooling", "bos_pooling", "lsh", "stride", "block_stride")


@dataclass(frozen=True)
class Row:
    """One comparison: which models, over how many tokens, how."""

    title: str
    names: tuple[str, ...]
    tokens: int
    mode: str = "forward"
    dtype: str = "float32"


def rows(lengths: list[int]) -> list[Row]:
    table = [Row("attention layer", LAYER, n) for n in lengths if n >= 4096]
    table += [Row("encoder forward", ENCODERS, n) for n in lengths]
    halves = ("lsg_fairseq", "public_lsg", "bart_full")
    table += [Row("encoder forward bf16", halves, n, dtype="bfloat16") for n in lengths if n in (4096, 16384)]
    table += [Row("encoder forward + backward", ENCODERS, n, "train") for n in lengths if n <= 4096]
    table += [Row("encoder forward by sparsity type", tuple(f"lsg_fairseq:{t}" for t in TYPES), 4096)]
    return table


class Contestant:
    """A running contestants.py."""

    def __init__(self, python: str, name: str, row: Row) -> None:
        command = [python, HERE / "contestants.py", name, str(row.tokens), row.mode, row.dtype]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        self.built_mib = self._answer()["built_mib"]
        self.runs: list[dict[str, float]] = []
        self.run(counted=False)

    def run(self, counted: bool = True) -> None:
        self.process.stdin.write("run\n")
        self.process.stdin.flush()
        answer = self._answer()
        if counted:
            self.runs.append(answer)

    def result(self) -> dict[str, float]:
        self.process.stdin.close()
        self.process.wait()
        seconds = [run["seconds"] for run in self.runs]
        extra = self.runs[-1]["peak_mib"] - self.built_mib
        return {
            "median_s": statistics.median(seconds),
            "min_s": min(seconds),
            "max_s": max(seconds),
            "extra_mib": extra,
        }

    def _answer(self) -> dict[str, float]:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.process.args} ended without an answer; run it by hand to see why")
        return json.loads(line)


def measure(row: Row, pythons: dict[str, str], rounds: int) -> dict[str, dict[str, float]]:
    """Start, warm up and run all models of a row in turn."""
    contestants = {name: Contestant(pythons.get(name, sys.executable), name, row) for name in row.names}
    for _ in range(rounds):
        for contestant in contestants.values():
            contestant.run()
    return {name: contestant.result() for name, contestant in contestants.items()}


def to_markdown(results: dict) -> str:
    """A table a comparison; every figure is the median, and its ratio to ours."""
    lines = [
        f"Measured on {results['machine']}; medians of {results['rounds']} rounds; extra memory: peak over the model."
    ]
    for row in results["rows"]:
        ours = row["models"].get("lsg_fairseq") or row["models"].get("layer_lsg_fairseq")
        ours = ours or row["models"]["lsg_fairseq:none"]
        lines += [
            "",
            f"**{row['title']}, {row['tokens']:,} tokens**",
            "",
            "| | ms | times ours | extra MiB |",
            "|---|--:|--:|--:|",
        ]
        for name, value in row["models"].items():
            ratio = value["median_s"] / ours["median_s"]
            label = LABELS.get(name, name.removeprefix("lsg_fairseq:"))
            lines.append(f"| {label} | {value['median_s'] * 1e3:,.0f} | {ratio:.2f} | {value['extra_mib']:,.0f} |")
    return "\n".join(lines) + "\n"


def draw(results: dict, path: Path) -> None:
    """Encoder seconds and memory over the number of tokens."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4.2))
    for axis, key, unit in zip(axes, ("median_s", "extra_mib"), ("seconds", "MiB over the model"), strict=True):
        for name in ENCODERS:
            points = [(r["tokens"], r["models"][name][key]) for r in results["rows"] if r["title"] == "encoder forward"]
            style = (
                {"linewidth": 3, "color": "C3"}
                if name == "lsg_fairseq"
                else {"linestyle": "--" if name == "floor" else "-"}
            )
            axis.plot(*zip(*points, strict=True), marker="o", markersize=4, label=LABELS[name], **style)
        axis.set(xscale="log", yscale="log", xlabel="source tokens", ylabel=unit)
        axis.set_xticks([p[0] for p in points], [f"{p[0]:,}" for p in points])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].legend(fontsize=8)
    figure.suptitle("Encoder forward, BART-base's sizes, fp32, batch 1, 2 CPU cores")
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def machine() -> str:
    import torch

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), platform.processor())
    return f"{model}, 2 threads, {platform.system()}, Python {platform.python_version()}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peers", required=True, help="python of the peers' environment")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16384])
    parser.add_argument("--only", help="measure only rows whose title contains this")
    parser.add_argument("--out", type=Path, default=HERE / "results")
    options = parser.parse_args()
    pythons = dict.fromkeys(PEERS, options.peers)
    results = {"machine": machine(), "rounds": options.rounds, "rows": []}
    for row in rows(options.lengths):
        if options.only and options.only not in row.title:
            continue
        print(f"{row.title}, {row.tokens:,} tokens ...", file=sys.stderr, flush=True)
        models = measure(row, pythons, options.rounds)
        results["rows"].append(
            {"title": row.title, "tokens": row.tokens, "mode": row.mode, "dtype": row.dtype, "models": models}
        )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "speed.json").write_text(json.dumps(results, indent=1) + "\n")
    (options.out / "speed.md").write_text(to_markdown(results))
    if not options.only:
        draw(results, options.out / "speed.png")
    print(to_markdown(results))


if __name__ == "__main__":
    main()
