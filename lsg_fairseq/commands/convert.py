"""lsg-convert: a Hugging Face or fairseq checkpoint, short or LSG -> a folder for fairseq and torch.hub."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

from lsg_fairseq.checkpoints.convert import plan_conversion, write_conversion
from lsg_fairseq.checkpoints.find import find
from lsg_fairseq.commands.running import add_user_dir_flag, check_numbers, import_user_dir, run_command
from lsg_fairseq.data.output_folder import check_is_new
from lsg_fairseq.hub.entry_checkpoints import ENTRY_LOCATIONS
from lsg_fairseq.models.lsg_model import add_lsg_flags
from lsg_fairseq.modules.lsg_config import LSGConfig

PROGRAM = "lsg-convert"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args = build_parser().parse_args(argv)
    return run_command(PROGRAM, lambda: convert(args))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__)
    parser.add_argument("source", metavar="HF", help="Hugging Face folder or hub id, or a fairseq model.pt")
    parser.add_argument("out", metavar="OUT", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--max-source-positions", type=int, metavar="N", help="default: 4096, or those of an LSG model")
    parser.add_argument("--max-target-positions", type=int, metavar="N", help="default: the number of source positions")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="tokenizer files (default: the checkpoint's)")
    parser.add_argument("--revision", metavar="R", help="branch, tag or commit of a hub id")
    parser.add_argument("--dry-run", action="store_true", help="check and report everything, but write nothing")
    add_user_dir_flag(parser)
    add_lsg_flags(parser.add_argument_group("attention (default: the checkpoint's settings)"), prefix="")
    return parser


def convert(args: argparse.Namespace) -> None:
    """Convert the checkpoint that the arguments name; raises as lsg_fairseq.checkpoints.convert."""
    check_numbers(args)
    import_user_dir(args)
    check_is_new(args.out)
    lsg = {f.name: vars(args)[f.name] for f in fields(LSGConfig) if f.name in vars(args)}
    path = find(args.source, args.revision, ENTRY_LOCATIONS).local()
    plan = plan_conversion(path, args.max_source_positions, args.max_target_positions, lsg, args.tokenizer)
    print("\n".join(plan.lines()))
    if args.dry_run:
        plan.state_dict()
        print("nothing was written (--dry-run)")
        return
    write_conversion(plan, args.out)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(main())
