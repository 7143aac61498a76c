"""Commands: --user-dir, paths, and the one sentence that a command ends with after an error."""

from __future__ import annotations

import argparse
import atexit
import codecs
import contextlib
import io
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fairseq
import fairseq_cli
import torch
from fairseq import checkpoint_utils, utils
from omegaconf.errors import OmegaConfBaseException
from torch.multiprocessing import ProcessRaisedException

from lsg_fairseq.compat.patch import patches
from lsg_fairseq.modules.lsg_config import LSGError

logger = logging.getLogger(__name__)
PACKAGE_DIR = Path(__file__).resolve().parents[1]

# --- errors of users that fairseq and Python raise: which of them are told in a sentence of their own.

SAID = (AssertionError, ValueError, RuntimeError, NotImplementedError, Exception)
FRAME = re.compile(r'^ *File "(?:.*/)?([^/"]+)", line (\d+), in (\S+)$', re.MULTILINE)
CALLS_SHOWN, LONGEST_REASON = 4, 300
FAIRSEQ_FOLDERS = (Path(fairseq.__file__).parent, Path(fairseq_cli.__file__).parent)
TORCH_FOLDER = Path(torch.__file__).parent


def sentence_of(error: BaseException | None) -> str | None:
    """One sentence for a mistake that a user can mend, None for everything else.

    Such mistakes are an LSGError, raised here or among the causes (fairseq's trainer hides why a checkpoint does not
    load); a file that cannot be read or written; and what fairseq itself checks and words, mostly flags.
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

    Nobody repeats a training of days for its traceback, so the sentence says where to look.
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
    """Whether memory ran out, on a GPU or on the CPU, where only torch's words say so."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def is_about_a_path(error: BaseException) -> bool:
    """Whether it is about a path that cannot exist; to Python these are not OSErrors."""
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
    """Whether a statement of fairseq's raised it: what torch or numpy raise, or a bug, is not a user's mistake."""
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not _is_of_fairseq(frames[-1]):
        return False
    return isinstance(error, AssertionError) or (frames[-1].line or "").startswith("raise ")


def is_raised_in_fairseq(error: BaseException) -> bool:
    """Whether a line of fairseq's code raised it, or called the torch function that did."""
    frames = traceback.extract_tb(error.__traceback__)
    others = [f for f in frames if f.name != "__torch_function__" and not Path(f.filename).is_relative_to(TORCH_FOLDER)]
    return bool(others) and _is_of_fairseq(others[-1])


def _is_of_fairseq(frame: traceback.FrameSummary) -> bool:
    return any(Path(frame.filename).is_relative_to(folder) for folder in FAIRSEQ_FOLDERS)


# --- --user-dir of a package that is already imported from elsewhere is "not globally unique".


@patches(utils, "import_user_module")
def accept_imported_user_dir(upstream: Callable[..., None], args: Any) -> None:
    user_dir = vars(args).get("user_dir") if isinstance(args, argparse.Namespace) else args.get("user_dir")
    if user_dir is not None and Path(user_dir).name == PACKAGE_DIR.name:
        if Path(user_dir).is_dir() and Path(user_dir).resolve() != PACKAGE_DIR:
            logger.warning(f"{PACKAGE_DIR} is imported already and is used; --user-dir {user_dir} is ignored")
        return
    try:
        upstream(args)
    except FileNotFoundError as error:
        raise LSGError(f"--user-dir {user_dir} does not exist: name the folder of a Python package") from error


# --- a user's mistake ends fairseq's commands with a traceback instead of one sentence, or with an abort.


def errors_come_with_traceback() -> bool:
    return Path(sys.argv[0]).name.startswith("fairseq-") and not hasattr(sys.excepthook, "lsg_fairseq_fix")


def print_user_errors_in_one_line() -> None:
    upstream = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        program = Path(sys.argv[0]).name
        if os.environ.get("LSG_TRACEBACK"):
            upstream(kind, error, traceback)
        elif issubclass(kind, Exception):
            print(f"{program}: error: {sentence_of(error) or unforeseen(error)}", file=sys.stderr)
        else:
            print(f"{program}: {'interrupted' if kind is KeyboardInterrupt else kind.__name__}", file=sys.stderr)
        # Not after Ctrl-C: the interpreter itself ends with the status that a shell expects.
        if issubclass(kind, Exception):
            leave(1)

    excepthook.lsg_fairseq_fix = True
    sys.excepthook = excepthook
    escape_names()


def escape_names() -> None:
    """Let bytes of file names that are no UTF-8 be printed, escaped as they are on standard error."""
    if isinstance(sys.stdout, io.TextIOWrapper) and codecs.lookup(sys.stdout.encoding).name == "utf-8":
        sys.stdout.reconfigure(errors="backslashreplace")


def leave(status: int) -> None:
    """End the process at once, after its atexit functions.

    Daemon threads of a data loader may be inside torch when the interpreter shuts down. At random that aborts the
    process ("terminate called without an active exception"), with status 134.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


# --- fairseq-interactive and fairseq-validate without --path end in an AttributeError or a TypeError.


@patches(utils, "split_paths")
def ask_for_split_path(upstream: Callable[..., list[str]], paths: str | None, *args: Any, **kwargs: Any) -> list[str]:
    return upstream(_given(paths), *args, **kwargs)


@patches(checkpoint_utils, "load_model_ensemble_and_task")
def ask_for_loaded_path(upstream: Callable[..., Any], filenames: list[str | None], *args: Any, **kwargs: Any) -> Any:
    return upstream([_given(name) for name in filenames], *args, **kwargs)


def _given(path: str | None) -> str:
    if path is None:
        raise LSGError("no checkpoint is named: give --path FILE, such as --path checkpoints/checkpoint_best.pt")
    return path


# --- a --save-dir that cannot be written is named, if at all, by a file that fairseq tried to make in it.


@patches(checkpoint_utils, "verify_checkpoint_directory")
def name_save_dir(upstream: Callable[..., None], save_dir: str) -> None:
    try:
        upstream(save_dir)
    except OSError as error:
        raise LSGError(f"--save-dir {save_dir} cannot be written ({error.strerror}): name a folder that can") from error
