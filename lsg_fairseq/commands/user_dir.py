"""--user-dir of the commands: attention and architectures of one's own, which a checkpoint names."""

from __future__ import annotations

import argparse
from argparse import Namespace

from fairseq import utils

from lsg_fairseq.modules.lsg_config import LSGError

FLAG = "--user-dir"


def add_user_dir_flag(parser: argparse._ActionsContainer) -> None:
    """Add the flag; what a checkpoint says about a user_dir is never looked at."""
    parser.add_argument(
        FLAG,
        metavar="DIR",
        help="a package of your own that is imported first, as by fairseq-train: it is code, and it runs",
    )


def import_user_dir(args: argparse.Namespace) -> None:
    """Import the package, the way that fairseq's own commands do, if one is named.

    Raises:
        LSGError: it is not there, or cannot be imported.
    """
    if args.user_dir is None:
        return
    try:
        utils.import_user_module(Namespace(user_dir=args.user_dir))
    except LSGError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise LSGError(f"{FLAG} {args.user_dir} cannot be imported ({reason}): mend it, or leave it out") from error
