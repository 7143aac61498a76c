"""What each stage reads: the files that are binarized into a folder, and the splits that they follow from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.manpages.training import openings
from examples.manpages.training.openings import mixture_of, opening_of, write_mixture, write_opening


@dataclass(frozen=True)
class Texts:
    """Two splits as they are."""

    training: str
    validation: str

    @property
    def splits(self) -> tuple[str, ...]:
        """What the files follow from."""
        return self.training, self.validation

    def files(self) -> tuple[str, str]:
        """The names of the files for training and validation."""
        return f"{self.training}.jsonl", f"{self.validation}.jsonl"

    def settings(self) -> dict[str, Any]:
        """What else the files depend on."""
        return {}

    def write(self, data: Path) -> None:
        """Write those of the files that are not splits themselves into DATA.

        Raises:
            LSGError: a split has not been prepared.
        """


class Openings(Texts):
    """The first words of both."""

    def files(self) -> tuple[str, str]:
        return opening_of(self.training), opening_of(self.validation)

    def settings(self) -> dict[str, Any]:
        return {"words": openings.WORDS}

    def write(self, data: Path) -> None:
        write_opening(data, self.training)
        write_opening(data, self.validation)


@dataclass(frozen=True)
class Mixture(Openings):
    """More for training, texts of another split among it; validated on openings, so that the losses compare."""

    others: str

    @property
    def splits(self) -> tuple[str, ...]:
        return *super().splits, self.others

    def files(self) -> tuple[str, str]:
        return mixture_of(self.training), opening_of(self.validation)

    def write(self, data: Path) -> None:
        write_mixture(data, self.training, self.others)
        write_opening(data, self.validation)


DESCRIPTIONS, OPENINGS, MIXTURE, PAGES = (f"data-{name}" for name in ("descriptions", "openings", "mixture", "pages"))
TEXTS: dict[str, Texts] = {
    DESCRIPTIONS: Texts("descriptions_train", "descriptions_valid"),
    OPENINGS: Openings("train", "valid"),
    MIXTURE: Mixture("train", "valid", "descriptions_train"),
    PAGES: Texts("train", "valid"),
}
