"""lsg-average: checkpoints of one training -> one checkpoint with the mean of their weights."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lsg_fairseq.checkpoints.averaging import average_checkpoints, last_checkpoints
from lsg_fairseq.commands.running import check_numbers, run_command
from lsg_fairseq.modules.lsg_config import LSGError

PROGRAM = "lsg-average"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args = build_parser().parse_args(argv)
    return run_command(PROGRAM, lambda: average(args))


def build_parser() -> argparse.ArgumentParser:
    """The command line; the flags are those of fairseq's scripts/average_checkpoints.py."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, metavar="INPUT", help="checkpoints, or one training folder")
    parser.add_argument(
        "--inputs", nargs="+", type=Path, default=[], metavar="INPUT", help="the same, as fairseq calls it"
    )
    parser.add_argument("--output", required=True, type=Path, metavar="F", help="the checkpoint to write")
    parser.add_argument("--overwrite", action="store_true", help="replace F if it exists")
    last = parser.add_mutually_exclusive_group()
    last.add_argument("--num-epoch-checkpoints", type=int, metavar="N", help="of a folder: the last N epochs")
    last.add_argument(
        "--num-update-checkpoints",
        type=int,
        metavar="N",
        help="of a folder: the last N saved by --save-interval-updates",
    )
    parser.add_argument(
        "--checkpoint-upper-bound",
        type=int,
        metavar="M",
        help="of a folder: ignore checkpoints after epoch (or update) M",
    )
    return parser


def average(args: argparse.Namespace) -> None:
    """Average the checkpoints that the arguments name, and print them.

    Raises:
        LSGError: see lsg_fairseq.checkpoints.averaging; or the arguments contradict each other.
    """
    check_numbers(args)
    paths = chosen(args)
    notes = average_checkpoints(paths, args.output, args.overwrite)
    print(f"averaged {len(paths)}: {', '.join(map(str, paths))}")
    print("\n".join([*notes, f"wrote {args.output}"]))


def chosen(args: argparse.Namespace) -> list[Path]:
    """The checkpoints that the arguments name, the latest one last.

    Raises:
        LSGError: folders and numbers do not fit together, or there are not enough checkpoints.
    """
    inputs = [*args.paths, *args.inputs]
    count = args.num_update_checkpoints if args.num_epoch_checkpoints is None else args.num_epoch_checkpoints
    if not inputs:
        raise LSGError("nothing to average: give checkpoints, or a training folder and --num-epoch-checkpoints N")
    if count is not None:
        if len(inputs) > 1:
            raise LSGError(f"the last {count} checkpoints are taken from one folder, not {len(inputs)}: give only one")
        by_update = args.num_update_checkpoints is not None
        return last_checkpoints(inputs[0], count, by_update, args.checkpoint_upper_bound)
    if args.checkpoint_upper_bound is not None:
        raise LSGError("--checkpoint-upper-bound needs --num-epoch-checkpoints or --num-update-checkpoints")
    for path in inputs:
        if path.is_dir():
            raise LSGError(f"{path} is a folder: add --num-epoch-checkpoints N, or give files in it")
        if not path.exists():
            raise LSGError(f"{path} does not exist")
    return inputs


if __name__ == "__main__":
    sys.exit(main())
