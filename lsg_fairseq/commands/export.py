"""lsg-export: a converted or trained LSG model -> a folder for transformers."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from lsg_fairseq.checkpoints.export import export_checkpoint
from lsg_fairseq.commands.running import add_user_dir_flag, import_user_dir, run_command

PROGRAM = "lsg-export"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args = build_parser().parse_args(argv)
    return run_command(PROGRAM, lambda: export(args))


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__)
    parser.add_argument("source", metavar="OUT", type=Path, help="converted or training folder, or a model.pt")
    parser.add_argument("out", metavar="HF", type=Path, help="the folder to write; it must not exist")
    parser.add_argument("--tokenizer", type=Path, metavar="DIR", help="tokenizer files (default: the checkpoint's)")
    parser.add_argument("--half", action="store_true", help="weights in float16, half the size")
    parser.add_argument(
        "--short",
        action="store_true",
        help="a short model: full attention, no global tokens; its original length if positions were only tiled",
    )
    add_user_dir_flag(parser)
    return parser


def export(args: argparse.Namespace) -> None:
    """Export the model that the arguments name; raises as lsg_fairseq.checkpoints.export."""
    import_user_dir(args)
    for line in export_checkpoint(args.source, args.out, args.short, args.tokenizer, args.half):
        print(line)
    print(f"wrote {args.out}")


if __name__ == "__main__":
    sys.exit(main())
