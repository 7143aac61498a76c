"""lsg-summarize: documents from files or standard input -> summaries on standard output or in a file."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lsg_fairseq.checkpoints.model_spec import ENCODER_FAMILIES
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.resumable_output import open_resumable
from lsg_fairseq.hub import read_overrides
from lsg_fairseq.models.lsg_model import FLAG_PREFIX, add_lsg_flags
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.pretrained.batched_generation import BatchedGenerator, BatchOptions
from lsg_fairseq.pretrained.entry_checkpoints import DEFAULT_ENTRY, ENTRY_CHECKPOINTS
from lsg_fairseq.pretrained.hub_interface import LSGHubInterface
from lsg_fairseq.pretrained.hub_loading import from_checkpoint
from lsg_fairseq.pretrained.hub_sources import SourceOptions
from lsg_fairseq.pretrained.summarizing import Inputs, StreamOutput, in_shard, summarize_documents

PROGRAM = "lsg-summarize"
UNNAMED = (
    f"no --checkpoint is named, so {DEFAULT_ENTRY} reads this: a small model that says in a line what a manual page is "
    "about; for summaries of other texts name another, such as lsg_bart_base_4096_multinews (downloaded once)"
)
GENERATION = {"beam": int, "lenpen": float, "min_len": int, "max_len_b": int, "no_repeat_ngram_size": int}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args = read_arguments(build_parser(), argv)
    warnings.showwarning = lambda message, *_: print(f"{PROGRAM}: warning: {message}", file=sys.stderr)
    return run_command(PROGRAM, lambda: summarize(args), "and the same command continues a file named by --output")


def summarize(args: argparse.Namespace) -> None:
    """Load the model and summarise all documents of the shard.

    Raises:
        LSGError: the checkpoint, an input or the output is not as it should be.
    """
    inputs = Inputs(args.inputs, args.document_field, args.jsonl, args.lines)
    inputs.files()
    if args.checkpoint is None:
        args.checkpoint = DEFAULT_ENTRY
        print(f"{PROGRAM}: {UNNAMED}", file=sys.stderr)
    elif args.checkpoint in ENTRY_CHECKPOINTS and Path(args.checkpoint).exists():
        raise LSGError(
            f"--checkpoint {args.checkpoint} is an entry, and there is a path of that name, too: write "
            f"./{args.checkpoint} for the path, or use the entry from another folder"
        )
    with _open_output(args) as output:
        hub = load(args)
        generation = {name: getattr(args, name) for name in GENERATION}
        options = BatchOptions(args.batch_size, args.max_tokens, as_int8=args.dtype == "int8")
        generator = BatchedGenerator(hub, hub.generation_settings.replaced(**generation), options)
        documents = in_shard(inputs.read(), args.num_shards, args.shard_id)
        total = inputs.count()
        total = None if total is None else len(range(args.shard_id, total, args.num_shards))
        with tqdm(total=total, desc="summaries", unit="", file=sys.stderr, disable=args.quiet) as bar:
            summarize_documents(documents, generator, output, args.jsonl, bar)
    generator.report_cut()


def load(args: argparse.Namespace) -> LSGHubInterface:
    """The model that the arguments ask for, where and as what they ask for.

    Raises:
        LSGError: it cannot be loaded, or is an encoder alone.
    """
    overrides = read_overrides({**_lsg_settings(args), "max_source_positions": args.max_source_positions})
    options = SourceOptions(
        tokenizer=args.tokenizer, revision=args.revision, max_source_positions=args.max_source_positions
    )
    entry = ENTRY_CHECKPOINTS.get(args.checkpoint)
    if entry and entry.family in ENCODER_FAMILIES:
        raise _encoder_alone(args.checkpoint)  # before it is downloaded
    hub = from_checkpoint(entry.location if entry else args.checkpoint, options, overrides)
    if not isinstance(hub, LSGHubInterface):
        raise _encoder_alone(args.checkpoint)
    return hub.to(args.device, DTYPES[args.dtype])


def _encoder_alone(checkpoint: str) -> LSGError:
    return LSGError(f"{checkpoint} is an encoder alone, which cannot summarise: give a BART or Pegasus checkpoint")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__)
    parser.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        metavar="INPUT",
        help="text files (a document each), JSON Lines, or folders of both (default: standard input)",
    )
    parser.add_argument(
        "--checkpoint",
        metavar="X",
        help=f"what torch.hub's entries take as checkpoint, or the name of an entry (default: {DEFAULT_ENTRY})",
    )
    parser.add_argument("--output", type=Path, metavar="F", help="write to F; the same command continues it")
    parser.add_argument("--overwrite", action="store_true", help="start F again, whatever is in it")
    parser.add_argument(
        "--jsonl", action="store_true", help="write the input objects with a summary each; standard input is JSON Lines"
    )
    parser.add_argument("--lines", action="store_true", help="each line of a text is a document of its own")
    parser.add_argument("--document-field", default="document", metavar="NAME", help="default: %(default)s")
    _add_work_flags(parser)
    _add_model_flags(parser)
    return parser


def _add_work_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how the work is done")
    for name, kind in GENERATION.items():
        flag = "--" + name.replace("_", "-")
        group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), help="as in fairseq-generate")
    group.add_argument("--batch-size", type=int, metavar="N", help="documents at once (default: up to 32)")
    group.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="tokens at once, padding included: what memory allows (default: 32768 unless --batch-size is given)",
    )
    group.add_argument("--num-shards", type=int, default=1, metavar="N", help="share the documents among N machines")
    group.add_argument("--shard-id", type=int, default=0, metavar="I", help="this machine's number, from 0")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument("--tokenizer", type=Path, metavar="DIR", help="where it is not found with the checkpoint")
    group.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    group.add_argument("--max-source-positions", type=int, metavar="N", help="longest document in tokens")
    group.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="int8: weights of 8 bits, on CPUs, with keys and values of documents in bfloat16 (default: %(default)s)",
    )
    add_lsg_flags(group)


def read_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; ends the program with status 2 if it makes no sense."""
    args = parser.parse_args(argv)
    if args.num_shards < 1:
        parser.error(f"--num-shards must be 1 or more, not {args.num_shards}")
    if not 0 <= args.shard_id < args.num_shards:
        parser.error(f"--shard-id must be 0 to {args.num_shards - 1}, not {args.shard_id}")
    if args.overwrite and args.output is None:
        parser.error("--overwrite needs --output")
    return args


def _lsg_settings(args: argparse.Namespace) -> dict[str, Any]:
    names = [f.name for f in fields(LSGConfig)]
    return {name: getattr(args, FLAG_PREFIX + name) for name in names if hasattr(args, FLAG_PREFIX + name)}


@contextmanager
def _open_output(args: argparse.Namespace) -> Iterator[StreamOutput]:
    if args.output is None:
        yield StreamOutput(sys.stdout)
        return
    without_effect = ("output", "overwrite", "quiet", "device", "batch_size", "max_tokens")
    run = {name: _plain(value) for name, value in vars(args).items() if name not in without_effect}
    with open_resumable(args.output, run, args.overwrite, args.jsonl) as output:
        yield output


def _plain(value: Any) -> Any:
    if isinstance(value, Path | list):
        return [str(path) for path in value] if isinstance(value, list) else str(value)
    return value


if __name__ == "__main__":
    sys.exit(main())
