"""What a box is made of, so that results and package can be told to be of the same."""

from __future__ import annotations

from pathlib import Path

from benchmarks.files import sha256_of

CARD, LICENCE = "README.md", "LICENSE"


def hashes(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file of a box; card and licence are added in the package."""
    return {path.name: sha256_of([path]) for path in sorted(folder.iterdir()) if path.name not in (CARD, LICENCE)}
