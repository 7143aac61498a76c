"""lsg-plan: how much memory a training takes, computed from fairseq-train's flags before it starts."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from lsg_fairseq.commands.running import check_numbers, run_command
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.planning.report import Room, as_json, make_report, to_text
from lsg_fairseq.planning.setup import BACKENDS, PROGRAM, USAGE, Machine, parse_flags

# GiB for the CUDA context, cuBLAS workspaces and fragmentation, in addition to tensors: a rule of thumb.
RESERVE = 2.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args, flags = build_parser().parse_known_args(argv)
    return run_command(PROGRAM, lambda: show_plan(args, flags))


def build_parser() -> argparse.ArgumentParser:
    """The flags of this command; all others are fairseq-train's."""
    parser = argparse.ArgumentParser(PROGRAM, usage=USAGE, description=__doc__, allow_abbrev=False)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: %(default)s)")
    parser.add_argument(
        "--backend", choices=("auto", *BACKENDS), default="auto", help="of block attention (default: %(default)s)"
    )
    parser.add_argument("--gpu-memory", type=float, metavar="GIB", help="report what fits into it")
    parser.add_argument(
        "--reserve",
        type=float,
        default=RESERVE,
        metavar="GIB",
        help="part of it that tensors cannot use (default: %(default)g)",
    )
    parser.add_argument(
        "--vocab-size", type=int, metavar="N", help="default: the data folder's, else the published model's"
    )
    parser.add_argument("--json", action="store_true", help="print JSON, sizes in bytes")
    return parser


def show_plan(args: argparse.Namespace, flags: Sequence[str]) -> None:
    """Plan the training of the flags and print the report.

    Raises:
        LSGError: see lsg_fairseq.planning.setup; or the memory sizes are not allowed.
    """
    check_numbers(args)
    room = read_room(args)
    report = make_report(parse_flags(flags), Machine(args.device, args.backend, args.vocab_size), room)
    print(json.dumps(as_json(report)) if args.json else to_text(report))


def read_room(args: argparse.Namespace) -> Room | None:
    """The device's memory; None if it was not given.

    Raises:
        LSGError: it is not above the reserve.
    """
    if args.gpu_memory is None:
        return None
    if args.reserve >= args.gpu_memory:
        raise LSGError(
            f"--gpu-memory {args.gpu_memory:g} must be more than --reserve {args.reserve:g}, which is a part of it: "
            "correct one of them"
        )
    return Room(args.gpu_memory, args.reserve)


if __name__ == "__main__":
    sys.exit(main())
