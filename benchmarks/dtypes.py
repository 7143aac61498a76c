"""What `--dtype` of lsg-summarize changes: `python -m benchmarks.dtypes [--documents F.jsonl] [--number N]`.

Summarises the manual pages of the demo, or those of a JSON Lines file (such as manpages-run/test_unseen.jsonl, which
`make manpages` writes), with the model in the package in each dtype. Says ROUGE against the descriptions of the pages,
how many texts and ids differ from float32's, and the time; writes benchmarks/results/dtypes.json and dtypes.md.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from lsg_fairseq import hub
from lsg_fairseq.commands.summarize import DTYPES
from lsg_fairseq.hub.batches import BatchedGenerator, BatchOptions
from lsg_fairseq.scoring import rouge_scores
from recipes.machine import machine

HERE = Path(__file__).resolve().parent
DEMO = HERE.parent / "manpages" / "demo" / "pages.jsonl"
NAMES = ("rouge1", "rouge2", "rougeL")
# float16 has no fast products on most CPUs.
MEASURED = tuple(name for name in DTYPES if name != "float16")


def summaries(pages: list[dict[str, Any]], dtype: str) -> tuple[list[str], float]:
    """What the model says of the pages, and the seconds that it took."""
    lsg = hub.lsg_bart_manpages().to(DTYPES[dtype])
    generator = BatchedGenerator(lsg, lsg.generation_settings, BatchOptions(as_int8=dtype == "int8"))
    started = time.perf_counter()
    texts = list(generator.stream([page["document"] for page in pages], progress=False))
    return texts, time.perf_counter() - started


def compared(pages: list[dict[str, Any]], texts: list[str], first: list[str]) -> dict[str, float]:
    """Mean ROUGE F1 x 100 against the descriptions and against float32's texts, and the share of equal texts."""
    found = [rouge_scores(page["summary"], text) for page, text in zip(pages, texts, strict=True)]
    scores = {name: round(100 * fmean(score[name] for score in found), 2) for name in NAMES}
    pairs = list(zip(first, texts, strict=True))
    likeness = fmean(rouge_scores(one, other)["rougeL"] for one, other in pairs)
    same = fmean(one == other for one, other in pairs)
    return {**scores, "same_texts": round(100 * same, 1), "likeness": round(100 * likeness, 1)}


def to_markdown(results: dict[str, Any]) -> str:
    """A line for each dtype."""
    lines = [
        "# Dtypes of lsg-summarize (`benchmarks/dtypes.py`)",
        "",
        f"{results['machine']}; {results['pages']} pages of {results['documents']}; model: lsg_bart_manpages. ROUGE F1 "
        "x 100 with stemming against the pages' descriptions; the same texts as float32's, and ROUGE-L against them.",
        "",
        "| dtype | ROUGE-1 | ROUGE-2 | ROUGE-L | same texts, % | ROUGE-L against float32 | seconds |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for dtype, row in results["dtypes"].items():
        figures = [row[name] for name in (*NAMES, "same_texts", "likeness", "seconds")]
        lines.append(f"| {dtype} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure every dtype on the same pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=Path, default=DEMO, help="default: the demo's pages")
    parser.add_argument("--number", type=int, help="of pages, from the first on (default: all)")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "dtypes.json", help="default: %(default)s")
    args = parser.parse_args()
    torch.set_num_threads(2)
    lines = args.documents.read_text(encoding="utf-8").split("\n")
    pages = [json.loads(line) for line in lines if line][: args.number]
    results: dict[str, Any] = {"machine": machine(), "documents": args.documents.name, "pages": len(pages)}
    found = {dtype: summaries(pages, dtype) for dtype in MEASURED}
    first = found[MEASURED[0]][0]
    results["dtypes"] = {
        dtype: {**compared(pages, texts, first), "seconds": round(seconds, 1)}
        for dtype, (texts, seconds) in found.items()
    }
    args.out.write_text(json.dumps(results, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(to_markdown(results))
    print(to_markdown(results))


if __name__ == "__main__":
    main()
