"""What each stage reads: the files that are binarized into a folder, and the splits that they follow from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from manpages.training import openings
from manpages.training.openings import mixture_of, opening_of, write_mixture, write_opening

DESCRIPTIONS, OPENINGS, MIXTURE, PAGES = (f"data-{name}" for name in ("descriptions", "openings", "mixture", "pages"))
# For training, for validation, and what else goes into the training file.
SPLITS: dict[str, tuple[str, ...]] = {
    DESCRIPTIONS: ("descriptions_train", "descriptions_valid"),
    OPENINGS: ("train", "valid"),
    MIXTURE: ("train", "valid", "descriptions_train"),
    PAGES: ("train", "valid"),
}


def files_of(folder: str) -> tuple[str, str]:
    """The names of the files for training and validation. A mixture is validated on openings: the losses compare."""
    training, validation, *_ = SPLITS[folder]
    if folder == OPENINGS:
        return opening_of(training), opening_of(validation)
    if folder == MIXTURE:
        return mixture_of(training), opening_of(validation)
    return f"{training}.jsonl", f"{validation}.jsonl"


def settings_of(folder: str) -> dict[str, Any]:
    """What else those files depend on."""
    return {"words": openings.WORDS} if folder in (OPENINGS, MIXTURE) else {}


def write_files(data: Path, folder: str) -> None:
    """Write those of the files that are not splits themselves into DATA.

    Raises:
        LSGError: a split has not been prepared.
    """
    training, validation, *others = SPLITS[folder]
    if folder in (OPENINGS, MIXTURE):
        write_opening(data, validation)
    if folder == OPENINGS:
        write_opening(data, training)
    if folder == MIXTURE:
        write_mixture(data, training, *others)
