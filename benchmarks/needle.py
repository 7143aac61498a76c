"""Needle in a haystack, through the stock commands: does a small LSG-BART read all of its 4,096 source positions?

A marker word stands anywhere in 4,096 tokens, and the symbols after it are the summary (needle_documents.py). The way
to a model is LSG's own: train short, then make it longer. A model with 256 source positions is trained on short
documents, in one pass from the shortest to the longest. `fairseq-train --restore-file` then tiles its 256 position rows
to 4,096, and trains it with each sparsity type, a little, on 4,096-token documents. Held-out documents are answered
three times: just made longer; after training; and by that same model with sources cut to 1,024 tokens.

    python -m benchmarks.needle             all of it, in needle-run/; a finished stage is not repeated
    python -m benchmarks.needle --quick     the same commands on next to nothing: a minute, and wrong answers
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from benchmarks.needle_documents import BIN, BINS, LONG, QUICK, SHORT, Plan, exact_matches, write_corpora
from recipes.machine import machine_facts
from recipes.stages import Stages

REPOSITORY = Path(__file__).resolve().parents[1]
RESULTS = REPOSITORY / "benchmarks" / "results"
CUT = 1024
GOAL = 95  # percent

TYPES = ("none", "norm", "bos_pooling")
BLOCK = 64

PLUGIN = "--user-dir lsg_fairseq --task lsg_summarization"
MODEL = (
    f"{PLUGIN} --arch lsg_bart_small --encoder-layers 2 --decoder-layers 1 "
    "--encoder-embed-dim 128 --decoder-embed-dim 128 --encoder-ffn-embed-dim 256 --decoder-ffn-embed-dim 256 "
    f"--max-target-positions 16 --dropout 0 --lsg-block-size {BLOCK} --lsg-sparse-block-size {BLOCK} "
    "--optimizer adam --adam-betas (0.9,0.98) --clip-norm 1.0 --lr-scheduler polynomial_decay "
    "--cpu --num-workers 0 --seed 1 --no-epoch-checkpoints --disable-validation --log-format simple --log-interval 50"
).split()
GENERATION = f"{PLUGIN} --cpu --beam 1 --max-len-b 8 --batch-size 8".split()


def prepare(stages: Stages, plan: Plan) -> None:
    """Corpora and data folders; the tokenizer learns from the short documents that every word is a token."""
    written, contents = stages.folder / "corpora.json", json.dumps(asdict(plan))
    if written.exists() and written.read_text() != contents:
        sys.exit(f"{stages.folder} holds the work of another plan: remove it, or choose another --folder")
    if not written.exists():
        write_corpora(stages.folder, plan)
        written.write_text(contents)
    short = ["--train", "short.jsonl", "--out", "short", "--train-tokenizer", 1000]
    long = ["--train", "long.jsonl", "--test", "test.jsonl", "--out", "long", "--tokenizer", "short/tokenizer"]
    stages.run("preprocess-short", "corpora", "lsg-preprocess", *short)
    stages.run("preprocess-long", "preprocess-short", "lsg-preprocess", *long)


def train_short(stages: Stages, plan: Plan) -> None:
    """256 positions, no sparse tokens; --curriculum keeps fairseq's order by length for the one pass."""
    size = ["--max-source-positions", SHORT, "--lsg-sparsity-type", "none"]
    batches = ["--batch-size", 64, "--max-tokens", 8192, "--curriculum", 1, "--max-epoch", 1]
    rate = ["--lr", 1e-3, "--warmup-updates", 200, "--total-num-update", plan.short_updates]
    train(stages, "short", "preprocess-long", "short", *size, *batches, *rate)


def train_long(stages: Stages, plan: Plan, sparsity_type: str) -> None:
    """The short model with 4,096 positions and sparse tokens of one type."""
    start = ["--restore-file", "model-short/checkpoint_last.pt"]
    start += [f"--reset-{part}" for part in ("optimizer", "lr-scheduler", "dataloader", "meters")]
    size = ["--max-source-positions", LONG, "--lsg-sparsity-type", sparsity_type]
    rate = ["--lr", 3e-4, "--warmup-updates", 20, "--total-num-update", plan.long_updates]
    limits = ["--batch-size", 4, "--max-update", plan.long_updates]
    train(stages, sparsity_type, "train-short", "long", *start, *size, *limits, *rate)


