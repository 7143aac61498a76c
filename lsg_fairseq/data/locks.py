"""One process at a time: a lock file beside what is written, gone when the work is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from lsg_fairseq.modules.lsg_config import LSGError


@contextmanager
def only_writer(lock_file: Path, output: Path) -> Iterator[None]:
    """Be the only process that writes `output`; a lock that a killed process left behind holds nobody up.

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
        # While it is held: whoever opened the file meanwhile sees that it is gone, and makes a new one.
        with suppress(OSError):
            lock_file.unlink()
        lock.release()


def check_is_no_link(lock_file: Path) -> None:
    """Refuse to lock what a link in somebody's folder names: older versions of filelock empty it.

    Raises:
        LSGError: it is a link.
    """
    if lock_file.is_symlink():
        raise LSGError(f"the lock {lock_file} is a link to another file: remove it")
