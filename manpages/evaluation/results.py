"""What a trained model is worth: its descriptions of the test pages in four variants, beside the baselines, scored.

python -m manpages.evaluation.results --model CHECKPOINT [--data manpages-run] [--out manpages/results]

Answers and logs go to DATA/results-run/, in a folder for each checkpoint; a finished stage is not repeated. Writes
results.json, results.md and examples.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.files import sha256_of
from benchmarks.machine import machine_facts
from benchmarks.stages import Stages
from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.output_folder import written_aside
from lsg_fairseq.pretrained.hub_sources import SourceOptions, find_checkpoint
from manpages.corpus.records import TEST_SETS, Record, read_records
from manpages.evaluation.answering import GENERATION, VARIANTS, answer, binarize, open_run, source_tokens, stage_of
from manpages.evaluation.baselines import read_predictions, write_predictions
from manpages.evaluation.example_page import examples_page
from manpages.evaluation.results_text import results_page
from manpages.evaluation.scores import ALL, RESAMPLES, SEED, is_better, measure, score_systems

PROGRAM = "manpages.evaluation.results"
OUT = Path(__file__).parents[1] / "results"
IF_INTERRUPTED = "no result was written; finished stages are used again"

Texts = dict[str, list[str]]  # system -> what it says of each page


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="CHECKPOINT", help="a checkpoint file, or a training folder")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="default: beside the checkpoint or its data")
    parser.add_argument("--data", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="default: manpages/results, or with --limit the run's own folder"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N pages of each test set alone, for trials")
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit must be 1 or more, not {args.limit}")
    options = SourceOptions(tokenizer=args.tokenizer)
    return run_command(
        PROGRAM,
        lambda: evaluate(find_checkpoint(args.model, options), args.data, args.out, args.limit),
        IF_INTERRUPTED,
    )


def evaluate(files: CheckpointFiles, data: Path, out: Path | None = None, limit: int | None = None) -> None:
    """Answer, score and report; with a limit, by default not where the results of all pages are.

    Raises:
        LSGError: the data or the baselines are not there, or a page was not answered.
        SystemExit: a command failed.
    """
    pages = {split: read_records(data, split)[:limit] for split in TEST_SETS}
    baselines = {split: read_predictions(data, split, records) for split, records in pages.items()}
    stages = open_run(files, pages, data / "results-run")
    texts: dict[str, Texts] = {}
    for split in pages:
        binarize(stages, split)
        texts[split] = {name: answer(stages, split, name) for name in VARIANTS} | baselines[split]
    sets = {split: figures_of(stages, split, pages[split], texts[split]) for split in pages}
    found = describe(files, sets) | {"stages": stages.finished}
    write_results(out or (stages.folder / "results" if limit else OUT), found, pages, texts)


def figures_of(stages: Stages, split: str, pages: Sequence[Record], texts: Texts) -> dict[str, Any]:
    """Seconds and scores of a split; writes what everybody said of each page into the run's folder."""
    write_predictions(pages, texts, stages.folder / f"{split}.answers.jsonl")
    seconds = {name: stages.finished[stage_of(split, name)]["seconds"] for name in VARIANTS}
    return {"seconds": seconds} | measure(score_systems(pages, texts), source_tokens(stages, split))


def describe(files: CheckpointFiles, sets: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """results.json: the figures of each split, and what they depend on."""
    _, model, _ = load_task_and_model(files, Overrides())
    settings = {"source positions": model.max_positions()[0]} | asdict(model.encoder.lsg_config)
    checkpoint = {
        "bytes": files.model.stat().st_size,
        "sha256": sha256_of([files.model]),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "settings": settings,
    }
    return {
        "checkpoint": checkpoint,
        "machine": machine_facts(),
        "options": GENERATION,
        "variants": {name: asdict(variant) for name, variant in VARIANTS.items()},
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "sets": dict(sets),
        "target": {split: is_better(figures[ALL]) for split, figures in sets.items()},
    }


def write_results(
    out: Path, results: Mapping[str, Any], pages: Mapping[str, Sequence[Record]], texts: Mapping[str, Texts]
) -> None:
    """Write results.json, results.md and examples.md, all or none."""
    page = results_page(results)
    contents = {
        "results.json": json.dumps(results, indent=1) + "\n",
        "results.md": page,
        "examples.md": examples_page(pages, texts),
    }
    with written_aside(out) as aside:
        for name, text in contents.items():
            (aside / name).write_text(text, encoding="utf-8")
    print(page)
    print(f"wrote {out}")


if __name__ == "__main__":
    sys.exit(main())
