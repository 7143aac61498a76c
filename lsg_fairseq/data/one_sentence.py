"""Every error of a command or of a hub method reaches the user as one sentence."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lsg_fairseq.compat.commands import is_about_a_path, is_out_of_memory
from lsg_fairseq.modules.lsg_config import LSGError

# If this is set, errors come with their traceback.
TRACEBACK_VARIABLE = "LSG_TRACEBACK"
LONGEST_REASON = 300


def wants_traceback() -> bool:
    """Whether the user asked for tracebacks."""
    return bool(os.environ.get(TRACEBACK_VARIABLE))


def sentence_of(error: BaseException) -> str:
    """One line about any exception: what went wrong and what to do."""
    if isinstance(error, LSGError):
        return " ".join(str(error).split())
    reason = _reason_of(error)
    if isinstance(error, OSError):
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        return f"{reason}: free some space and run it again" if full else reason or type(error).__name__
    if is_out_of_memory(error):
        return (
            f"there is not enough memory ({reason or 'Python has none left'}): use a smaller batch size, fewer "
            "positions or a smaller model"
        )
    if isinstance(error, RecursionError):
        return "an input holds lists or objects within each other, deeper than Python reads: flatten it"
    if isinstance(error, UnicodeEncodeError):
        return f"the output takes no {error.object[error.start]!r} ({error.encoding}): set PYTHONIOENCODING=utf-8"
    if is_about_a_path(error):
        return f"{reason}: use another path"
    named = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
    return (
        f"something unexpected went wrong ({named}): if the input is correct, this is a bug; {TRACEBACK_VARIABLE}=1 "
        "shows where"
    )


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """Turn any exception raised in the block into an LSGError, unless LSG_TRACEBACK is set; also a decorator.

    Raises:
        LSGError: the block raised an exception.
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
    """Turn a failure to write `path` in the block into an LSGError: libraries report a full disk in different ways.

    Raises:
        LSGError: the file could not be written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        raise LSGError(
            f"{path} could not be written ({_reason_of(error)}): is there room for it on the disk?"
        ) from error


def _reason_of(error: BaseException) -> str:
    """The message of an exception in one line."""
    return shortened(" ".join(str(error).split()))


def shortened(text: str) -> str:
    """The text, cut to LONGEST_REASON characters; lone surrogates, which cannot be printed, are escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 4] + " ..."
