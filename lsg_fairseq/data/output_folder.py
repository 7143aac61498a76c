"""A folder, or a file, that is either written completely or left as it was."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from lsg_fairseq.data.exchange import exchange
from lsg_fairseq.data.locks import only_writer
from lsg_fairseq.data.signals import Stopped, signals_held
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import check_name

LOCK_NAME = ".lsg-lock"
PARTIAL = ".partial-"
# In a partial folder that is complete: what is still to be moved out of it, and what is to be deleted then.
MOVES_FILE = "moves.json"


@contextmanager
def staged_output(folder: str | Path, stale: Iterable[str] = (), must_be_new: bool = False) -> Iterator[Path]:
    """Yield an empty folder whose files become those of `folder` if the block ends well, and are removed if not.

    An existing folder is worked in, as it may be a mount point, or its parent not ours to write to; a new one is made
    beside its place and renamed. What killed processes left is cleared up.

    Args:
        stale: glob patterns of files that an existing folder does not keep; it keeps all others.
        must_be_new: refuse a folder that has files, also if they come while the block runs.

    Raises:
        LSGError: `folder` is no folder or is not new, or another process is writing it.
    """
    folder = Path(folder).resolve()
    check_name(folder)
    if folder.exists() and not folder.is_dir():
        raise LSGError(f"{folder} exists and is not a folder: choose another name for the output")
    home = folder if folder.is_dir() else next(path for path in folder.parents if path.is_dir())
    prefix = "" if home == folder else f".{folder.name}"
    with only_writer(home / f"{prefix}{LOCK_NAME}", folder):
        clear_up(folder)
        if must_be_new:
            check_is_new(folder)
        staged = home / f"{prefix}{PARTIAL}{secrets.token_hex(6)}"
        staged.mkdir()
        try:
            yield staged
            _put_in_place_whole(staged, folder, stale)
        finally:
            shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def staged_file(output: Path) -> Iterator[Path]:
    """Yield a name beside `output` whose file becomes it if the block ends well, and is removed if not.

    A link stays one: the file that it names is replaced.

    Raises:
        LSGError: `output` is a device, a pipe or a folder, which a file would take the place of.
    """
    output = output.resolve()
    if output.exists() and not output.is_file():
        raise LSGError(f"{output} is no file, and would be replaced by one: choose another --output")
    output.parent.mkdir(parents=True, exist_ok=True)
    staged = output.with_name(f".{output.name}{PARTIAL}{secrets.token_hex(6)}")
    try:
        yield staged
        os.replace(staged, output)
    finally:
        staged.unlink(missing_ok=True)


def check_is_new(folder: str | Path) -> None:
    """Refuse to write into a folder that is there; an empty one, such as a mounted volume, is as good as new.

    Raises:
        LSGError: `folder` exists.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not _files_of_others(folder)):
        raise LSGError(f"{folder} exists already: choose another name for the output, or remove it first")


def half_moved(folder: Path) -> list[Path]:
    """The partial folders whose move into `folder` was begun and never finished."""
    return [partial for partial in folder.glob(f"{PARTIAL}*") if (partial / MOVES_FILE).is_file()]


def clear_up(folder: Path) -> None:
    """Finish the moves that a killed process began and remove what else it left; the lock must be ours."""
    for partial in half_moved(folder):
        _move_files(partial, folder)
    left = [*folder.glob(f"{PARTIAL}*"), *folder.parent.glob(f".{folder.name}{PARTIAL}*")]
    for partial in left:
        shutil.rmtree(partial, ignore_errors=True)


def _files_of_others(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.name != LOCK_NAME and not p.name.startswith(PARTIAL)]


def _put_in_place_whole(staged: Path, folder: Path, stale: Iterable[str]) -> None:
    """A signal waits until all is in place, and whoever reports it says so."""
    moved = False
    try:
        with signals_held():
            _put_in_place(staged, folder, stale)
            moved = True
    except Stopped as stopped:
        stopped.done = f"{folder} is complete" if moved else ""
        raise


def _put_in_place(staged: Path, folder: Path, stale: Iterable[str]) -> None:
    """All files at once if the system can exchange two folders; else one by one, as a list that can be finished."""
    if staged.parent != folder:
        _rename_new(staged, folder)
        return
    new = [path.relative_to(staged) for path in staged.rglob("*") if path.is_file()]
    outdated = {path.relative_to(folder) for pattern in stale for path in folder.glob(pattern)} - set(new)
    if exchange(folder, staged, outdated, folder.parent / f".{folder.name}{staged.name}"):
        return
    moves = {"new": [str(name) for name in new], "outdated": [str(name) for name in outdated]}
    part = staged / f"{MOVES_FILE}.part"
    part.write_text(json.dumps(moves))
    part.replace(staged / MOVES_FILE)
    _move_files(staged, folder)


def _rename_new(staged: Path, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.rename(staged, folder)  # one step; POSIX lets it replace an empty folder
    except OSError as error:
        if not folder.exists():
            raise
        raise LSGError(
            f"{folder} was made by somebody else meanwhile, so nothing was written: remove it, or run this again with "
            "another name for the output"
        ) from error


def _move_files(partial: Path, folder: Path) -> None:
    """Carry out a list of moves, or what is left of it."""
    new, outdated = _read_moves(partial / MOVES_FILE)
    _check_stays_inside(folder, [*new, *outdated])
    for name in new:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        if (partial / name).exists():
            (partial / name).replace(folder / name)
    for name in outdated:
        with suppress(FileNotFoundError):
            (folder / name).unlink()
    shutil.rmtree(partial, ignore_errors=True)


def _read_moves(path: Path) -> tuple[list[str], list[str]]:
    """What is still to be moved and to be deleted; the list may have come with a folder that somebody sent.

    Raises:
        LSGError: it is damaged, or names a path outside its folder.
    """
    try:
        moves = json.loads(path.read_text(encoding="utf-8"))
        new, outdated = moves["new"], moves["outdated"]
        is_sound = all(_is_inside(name) for name in [*new, *outdated])
    except (ValueError, TypeError, KeyError, RecursionError):
        is_sound = False
    if not is_sound:
        raise LSGError(
            f"{path} is no list of files that lsg-preprocess was moving: remove {path.parent}, and preprocess all "
            "splits again"
        )
    return new, outdated


def _check_stays_inside(folder: Path, names: Iterable[str]) -> None:
    """See that no folder in `folder` is a link that leads out of it: a list of moves may have come with the folder.

    Raises:
        LSGError: there is one on the way to a name.
    """
    home = folder.resolve()
    for name in names:
        if not (folder / name).parent.resolve().is_relative_to(home):
            raise LSGError(f"{(folder / name).parent} is a link that leads out of {folder}: remove it")


def _is_inside(name: object) -> bool:
    """Whether a name is that of a file in its folder or below."""
    path = PurePath(name) if isinstance(name, str) and "\0" not in name else None
    return path is not None and bool(path.parts) and not path.is_absolute() and ".." not in path.parts
