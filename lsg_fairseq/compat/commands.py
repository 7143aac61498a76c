"""Commands: what happens between the command line and the main function of a fairseq command."""

from __future__ import annotations

import argparse
import atexit
import codecs
import contextlib
import functools
import io
import logging
import os
import sys
from pathlib import Path
from typing import Any

from fairseq import utils

from lsg_fairseq.compat.plain_errors import sentence_of, unforeseen
from lsg_fairseq.modules.lsg_config import LSGError

logger = logging.getLogger(__name__)
PACKAGE_DIR = Path(__file__).resolve().parents[1]

# --- --user-dir of a package that is already imported from elsewhere is "not globally unique".


def user_dir_is_imported_by_path() -> bool:
    return not hasattr(utils.import_user_module, "lsg_fairseq_fix")


def accept_imported_user_dir() -> None:
    upstream = utils.import_user_module

    @functools.wraps(upstream)
    def import_user_module(args: Any) -> None:
        user_dir = vars(args).get("user_dir") if isinstance(args, argparse.Namespace) else args.get("user_dir")
        if user_dir is not None and Path(user_dir).name == PACKAGE_DIR.name:
            if Path(user_dir).is_dir() and Path(user_dir).resolve() != PACKAGE_DIR:
                logger.warning(f"{PACKAGE_DIR} is imported already and serves; --user-dir {user_dir} is not looked at")
            return
        try:
            upstream(args)
        except FileNotFoundError as error:
            raise LSGError(f"--user-dir {user_dir} does not exist: name the folder of a Python package") from error

    import_user_module.lsg_fairseq_fix = True
    utils.import_user_module = import_user_module


# --- a mistake of the user ends fairseq's commands with a page of traceback instead of one sentence, or in an abort.


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
        # Not for Ctrl-C, which the interpreter turns into the status that a shell expects.
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
    """End the process after everything that is registered for its end.

    The loader's threads are daemons, and may be inside torch when the interpreter goes: taken down there they abort
    the process ("terminate called without an active exception"), which then ends with 134 at random.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)
