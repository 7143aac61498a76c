"""What a trained model is worth: its descriptions of pages in several variants, beside the baselines, scored.

python -m examples.manpages.evaluation.results --model CHECKPOINT [--data DATA] [--out examples/manpages/results]

Answers and logs go to DATA/results-run/, in a folder for each checkpoint; a finished stage is not repeated. Writes
results.json, results.md and examples.md.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.manpages.box.pack import SeenBox
from examples.manpages.corpus.pages import TEST_SETS, Record, read_records
from examples.manpages.evaluation.answering import Answering, open_answering, source_tokens
from examples.manpages.evaluation.baselines import read_predictions, write_predictions
from examples.manpages.evaluation.results_text import examples_page, results_page
from examples.manpages.evaluation.scores import (
    ALL,
    GENERATION,
    RESAMPLES,
    SEED,
    add_sets,
    in_order,
    is_better,
    measure,
    score_systems,
    short_variant,
)
from lsg_fairseq.checkpoints.loading import CheckpointFiles
from lsg_fairseq.checkpoints.ready import CheckpointOptions, find_checkpoint
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.output_folder import staged_output
from recipes.machine import machine_facts
from recipes.stages import Stages

PROGRAM = "examples.manpages.evaluation.results"
OUT = Path(__file__).parents[1] / "results"
RUNS = "results-run"
IF_INTERRUPTED = "no result was written; finished stages are used again"

Pages = Mapping[str, Sequence[Record]]  # split -> its pages
Texts = dict[str, list[str]]  # system -> what it says of each page


@dataclass(frozen=True)
class Choice:
    """What is answered, and where the results go."""

    sets: tuple[str, ...] = TEST_SETS
    limit: int | None = None  # the first pages of each set alone
    out: Path | None = None
    box: SeenBox | None = None  # what the checkpoint was made from, if that could go into the package

    def out_of(self, stages: Stages) -> Path:
        """A part of the pages, or other sets, by default not where the results of the test sets are."""
        is_partial = self.limit is not None or self.sets != TEST_SETS
        return self.out or (stages.folder / "results" if is_partial else OUT)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.limit is not None and args.limit < 1:
        parser.error(f"--limit must be 1 or more, not {args.limit}")

    def work() -> None:
        box, options = box_of(args.model), CheckpointOptions(tokenizer=args.tokenizer)
        short = find_checkpoint(args.short_model, options) if args.short_model else None
        choice = Choice(in_order(args.sets), args.limit, args.out, box)
        # What a box writes is written by its own tokenizer.
        files = find_checkpoint(args.model, CheckpointOptions() if box else options)
        evaluate(files, args.data, choice, short)

    return run_command(PROGRAM, work, IF_INTERRUPTED)


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", required=True, metavar="CHECKPOINT", help="a checkpoint file, a training folder, or DATA/box"
    )
    parser.add_argument(
        "--short-model", metavar="CHECKPOINT", help="that of the stage before, trained on openings of pages"
    )
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="default: beside the checkpoint or its data; DATA/box has its own"
    )
    parser.add_argument("--data", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    add_sets(parser)
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="default: examples/manpages/results, or with --limit or other --sets the run's own folder",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="the first N pages of each set alone, for trials")
    return parser


def evaluate(files: CheckpointFiles, data: Path, choice: Choice, short: CheckpointFiles | None = None) -> None:
    """Answer, score and report; `short` is the model of the stage before, which answers pages cut to 512 tokens.

    Raises:
        LSGError: the data or the baselines are not there, a page was not answered, or the box changed meanwhile.
        SystemExit: a command failed.
    """
    pages = {split: read_records(data, split)[: choice.limit] for split in choice.sets}
    baselines = {split: read_predictions(data, split, records) for split, records in pages.items()}
    runs = [open_answering(files, pages, data / RUNS)]
    if short:
        runs.append(open_answering(short, pages, data / RUNS, short_variant()))
    texts: dict[str, Texts] = {}
    for split in pages:
        texts[split] = {name: said for run in runs for name, said in run.texts(split).items()} | baselines[split]
    sets = {split: figures_of(runs, split, pages[split], texts[split]) for split in pages}
    found = describe(runs, sets)
    if choice.box:
        choice.box.check_unchanged()
        found["box"] = dict(choice.box.hashes)
    write_results(choice.out_of(runs[0].stages), found, pages, texts)


def box_of(model: str) -> SeenBox | None:
    """The box that is meant, if it is one: a folder in Hugging Face's layout."""
    folder = Path(model).expanduser()
    return SeenBox.at(folder) if (folder / "config.json").is_file() else None


def figures_of(runs: Sequence[Answering], split: str, pages: Sequence[Record], texts: Texts) -> dict[str, Any]:
    """Seconds and scores of a split; writes what everybody said of each page into the model's run."""
    stages = runs[0].stages
    write_predictions(pages, texts, stages.folder / f"{split}.answers.jsonl")
    seconds = {name: value for run in runs for name, value in run.seconds(split).items()}
    return {"seconds": seconds} | measure(score_systems(pages, texts), source_tokens(stages, split), runs[0].positions)


def describe(runs: Sequence[Answering], sets: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """results.json: the figures of each split, and what they depend on."""
    run, *others = runs
    found = {
        "checkpoint": run.checkpoint,
        "machine": machine_facts(),
        "options": GENERATION,
        "variants": {name: asdict(variant) for each in runs for name, variant in each.variants.items()},
        "bootstrap": {"resamples": RESAMPLES, "seed": SEED},
        "sets": dict(sets),
        "target": {split: is_better(figures[ALL]) for split, figures in sets.items()},
        "stages": run.stages.finished,
    }
    for other in others:
        found["short_model"] = {"checkpoint": other.checkpoint, "stages": other.stages.finished}
    return found


def write_results(out: Path, results: Mapping[str, Any], pages: Pages, texts: Mapping[str, Texts]) -> None:
    """Write results.json, results.md and examples.md, all or none."""
    page = results_page(results)
    contents = {
        "results.json": json.dumps(results, indent=1) + "\n",
        "results.md": page,
        "examples.md": examples_page(pages, texts),
    }
    with staged_output(out) as aside:
        for name, text in contents.items():
            (aside / name).write_text(text, encoding="utf-8")
    print(page)
    print(f"wrote {out}")


if __name__ == "__main__":
    sys.exit(main())
