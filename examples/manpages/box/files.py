"""What a box is made of, so that results and package can be told to be of the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGError
from recipes.files import sha256_of

CARD, LICENCE = "README.md", "LICENSE"


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a box; card and licence are added in the package."""
    return {path.name: sha256_of([path]) for path in sorted(folder.iterdir()) if path.name not in (CARD, LICENCE)}


@dataclass(frozen=True)
class SeenBox:
    """A box and what was in it before anybody read its weights."""

    folder: Path
    hashes: Mapping[str, str]

    @classmethod
    def at(cls, folder: Path) -> SeenBox:
        """The box as it is now."""
        return cls(folder, hashes(folder))

    def check_unchanged(self) -> None:
        """Refuse a box that is another one by now.

        Raises:
            LSGError: it was packed again.
        """
        if hashes(self.folder) != self.hashes:
            raise LSGError(f"{self.folder} was packed again meanwhile, so these results are of no use: run this again")
