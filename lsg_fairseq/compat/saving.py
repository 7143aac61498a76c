"""Saving: a checkpoint that replaces another does so at once, whenever the process is killed."""

from __future__ import annotations

import os
import shutil
from typing import Any

from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

# --- checkpoint_last.pt is copied over the old one in place: a kill meanwhile leaves neither.


class AtomicCopies(PathManager):
    """Stands for PathManager in fairseq.checkpoint_utils: the same, but a local copy is made aside and renamed."""

    @staticmethod
    def copy(src_path: str, dst_path: str, overwrite: bool = False) -> Any:
        if not PathManager.supports_rename(dst_path) or not os.path.isfile(src_path):
            return PathManager.copy(src_path, dst_path, overwrite=overwrite)
        # The name that fairseq gives a checkpoint while it writes it; what a kill leaves is written over.
        aside = f"{dst_path}.tmp"
        shutil.copyfile(src_path, aside)
        os.replace(aside, dst_path)
        return dst_path


def copies_are_made_in_place() -> bool:
    return not issubclass(checkpoint_utils.PathManager, AtomicCopies)


def copy_aside_and_rename() -> None:
    checkpoint_utils.PathManager = AtomicCopies
