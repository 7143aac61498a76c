"""A folder that is either written completely or left as it was."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lsg_fairseq.modules.lsg_config import LSGError


@contextmanager
def written_aside(folder: str | Path, stale: Iterable[str] = ()) -> Iterator[Path]:
    """Yield an empty folder beside `folder`; move its files there if the block ends well, else remove it.

    An existing folder keeps its other files, except those that match the glob patterns in `stale`.

    Raises:
        LSGError: `folder` exists and is not a folder.
    """
    folder = Path(folder).resolve()
    if folder.exists() and not folder.is_dir():
        raise LSGError(f"{folder} exists and is not a folder: choose another name for the output")
    parent = next(path for path in folder.parents if path.is_dir())
    aside = parent / f".{folder.name}.partial-{os.getpid()}"
    aside.mkdir()
    try:
        yield aside
        _move_files(aside, folder, stale)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _move_files(aside: Path, folder: Path, stale: Iterable[str]) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists() or not any(folder.iterdir()):
        aside.replace(folder)  # one step, and POSIX lets it replace an empty folder
        return
    new = [path.relative_to(aside) for path in aside.rglob("*") if path.is_file()]
    outdated = {path for pattern in stale for path in folder.glob(pattern)} - {folder / name for name in new}
    for name in new:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (aside / name).replace(folder / name)
    for path in outdated:
        path.unlink()
