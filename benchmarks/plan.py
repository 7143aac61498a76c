"""What lsg-plan says beside what trainings on a CPU peak at: `python -m benchmarks.plan`.

Each training is a fairseq-train of its own, with documents of random words: two updates, from the moment before its
model is built. None of the sizes was looked at when the formula was written (tests/test_planning.py has tiny ones).
Takes about four minutes on two cores; writes benchmarks/results/plan.json after every training, and goes on there if it
was interrupted, then plan.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary, indexed_dataset
from fairseq.tasks import FairseqTask
from fairseq_cli.train import cli_main

from benchmarks.process_memory import memory_mib, reset_peak
from benchmarks.results_file import add_row, open_results
from lsg_fairseq.planning.report import make_report
from lsg_fairseq.planning.setup import Machine, parse_flags
from recipes.machine import machine

HERE = Path(__file__).resolve().parent
ALLOWED = 0.15
MIB = 2**20
UPDATES = 2
# Memory that is freed goes back to the system at once, so that the peak is what is held and not what glibc keeps.
MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
DTYPES = {"fp32": [], "bf16": ["--bf16"]}
SIDES = ("encoder", "decoder")
TINY = [
    *(f"--{side}-{name}" for side in SIDES for name in ("layers=1", "embed-dim=16", "ffn-embed-dim=16")),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2", "--batch-size", "1"),
]


@dataclass(frozen=True)
class Case:
    """A training: architecture, examples in a batch, words in the vocabulary, and further flags."""

    arch: str
    rows: int
    source: int
    target: int
    vocabulary: int
    flags: tuple[str, ...] = ()

    def command(self, dtype: str, checkpoints: bool) -> list[str]:
        """fairseq-train's flags, apart from the data folder."""
        sizes = f"--arch {self.arch} --max-source-positions {self.source} --max-target-positions {self.target}"
        recipe = (
            f"--batch-size {self.rows} --optimizer adam --lr 1e-5 --criterion label_smoothed_cross_entropy "
            f"--label-smoothing 0.1 --max-update {UPDATES} --cpu"
        )
        switches = [*DTYPES[dtype], *(["--checkpoint-activations"] if checkpoints else [])]
        return [*sizes.split(), *recipe.split(), *switches, *self.flags]


CASES = {
    "LSG-BART-small, 2 x 3,072 + 384": Case("lsg_bart_small", 2, 3072, 384, 16000),
    "LSG-BART-base, 1 x 1,536 + 192": Case("lsg_bart_base", 1, 1536, 192, 50265),
    "LSG-Pegasus-small, 3 x 2,048 + 256, attention dropout 0.1, two batches an update": Case(
        "lsg_pegasus_small", 3, 2048, 256, 32000, ("--update-freq", "2")
    ),
}


def main() -> None:
    """Measure what the results file does not have yet, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="measure only cases whose title contains this")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "plan.json", help="default: %(default)s")
    parser.add_argument("--train", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.train:
        print(json.dumps(train(args.train)))
        return
    results = open_results(args.out, {"machine": machine()})
    for title, dtype, checkpoints in product(CASES, DTYPES, (False, True)):
        about = {"title": title, "dtype": dtype, "checkpoint_activations": checkpoints}
        is_done = any(all(row[name] == value for name, value in about.items()) for row in results["rows"])
        if args.only not in title or is_done:
            continue
        row = about | compare(CASES[title], dtype, checkpoints)
        print(json.dumps(row), file=sys.stderr, flush=True)
        add_row(results, row, args.out)
    args.out.with_suffix(".md").write_text(to_markdown(results))
    print(to_markdown(results))


def compare(case: Case, dtype: str, checkpoints: bool) -> dict[str, Any]:
    """Peak memory over the process without a model, MiB: planned and measured."""
    flags = case.command(dtype, checkpoints)
    report = make_report(parse_flags(flags), Machine("cpu", vocabulary=case.vocabulary), None)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, case)
        user = ["--user-dir", "lsg_fairseq", "--task", "lsg_summarization"]
        others = "--no-save --disable-validation --num-workers 0 --no-progress-bar --log-format none".split()
        command = [sys.executable, "-m", "benchmarks.plan", "--train", name, *user, *others, *flags]
        done = subprocess.run(
            command, env={**os.environ, **MALLOC}, cwd=HERE.parent, capture_output=True, text=True, check=False
        )
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    measured = json.loads(done.stdout.splitlines()[-1])
    planned = report.plan.peak / MIB
    return {
        "planned_mib": planned,
        "planned_parts_mib": {name: size / MIB for name, size in report.plan.parts.items()},
        "planned_moment": report.plan.moment,
        **measured,
        "ratio": planned / measured["peak_mib"],
    }


def write_data(folder: Path, case: Case) -> None:
    """Documents and summaries of full length, of random words, as fairseq-train reads them."""
    dictionary = Dictionary()
    for i in range(case.vocabulary - len(dictionary)):
        dictionary.add_symbol(f"w{i}")
    generator = torch.Generator().manual_seed(0)
    for side, length in (("source", case.source), ("target", case.target)):
        dictionary.save(str(folder / f"dict.{side}.txt"))
        prefix = folder / f"train.source-target.{side}"
        builder = indexed_dataset.make_builder(f"{prefix}.bin", "mmap", len(dictionary))
        for _ in range(case.rows * UPDATES * 2):
            words = torch.randint(4, len(dictionary), (length,), generator=generator)
            words[-1] = dictionary.eos()
            builder.add_item(words.int())
        builder.finalize(f"{prefix}.idx")


def train(flags: list[str]) -> dict[str, float]:
    """Run fairseq-train in this process; peak memory from the moment before its model is built, MiB.

    A training of a tiny model comes first: it loads libraries and starts threads, which do not count.
    """
    before: list[float] = []
    build = FairseqTask.build_model

    def build_model(*args: Any, **kwargs: Any) -> torch.nn.Module:
        reset_peak()
        before.append(memory_mib("VmRSS"))
        return build(*args, **kwargs)

    FairseqTask.build_model = build_model
    for sizes in (TINY, []):
        sys.argv = ["fairseq-train", *flags, *sizes]
        cli_main()
    return {"process_mib": before[-1], "peak_mib": memory_mib("VmHWM") - before[-1]}


def to_markdown(results: dict[str, Any]) -> str:
    """A table, and the bound that every row keeps or does not."""
    lines = [
        "# Memory of a training: planned and measured (`benchmarks/plan.py`)",
        "",
        f"{results['machine']}. fairseq-train on a CPU, {UPDATES} updates; memory over the process without a model, so "
        "parameters, gradients, Adam's means and activations together. The formula was written before any of these "
        f"ran, and none was used to fit it. Bound: within {ALLOWED:.0%}.",
        "",
        "| training | dtype | checkpointed | planned MiB | measured MiB | planned / measured | within the bound |",
        "|---|---|---|--:|--:|--:|---|",
    ]
    for row in results["rows"]:
        is_within = abs(row["ratio"] - 1) <= ALLOWED
        figures = f"{row['planned_mib']:,.0f} | {row['peak_mib']:,.0f} | {row['ratio']:.3f}"
        checkpoints = "yes" if row["checkpoint_activations"] else "no"
        verdict = "yes" if is_within else "**no**"
        lines.append(f"| {row['title']} | {row['dtype']} | {checkpoints} | {figures} | {verdict} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
