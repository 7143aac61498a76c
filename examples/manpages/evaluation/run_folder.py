"""The folder in which exactly this checkpoint answers these pages: it holds copies, so that what is reported is theirs.

Training may overwrite a checkpoint at any moment; a link to it would show other weights than those that answered.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from examples.manpages.corpus.records import Record, as_jsonl
from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides, load_task_and_model, open_checkpoint
from lsg_fairseq.data.output_folder import written_aside
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import load_tokenizer
from recipes.files import sha256_of, sha256_of_text
from recipes.stages import Stages

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
        with written_aside(folder) as aside:
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