def train(stages: Stages, name: str, needs: str, data: str, *flags: object) -> None:
    """Stage train-NAME, which makes model-NAME."""
    stages.run(f"train-{name}", needs, "fairseq-train", data, *MODEL, *flags, "--save-dir", f"model-{name}")


def evaluate(stages: Stages, sparsity_type: str) -> Iterator[dict[str, object]]:
    """A row of the table for each way of answering the test documents."""
    count = partial(exact_matches, stages.folder / "test.jsonl")
    longer = {"max_source_positions": LONG, "lsg_sparsity_type": sparsity_type}
    trained = f"model-{sparsity_type}/checkpoint_last.pt"
    ways = {
        "made longer": ["--path", "model-short/checkpoint_last.pt", "--model-overrides", json.dumps(longer)],
        "trained": ["--path", trained],
        f"cut to {CUT:,}": ["--path", trained, "--max-source-positions", CUT],
    }
    for name, flags in ways.items():
        stage = f"generate-{sparsity_type}-{name.replace(' ', '-').replace(',', '')}"
        command = ["fairseq-generate", "long", *GENERATION, *flags]
        printed = stages.run(stage, f"train-{sparsity_type}", *command, check=count)
        yield {"sparsity_type": sparsity_type, "model": name, "exact": count(printed)}


def percent(counts: list[list[int]]) -> list[int]:
    """Exact match by bin, and over all of them at the end; rounded down, so that 100 means all."""
    total = [sum(column) for column in zip(*counts, strict=True)]
    return [100 * right // documents for right, documents in [*counts, total]]


def as_markdown(result: dict) -> str:
    """The table by position, then seconds and command lines."""
    plan, machine = result["plan"], result["machine"]
    bins = [f"{start:,}-{start + BIN - 1:,}" for start in range(0, LONG, BIN)]
    table = [["sparsity type", "model", *bins, "all"], ["---", "---", *["---:"] * (BINS + 1)]]
    table += [[row["sparsity_type"], row["model"], *percent(row["exact"])] for row in result["rows"]]
    stages = [["stage", "seconds", "command"], ["---", "---:", "---"]]
    stages += [[name, stage["seconds"], f"`{stage['command']}`"] for name, stage in result["stages"].items()]
    as_lines = ["\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows) for rows in (table, stages)]
    return f"""# Needle in {LONG:,} tokens (`make needle`)

Exact match in percent by the marker's source position, {plan["tests_per_bin"]} held-out documents a column; what they
are is said in `benchmarks/needle_documents.py`. Made longer: the model of {SHORT} positions, not trained any further.
Trained: after {plan["long_updates"]} updates on documents of {LONG:,} tokens. Cut: the trained model, given the first
{CUT:,} tokens.

{as_lines[0]}

{", ".join(f"{name} {value}" for name, value in machine.items())}. The commands ran in `needle-run/`.

{as_lines[1]}
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run all stages; the exit status is 0 if every trained model reaches the goal at every position."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the smallest run through every kind of stage")
    parser.add_argument("--folder", type=Path, help="where to work (default: needle-run, needle-run/quick)")
    parser.add_argument("--types", nargs="+", metavar="TYPE", help=f"sparsity types (default: {' '.join(TYPES)})")
    args = parser.parse_args(argv)
    plan = QUICK if args.quick else Plan()
    folder = args.folder or REPOSITORY / "needle-run" / ("quick" if args.quick else "")
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages(folder)
    prepare(stages, plan)
    train_short(stages, plan)
    rows: list[dict] = []
    for sparsity_type in args.types or (["norm"] if args.quick else TYPES):
        train_long(stages, plan, sparsity_type)
        rows += evaluate(stages, sparsity_type)
    result = {"machine": machine_facts(), "plan": asdict(plan), "rows": rows, "stages": stages.finished}
    results = folder if args.quick else RESULTS
    results.mkdir(parents=True, exist_ok=True)
    (results / "needle.json").write_text(json.dumps(result, indent=1) + "\n")
    (results / "needle.md").write_text(as_markdown(result))
    print(as_markdown(result).split("\n\n")[2])
    return 0 if args.quick or all(min(percent(r["exact"])) >= GOAL for r in rows if r["model"] == "trained") else 1


if __name__ == "__main__":
    sys.exit(main())
