"""Files and texts told apart by their contents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

CHUNK = 1 << 20


def sha256_of(paths: Iterable[Path]) -> str:
    """The SHA-256 of files one after the other: of a single file what sha256sum prints."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def sha256_of_text(text: str) -> str:
    """The SHA-256 of the file that a text makes in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()
