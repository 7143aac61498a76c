"""A checkpoint's answers to pages, by stock commands, in a folder that holds copies of both."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset

from examples.manpages.corpus.pages import Record, as_jsonl
from examples.manpages.evaluation.scores import GENERATION, Variant, variants_of
from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model, open_checkpoint
from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer
from lsg_fairseq.tokenizers.sequence_format import SequenceFormat
from recipes.answers import read_answers
from recipes.files import sha256_of, sha256_of_text
from recipes.stages import Stages

# --- the folder of a run: copies, so that what is reported is of this checkpoint and these pages ----------------------
# Training may overwrite a checkpoint at any moment; a link to it would show other weights than those that answered.

CHECKPOINT, TOKENIZER = "checkpoint.pt", "tokenizer"
INPUTS = "inputs"  # what the first stage needs: the name of the file that says what was put in
POSITIONS = "source positions"


def open_run(files: CheckpointFiles, pages: Mapping[str, Sequence[Record]], runs: Path) -> Stages:
    """Stages in the folder, below `runs`, of exactly this checkpoint, tokenizer and pages (by split).

    Raises:
        LSGError: the tokenizer cannot be read, a split is without pages, or the checkpoint is being written.
    """
    for split, records in pages.items():
        if not records:
            raise LSGError(f"{split} is without pages, so there is nothing to answer: prepare more pages")
    texts = {f"{split}.jsonl": as_jsonl(records) for split, records in pages.items()}
    hashes = {name: sha256_of_text(text) for name, text in texts.items()}
    inputs = _facts_of(files.model, files.tokenizer) | hashes
    folder = runs / sha256_of_text(json.dumps(inputs))[:12]
    if not (folder / f"{INPUTS}.json").is_file():
        with staged_output(folder) as aside:
            _copy(files, aside)
            if _facts_of(aside / CHECKPOINT, aside / TOKENIZER) | hashes != inputs:
                raise LSGError(f"{files.model} changed while it was copied: let training end, and try again")
            for name, text in {**texts, f"{INPUTS}.json": json.dumps(inputs, indent=1) + "\n"}.items():
                (aside / name).write_text(text, encoding="utf-8")
    return Stages(folder)


def describe_checkpoint(stages: Stages, split: str) -> dict[str, Any]:
    """What is known of a run's checkpoint: size and hash, parameters, attention settings and positions.

    Args:
        split: one that was binarized, with the dictionary that answers are generated with.
    """
    folder = stages.folder
    files = CheckpointFiles(folder / CHECKPOINT, folder / f"data-{split}", folder / TOKENIZER)
    _, model, _ = load_task_and_model(files, Overrides())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {
        **json.loads((folder / f"{INPUTS}.json").read_text(encoding="utf-8"))["checkpoint"],
        "has_optimizer_state": bool(open_checkpoint(files.model).get("last_optimizer_state")),
        "parameters": parameters,
        "half_precision_bytes": 2 * parameters,
        "settings": {POSITIONS: model.max_positions()[0]} | asdict(model.encoder.lsg_config),
    }


def _facts_of(model: Path, tokenizer: Path) -> dict[str, Any]:
    return {
        "checkpoint": {"bytes": model.stat().st_size, "sha256": sha256_of([model])},
        "tokenizer": sha256_of(load_tokenizer(tokenizer).files),
    }


def _copy(files: CheckpointFiles, folder: Path) -> None:
    shutil.copyfile(files.model, folder / CHECKPOINT)
    (folder / TOKENIZER).mkdir()
    for path in load_tokenizer(files.tokenizer).files:
        shutil.copyfile(path, folder / TOKENIZER / path.name)


# --- answers, by stock commands ---------------------------------------------------------------------------------------

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
