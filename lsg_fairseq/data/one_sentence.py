"""Whatever goes wrong in a command or a call of the hub reaches its user as one sentence."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lsg_fairseq.compat.plain_errors import is_about_a_path, is_out_of_memory
from lsg_fairseq.modules.lsg_config import LSGError

# Set it to anything for Python's own page about an error.
TRACEBACK_VARIABLE = "LSG_TRACEBACK"
LONGEST_REASON = 300


def wants_traceback() -> bool:
    """Whether the user asked for the page."""
    return bool(os.environ.get(TRACEBACK_VARIABLE))


def sentence_of(error: BaseException) -> str:
    """One line about an error, whoever raised it."""
    if isinstance(error, LSGError):
        return " ".join(str(error).split())
    reason = shortened(" ".join(str(error).split()))
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{reason}: free some space and run it again" if full else reason or type(error).__name__
    if is_out_of_memory(error):
        return (
            f"there is not enough memory ({reason or 'Python has none left'}): take a smaller batch size, fewer "
            "positions or a smaller model"
        )
    if isinstance(error, RecursionError):
        return "an input holds lists or objects within each other, deeper than Python reads: flatten it"
    if isinstance(error, UnicodeEncodeError):
        return f"the output takes no {error.object[error.start]!r} ({error.encoding}): set PYTHONIOENCODING=utf-8"
    if is_about_a_path(error):
        return f"{reason}: name another path"
    named = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return (
        f"something unexpected went wrong ({named}): if the input is as it should be, this is a bug; "
        f"{TRACEBACK_VARIABLE}=1 shows where"
    )


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """What is raised inside comes out as an LSGError; also a decorator.

    Raises:
        LSGError: instead of any exception; the exception itself if LSG_TRACEBACK is set.
    """
    try:
        yield
    except LSGError:
        raise
    except Exception as error:
        if wants_traceback():
            raise
        raise LSGError(sentence_of(error)) from None


@contextmanager
def written_whole(path: Path) -> Iterator[None]:
    """Say that a file could not be written, whatever the library that writes it makes of a full disk.

    Raises:
        LSGError: it could not.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = shortened(" ".join(str(error).split()))
        raise LSGError(f"{path} could not be written ({reason}): is there room for it on the disk?") from error


def shortened(text: str) -> str:
    """The text, or its beginning where it is long; lone surrogates, which nothing can print, are escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 4] + " ..."
