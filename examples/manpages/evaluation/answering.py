"""A model's answers to the pages of a run, by stock commands."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset

from examples.manpages.corpus.records import Record
from examples.manpages.evaluation.run_folder import (
    CHECKPOINT,
    INPUTS,
    POSITIONS,
    TOKENIZER,
    describe_checkpoint,
    open_run,
)
from examples.manpages.evaluation.variants import GENERATION, Variant, variants_of
from lsg_fairseq.checkpoints.loading import CheckpointFiles
from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat
from recipes.answers import read_answers
from recipes.stages import Stages

# An output of the greatest length is closed as checkpoints in Hugging Face's layout ask, the box among them.
PLUGIN = "--user-dir lsg_fairseq --task lsg_summarization --cpu --forced-eos".split()


@dataclass(frozen=True)
class Answering:
    """A checkpoint that answers: its run, what is known of it, and the variants in which it answers."""

    stages: Stages
    checkpoint: Mapping[str, Any]
    variants: Mapping[str, Variant]

    @property
    def positions(self) -> int:
        """How many source tokens the checkpoint reads."""
        return self.checkpoint["settings"][POSITIONS]

    def texts(self, split: str) -> dict[str, list[str]]:
        """What each variant says of each page; raises as `answer`."""
        return {name: answer(self.stages, split, name, variant.flags) for name, variant in self.variants.items()}

    def seconds(self, split: str) -> dict[str, Any]:
        """How long each variant took to say it."""
        return {name: self.stages.finished[stage_of(split, name)]["seconds"] for name in self.variants}


def open_answering(
    files: CheckpointFiles,
    pages: Mapping[str, Sequence[Record]],
    runs: Path,
    variants: Mapping[str, Variant] | None = None,
) -> Answering:
    """The run of a checkpoint below `runs`, pages (by split) binarized; by default in all variants that it has.

    Raises:
        LSGError: as open_run.
        SystemExit: lsg-preprocess failed.
    """
    stages = open_run(files, pages, runs)
    for split in pages:
        binarize(stages, split)
    checkpoint = describe_checkpoint(stages, next(iter(pages)))
    return Answering(stages, checkpoint, variants or variants_of(checkpoint["settings"][POSITIONS]))


def binarize(stages: Stages, split: str) -> None:
    """Stage preprocess-SPLIT, which makes the folder data-SPLIT."""
    flags = ["--test", f"{split}.jsonl", "--out", f"data-{split}", "--tokenizer", TOKENIZER]
    stages.run(f"preprocess-{split}", INPUTS, "lsg-preprocess", *flags)


def stage_of(split: str, variant: str) -> str:
    """The stage that answers a split in one way."""
    return f"{split}-{variant.replace('_', '-')}"


def answer(stages: Stages, split: str, variant: str, flags: Iterable[str]) -> list[str]:
    """A description of each page of a split that was binarized, in the order of the pages.

    Args:
        variant: the name of what the flags make of the model.

    Raises:
        LSGError: not every page was answered exactly once.
        SystemExit: a command failed.
    """
    name = stage_of(split, variant)
    settings = [part for flag, value in GENERATION.items() for part in (flag, value)]
    # Into a file of its own: what goes to both streams of a pipe can tear a line.
    where = ["--path", CHECKPOINT, "--results-path", f"answers-{name}"]
    pages = sum(1 for _ in read_lines(stages.folder / f"{split}.jsonl"))

    def read(_: str = "") -> list[str]:
        lines = read_lines(stages.folder / f"answers-{name}" / "generate-test.txt")
        return read_answers("\n".join(text for _, text in lines), pages)

    command = ["fairseq-generate", f"data-{split}", *PLUGIN, *where, *settings, *flags]
    stages.run(name, f"preprocess-{split}", *command, check=read)
    return read()


def source_tokens(stages: Stages, split: str) -> np.ndarray:
    """The length of each page of a split that was binarized, uncut, `<s>` and `</s>` included."""
    data = stages.folder / f"data-{split}"
    documents = MMapIndexedDataset(str(data / "test.source-target.source"))
    return np.asarray(documents.sizes) + SequenceFormat.load(data).source_bos
