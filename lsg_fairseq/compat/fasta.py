"""FASTA: an index of proteins is made by a shell command with the file's name in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from fairseq.data import fasta_dataset
from fairseq.data.fasta_dataset import FastaDataset

# --- A language of cfg.task, which a checkpoint brings along, is part of the name: `;` and all.


def fasta_index_runs_a_shell() -> bool:
    return FastaDataset._build_index is not build_index


def read_fasta_index() -> None:
    FastaDataset._build_index = build_index


def build_index(self: Any, path: str) -> tuple[np.ndarray, np.ndarray]:
    """Where each entry's header starts in bytes, and how many letters its sequence has; int64 each."""
    offsets, sizes, place = [], [], 0
    with Path(fasta_dataset.fasta_file_path(path)).open("rb") as file:
        for line in file:
            if line.startswith(b">"):
                offsets.append(place)
                sizes.append(0)
            elif sizes:
                sizes[-1] += len(line.strip())
            place += len(line)
    return np.array(offsets, np.int64), np.array(sizes, np.int64)
