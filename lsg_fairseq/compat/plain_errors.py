"""Errors of users that fairseq and Python raise: which of them are told in their own sentence instead of a page."""

from __future__ import annotations

import re
import traceback
from pathlib import Path

import fairseq
import fairseq_cli
import torch
from omegaconf.errors import OmegaConfBaseException
from torch.multiprocessing import ProcessRaisedException

from lsg_fairseq.modules.lsg_config import LSGError

SAID = (AssertionError, ValueError, RuntimeError, NotImplementedError, Exception)
FRAME = re.compile(r'^ *File "(?:.*/)?([^/"]+)", line (\d+), in (\S+)$', re.MULTILINE)
CALLS_SHOWN, LONGEST_REASON = 4, 300
FAIRSEQ_FOLDERS = (Path(fairseq.__file__).parent, Path(fairseq_cli.__file__).parent)
TORCH_FOLDER = Path(torch.__file__).parent


def sentence_of(error: BaseException | None) -> str | None:
    """One sentence for a mistake that a user can mend, None for everything else.

    That is an LSGError, or what one was raised for (fairseq's trainer hides why a checkpoint does not load); a file
    that cannot be read or written; and what fairseq itself checks and says in words, of flags for the most part.
    """
    found = _first_of(error, LSGError)
    if found is not None:
        return " ".join(str(found).split())
    if isinstance(error, OSError):
        return _of_file(error)
    if error is not None and is_out_of_memory(error):
        said = " ".join(str(error).split())[:LONGEST_REASON] or "Python has none left"
        less = "a smaller batch (--batch-size, --max-tokens), fewer positions or a smaller model"
        return f"there is not enough memory ({said}): take {less}"
    if error is not None and is_about_a_path(error):
        return f"{' '.join(str(error).split())}: name another path"
    if isinstance(error, IndexError) and str(error) == "index out of range in self":  # torch's, of an embedding
        return "the data have ids that are not in the dictionary: preprocess them again with the model's own tokenizer"
    if isinstance(error, OmegaConfBaseException):
        said = " ".join(str(error).split("reference_type")[0].split())[:LONGEST_REASON]
        return f"a setting has a value of another kind ({said}): correct the flag, or the checkpoint that states it"
    if error is not None and type(error) in SAID and _says_something(error) and _is_said_by_fairseq(error):
        return f"{' '.join(error.args[0].split())} (LSG_TRACEBACK=1 shows where)"
    return None


def unforeseen(error: BaseException) -> str:
    """One sentence for everything else: the error, and the last of the calls that led to it.

    A training that has run for days is not run again for the page, so the sentence says where to look.
    """
    said = " ".join(str(error).split())
    named = f"{type(error).__name__}: {said}" if said else type(error).__name__
    if isinstance(error, ProcessRaisedException):  # what it says is the page of another process
        named = (str(error).strip().splitlines() or [""])[-1]
    reason = named if len(named) <= LONGEST_REASON else named[: LONGEST_REASON - 4] + " ..."
    calls = FRAME.findall("".join(traceback.format_exception(error)))[-CALLS_SHOWN:]
    where = ", ".join(f"{file}:{line} {function}" for file, line, function in calls)
    return (
        f"something unexpected went wrong ({reason}{'; in ' * bool(where)}{where}): if flags and files are as they "
        "should be, this is a bug; LSG_TRACEBACK=1 shows the whole page"
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on a GPU or here; torch's CPU says so in words alone."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def is_about_a_path(error: BaseException) -> bool:
    """Whether it is about a path that cannot be; to Python these are no OSErrors."""
    return "Symlink loop" in str(error) or "embedded null byte" in str(error)


def _first_of(error: BaseException | None, kind: type[BaseException]) -> BaseException | None:
    while error is not None and not isinstance(error, kind):
        error = error.__cause__ or error.__context__
    return error


def _of_file(error: OSError) -> str:
    if error.strerror is None or error.filename is None:
        return " ".join(str(error).split())
    names = " to ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{names}: {error.strerror}"


def _says_something(error: BaseException) -> bool:
    return len(error.args) == 1 and isinstance(error.args[0], str) and " " in error.args[0].strip()


def _is_said_by_fairseq(error: BaseException) -> bool:
    """Whether a statement of fairseq's raised it: what torch, numpy or a slip in the code raise is no user's matter."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not _is_of_fairseq(frames[-1]):
        return False
    return isinstance(error, AssertionError) or (frames[-1].line or "").startswith("raise ")


def is_raised_in_fairseq(error: BaseException) -> bool:
    """Whether a line of fairseq's code raised it, or had torch do so."""
    frames = traceback.extract_tb(error.__traceback__)
    others = [f for f in frames if f.name != "__torch_function__" and not Path(f.filename).is_relative_to(TORCH_FOLDER)]
    return bool(others) and _is_of_fairseq(others[-1])


def _is_of_fairseq(frame: traceback.FrameSummary) -> bool:
    return any(Path(frame.filename).is_relative_to(folder) for folder in FAIRSEQ_FOLDERS)
