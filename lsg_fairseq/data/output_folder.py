"""Output folders and files that are written completely or not at all, by one process at a time."""

from __future__ import annotations

import ctypes
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath

from filelock import FileLock, Timeout

from lsg_fairseq.data.signals import Stopped, signals_held
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.weights.limits import check_name

LOCK_NAME = ".lsg-lock"
PARTIAL = ".partial-"
# In a complete partial folder: which files still have to be moved out of it, and which have to be deleted afterwards.
MOVES_FILE = "moves.json"
# linux/fcntl.h and linux/fs.h: paths relative to the working directory; renameat2 swaps the two.
AT_FDCWD, RENAME_EXCHANGE = -100, 2


@contextmanager
def staged_output(folder: str | Path, stale: Iterable[str] = (), must_be_new: bool = False) -> Iterator[Path]:
    """Yield an empty staging folder. Its files move into `folder` if the block succeeds, and are deleted if it fails.

    For an existing folder, staging happens inside it: it may be a mount point, or its parent may be read-only. A new
    folder is staged next to its final path and renamed. What killed processes left behind is cleaned up first.

    Args:
        stale: glob patterns of files to delete from an existing folder; all other files stay.
        must_be_new: refuse a folder that contains files.

    Raises:
        LSGError: `folder` is a file or is not new, or another process is writing it.
    """
    folder = Path(folder).resolve()
    check_name(folder)
    if folder.exists() and not folder.is_dir():
        raise LSGError(f"{folder} exists and is not a folder: choose another output folder")
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
    """Yield a temporary path next to `output`: renamed to it if the block succeeds, deleted if it fails.

    If `output` is a link, the file that it points to is replaced.

    Raises:
        LSGError: `output` is a device, a pipe or a folder.
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
    """Refuse an output folder that exists, unless it is empty, as a mounted volume may be.

    Raises:
        LSGError: `folder` is a file, or contains files.
    """
    folder = Path(folder)
    if folder.exists() and not (folder.is_dir() and not _files_of_others(folder)):
        raise LSGError(f"{folder} exists already: choose another name for the output, or remove it first")


def half_moved(folder: Path) -> list[Path]:
    """The staging folders whose move into `folder` was interrupted."""
    return [partial for partial in folder.glob(f"{PARTIAL}*") if (partial / MOVES_FILE).is_file()]


def clear_up(folder: Path) -> None:
    """Finish the moves that a killed process began, and delete its other leftovers; the caller holds the lock."""
    for partial in half_moved(folder):
        _move_files(partial, folder)
    left = [*folder.glob(f"{PARTIAL}*"), *folder.parent.glob(f".{folder.name}{PARTIAL}*")]
    for partial in left:
        shutil.rmtree(partial, ignore_errors=True)


def _files_of_others(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.name != LOCK_NAME and not p.name.startswith(PARTIAL)]


def _put_in_place_whole(staged: Path, folder: Path, stale: Iterable[str]) -> None:
    """Hold signals back until all files are in place; Stopped then says that the folder is complete."""
    moved = False
    try:
        with signals_held():
            _put_in_place(staged, folder, stale)
            moved = True
    except Stopped as stopped:
        stopped.done = f"{folder} is complete" if moved else ""
        raise


def _put_in_place(staged: Path, folder: Path, stale: Iterable[str]) -> None:
    """Move all files in one step if the system can swap folders; else one by one, from a list that survives a kill."""
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
            f"another process created {folder} in the meantime, so nothing was written: remove it, or run this again "
            "with another output folder"
        ) from error


def _move_files(partial: Path, folder: Path) -> None:
    """Do the moves and deletions that are still listed in MOVES_FILE."""
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
    """The files to move and those to delete. The list is untrusted: it may have come with somebody else's folder.

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
            f"{path} is damaged, or was not written by lsg-preprocess: remove {path.parent}, and preprocess all splits "
            "again"
        )
    return new, outdated


def _check_stays_inside(folder: Path, names: Iterable[str]) -> None:
    """Check that no subfolder is a link to outside of `folder`: the list of moves may have come with the folder.

    Raises:
        LSGError: the path of a name leads through one.
    """
    home = folder.resolve()
    for name in names:
        if not (folder / name).parent.resolve().is_relative_to(home):
            raise LSGError(f"{(folder / name).parent} is a link that leads out of {folder}: remove it")


def _is_inside(name: object) -> bool:
    """Whether a name is a relative path that stays inside its folder."""
    path = PurePath(name) if isinstance(name, str) and "\0" not in name else None
    return path is not None and bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def exchange(folder: Path, staged: Path, outdated: Iterable[Path], beside: Path) -> bool:
    """Add the files of `staged`, a subfolder of `folder`, to `folder` in one atomic step (Linux only).

    `staged` gets hard links to the files that stay, and the two folders swap places. A process whose working directory
    is the old folder would be left in a deleted one: nothing is done if this process works there, or if the folder has
    other subfolders, where another process may work.

    Args:
        outdated: paths in `folder` that are dropped.
        beside: an unused path in the folder's parent.

    Returns:
        False if nothing was done, because the system or the folder does not allow it.
    """
    if not sys.platform.startswith("linux") or _is_lived_in(folder, staged):
        return False
    left_out = {folder / path for path in outdated} | {folder / p.relative_to(staged) for p in staged.rglob("*")}
    try:
        os.rename(staged, beside)  # fails across mounts, where a swap is impossible as well
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
        # What other processes wrote into the old folder meanwhile.
        _link_files(beside, folder, {beside / path.relative_to(folder) for path in left_out})
    shutil.rmtree(beside, ignore_errors=True)
    return True


def _is_lived_in(folder: Path, staged: Path) -> bool:
    others = [
        path for path in folder.iterdir() if path != staged and path.is_dir() and not (staged / path.name).is_dir()
    ]
    return bool(others) or Path.cwd().resolve().is_relative_to(folder)


def _link_files(source: Path, target: Path, left_out: Iterable[Path]) -> None:
    """Hard-link the files of `source` into `target`, replacing older ones."""
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


@contextmanager
def only_writer(lock_file: Path, output: Path) -> Iterator[None]:
    """Hold the lock on `output` during the block. The lock of a killed process does not count.

    Raises:
        LSGError: another process is writing it, or the lock is a link.
    """
    check_is_no_link(lock_file)
    lock = FileLock(lock_file, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise LSGError(f"another process is writing {output}: wait for it, or choose another output") from error
    try:
        yield
    finally:
        # Deleted before it is released: a process that has opened it meanwhile notices, and makes a new one.
        with suppress(OSError):
            lock_file.unlink()
        lock.release()


def check_is_no_link(lock_file: Path) -> None:
    """Refuse a lock that is a link: older versions of filelock empty the file that it points to.

    Raises:
        LSGError: it is a link.
    """
    if lock_file.is_symlink():
        raise LSGError(f"the lock {lock_file} is a link to another file: remove it")
