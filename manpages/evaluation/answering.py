"""A model's answers to the test pages in several ways, by stock commands: the same weights, the same pages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fairseq.data.indexed_dataset import MMapIndexedDataset

from benchmarks.answers import read_answers
from benchmarks.files import sha256_of
from benchmarks.stages import Stages
from lsg_fairseq.checkpoints.loading import CheckpointFiles
from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.data.output_folder import written_aside
from lsg_fairseq.data.sequence_format import SequenceFormat
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenization import load_tokenizer
from manpages.corpus.records import Record

SHORT, LONG = 512, 4096  # source tokens, <s> and </s> included
AS_TRAINED = "as_trained"
INPUTS = "inputs"  # what the first stage needs: the name of the file that says what was put in

# The same for all variants. A batch is bounded by the memory of full attention over LONG tokens.
GENERATION: dict[str, int] = {
    "--beam": 4,
    "--max-len-b": 48,
    "--no-repeat-ngram-size": 3,
    "--batch-size": 32,
    "--max-tokens": 4 * LONG,
}
PLUGIN = "--user-dir lsg_fairseq --task lsg_summarization --cpu".split()


@dataclass(frozen=True)
class Variant:
    """What is added to the command line, and what that means."""

    flags: tuple[str, ...]
    meaning: str


VARIANTS: dict[str, Variant] = {
    AS_TRAINED: Variant(
        ("--max-source-positions", str(LONG)),
        f"the checkpoint's own attention settings, pages cut to {LONG:,} tokens",
    ),
    "cut_to_512": Variant(
        ("--max-source-positions", str(SHORT)), f"the same, but pages cut to {SHORT} tokens, `<s>` and `</s>` included"
    ),
    "sparsity_none": Variant(
        ("--max-source-positions", str(LONG), "--model-overrides", "{'lsg_sparsity_type': 'none'}"),
        "no sparse tokens: a token sees its own block, both neighbours and the global tokens",
    ),
    "full_attention": Variant(
        ("--max-source-positions", str(LONG), "--model-overrides", "{'lsg_attention': 'full'}"),
        "every token sees every token; the learned global tokens stay in front, as the decoder was trained with them",
    ),
}


def open_run(files: CheckpointFiles, pages: Mapping[str, Sequence[Record]], runs: Path) -> Stages:
    """Stages in the folder, below `runs`, of exactly this checkpoint, tokenizer and test pages (by split).

    Raises:
        LSGError: the tokenizer cannot be read, or a split is without pages.
    """
    for split, records in pages.items():
        if not records:
            raise LSGError(f"{split} is without pages, so there is nothing to answer: prepare more pages")
    contents = {f"{split}.jsonl": _as_jsonl(records) for split, records in pages.items()}
    facts = {"checkpoint": sha256_of([files.model]), "tokenizer": sha256_of(load_tokenizer(files.tokenizer).files)}
    facts |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in contents.items()}
    written = json.dumps(facts, indent=1) + "\n"
    folder = runs / hashlib.sha256(written.encode()).hexdigest()[:12]
    if not (folder / f"{INPUTS}.json").is_file():
        with written_aside(folder) as aside:
            for name, text in {**contents, f"{INPUTS}.json": written}.items():
                (aside / name).write_text(text, encoding="utf-8")
    # Links: commands that name no path of this machine, and are the same wherever the checkpoint lies.
    for name, target in (("checkpoint.pt", files.model), ("tokenizer", files.tokenizer)):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target.resolve())
    return Stages(folder)


def binarize(stages: Stages, split: str) -> None:
    """Stage preprocess-SPLIT, which makes the folder data-SPLIT."""
    flags = ["--test", f"{split}.jsonl", "--out", f"data-{split}", "--tokenizer", "tokenizer"]
    stages.run(f"preprocess-{split}", INPUTS, "lsg-preprocess", *flags)


def stage_of(split: str, variant: str) -> str:
    """The stage that answers a split in one way."""
    return f"{split}-{variant.replace('_', '-')}"


def answer(stages: Stages, split: str, variant: str) -> list[str]:
    """A description of each page of a split that was binarized, in the order of the pages.

    Raises:
        LSGError: not every page was answered exactly once.
        SystemExit: a command failed.
    """
    name = stage_of(split, variant)
    settings = [part for flag, value in GENERATION.items() for part in (flag, value)]
    # Into a file of its own: what goes to both streams of a pipe can tear a line.
    where = ["--path", "checkpoint.pt", "--results-path", f"answers-{name}"]
    flags = [*PLUGIN, *where, *settings, *VARIANTS[variant].flags]
    stages.run(name, f"preprocess-{split}", "fairseq-generate", f"data-{split}", *flags)
    printed = "\n".join(text for _, text in read_lines(stages.folder / f"answers-{name}" / "generate-test.txt"))
    return read_answers(printed, sum(1 for _ in read_lines(stages.folder / f"{split}.jsonl")))


def source_tokens(stages: Stages, split: str) -> np.ndarray:
    """The length of each page of a split that was binarized, uncut, `<s>` and `</s>` included."""
    data = stages.folder / f"data-{split}"
    documents = MMapIndexedDataset(str(data / "test.source-target.source"))
    return np.asarray(documents.sizes) + SequenceFormat.load(data).source_bos


def _as_jsonl(records: Sequence[Record]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
