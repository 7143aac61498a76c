"""Commands: what happens between the command line and the main function of a fairseq command."""

from __future__ import annotations

import argparse
import functools
import logging
import os
import sys
from pathlib import Path
from typing import Any

from fairseq import utils

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
        upstream(args)

    import_user_module.lsg_fairseq_fix = True
    utils.import_user_module = import_user_module


# --- a mistake of the user ends fairseq's commands with a page of traceback instead of one sentence.


def errors_come_with_traceback() -> bool:
    return Path(sys.argv[0]).name.startswith("fairseq-") and not hasattr(sys.excepthook, "lsg_fairseq_fix")


def print_user_errors_in_one_line() -> None:
    upstream = sys.excepthook

    def excepthook(kind: type[BaseException], error: BaseException, traceback: Any) -> None:
        reason = _user_error(error)
        if reason is not None and not os.environ.get("LSG_TRACEBACK"):
            print(f"{Path(sys.argv[0]).name}: error: {reason}", file=sys.stderr)
        else:
            upstream(kind, error, traceback)

    excepthook.lsg_fairseq_fix = True
    sys.excepthook = excepthook


def _user_error(error: BaseException | None) -> LSGError | None:
    """The LSGError that this is, or that it was raised for: fairseq's trainer hides why a checkpoint does not load."""
    while error is not None and not isinstance(error, LSGError):
        error = error.__cause__ or error.__context__
    return error
