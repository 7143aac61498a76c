"""Replacing files of a folder all at once, where the system can exchange two folders in one step (Linux)."""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

# linux/fcntl.h and linux/fs.h: paths are relative to the working directory, and the two change places.
AT_FDCWD, RENAME_EXCHANGE = -100, 2


def exchange(folder: Path, staged: Path, outdated: Iterable[Path], beside: Path) -> bool:
    """Put the files of `staged`, a folder in `folder`, in their places in one step; False: nothing was done.

    The folder that takes the place has hard links to all other files of the old one. Whoever works inside the old one
    would be left in a deleted folder: not done where this process does, or where there are other folders in it.

    Args:
        outdated: paths in `folder` that are left out.
        beside: a free path in the folder's parent.
    """
    if not sys.platform.startswith("linux") or _is_lived_in(folder, staged):
        return False
    left_out = {folder / path for path in outdated} | {folder / p.relative_to(staged) for p in staged.rglob("*")}
    try:
        os.rename(staged, beside)  # fails from one mount to another: there is no exchange either then
    except OSError:
        return False
    try:
        _link_files(folder, beside, left_out)
        shutil.copystat(folder, beside)
        _exchange(folder, beside)
    except OSError:
        os.rename(beside, staged)
        return False
    with suppress(OSError):
        # What somebody wrote meanwhile into what is now beside.
        _link_files(beside, folder, {beside / path.relative_to(folder) for path in left_out})
    shutil.rmtree(beside, ignore_errors=True)
    return True


def _is_lived_in(folder: Path, staged: Path) -> bool:
    others = [
        path for path in folder.iterdir() if path != staged and path.is_dir() and not (staged / path.name).is_dir()
    ]
    return bool(others) or Path.cwd().resolve().is_relative_to(folder)


def _link_files(source: Path, target: Path, left_out: Iterable[Path]) -> None:
    """Hard links in `target` to the files of `source`, in place of older ones."""
    for path in source.rglob("*"):
        place = target / path.relative_to(source)
        if path in left_out or path.is_dir() or (place.exists() and place.samefile(path)):
            continue
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
        os.link(path, place, follow_symlinks=False)


def _exchange(one: Path, other: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "renameat2"):  # glibc before 2.28
        raise OSError("no renameat2")
    if libc.renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
