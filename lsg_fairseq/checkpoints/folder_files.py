"""The files of a checkpoint: its own names, and where its tokenizer and vocabulary are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lsg_fairseq.tokenizers.load import has_tokenizer

TRAINED_FILES = ("checkpoint_best.pt", "checkpoint_last.pt")
CONVERTED_FILE = "model.pt"


def find_tokenizer(model: Path, given: str | Path | None, task: Mapping[str, Any]) -> tuple[Path, Path] | None:
    """The folders of a checkpoint file's tokenizer and vocabulary; None where it comes without a tokenizer.

    Looks in the folder given (or its `tokenizer`), else beside the file, else in the data folder of its training.

    Args:
        task: the arguments of the task that the checkpoint was trained with, and its `save_dir`.
    """
    homes = [model.parent, *_data_folders(model, task)]
    if given is not None:
        folder = Path(given).expanduser()
        homes = [model.parent, folder, folder.parent, *homes[1:]]
    for folder in _tokenizer_folders(model, given, task):
        if has_tokenizer(folder):
            vocabularies = [home for home in (folder.parent, *homes) if _has_dictionary(home)]
            return folder, next(iter(vocabularies), folder)
    return None


def missing_tokenizer(model: Path, given: str | Path | None, task: Mapping[str, Any]) -> str:
    """The message for a checkpoint without a tokenizer."""
    looked = ", ".join(map(str, _tokenizer_folders(model, given, task)))
    return f"{model} comes without a tokenizer (looked in {looked}): give its folder as tokenizer="


def _tokenizer_folders(model: Path, given: str | Path | None, task: Mapping[str, Any]) -> list[Path]:
    if given is not None:
        return [Path(given).expanduser(), Path(given).expanduser() / "tokenizer"]
    return [home / "tokenizer" for home in (model.parent, *_data_folders(model, task))]


def _data_folders(model: Path, task: Mapping[str, Any]) -> list[Path]:
    """Where the data folder may be; a relative path is meant from where the training was started.

    That is where the stored --save-dir leads to the checkpoint; else the checkpoint's folder or the one above it. The
    present working directory has nothing to do with it: another project may have a folder of that name.
    """
    stored = task.get("data")
    data = Path(stored.split(":")[0]) if isinstance(stored, str) and stored else None
    if data is None or data.is_absolute():
        return [data] if data else []
    folder = model.resolve().parent
    save_dir = Path(str(task.get("save_dir") or "checkpoints"))
    steps = save_dir.parts
    if steps and not save_dir.is_absolute() and ".." not in steps and folder.parts[-len(steps) :] == steps:
        return [Path(*folder.parts[: -len(steps)]) / data]
    return [folder / data, folder.parent / data]


def _has_dictionary(folder: Path) -> bool:
    """Whether the folder is data of fairseq; sentence_prediction keeps the dictionary of its texts in input0."""
    return any(folder.glob("dict*.txt")) or (folder / "input0" / "dict.txt").is_file()
