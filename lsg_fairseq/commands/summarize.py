"""lsg-summarize: documents from files or standard input -> summaries on standard output or in a file."""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lsg_fairseq.checkpoints.loading import CheckpointFiles, Overrides
from lsg_fairseq.checkpoints.ready import CheckpointOptions, find_checkpoint
from lsg_fairseq.commands.numbers import check_numbers
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.commands.user_dir import add_user_dir_flag, import_user_dir
from lsg_fairseq.data.kept_part import PARTS, PARTS_HELP
from lsg_fairseq.data.record_files import FORMATS
from lsg_fairseq.hub import read_overrides
from lsg_fairseq.hub.batches import BatchedGenerator, BatchOptions
from lsg_fairseq.hub.entry_checkpoints import DEFAULT_ENTRY, ENTRY_CHECKPOINTS
from lsg_fairseq.hub.load import from_files
from lsg_fairseq.hub.summarizer import LSGHubInterface
from lsg_fairseq.models.lsg_model import FLAG_PREFIX, add_lsg_flags
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.summarizing.documents import Inputs, in_shard
from lsg_fairseq.summarizing.fingerprints import content_of_checkpoint, content_of_inputs
from lsg_fairseq.summarizing.merging import merge_shards
from lsg_fairseq.summarizing.output_lines import GENERATED_FIELD, SUMMARY_FIELD, LineFormat, StreamOutput
from lsg_fairseq.summarizing.resumable_output import Run, open_output
from lsg_fairseq.summarizing.shards import check_streams, choose_shard
from lsg_fairseq.summarizing.windows import summarize_documents
from lsg_fairseq.weights.families import FAMILIES
from lsg_fairseq.weights.limits import NUMBERS

PROGRAM = "lsg-summarize"
UNNAMED = (
    f"no --checkpoint is named, so {DEFAULT_ENTRY} reads this: a small model that says in a line what a manual page is "
    "about; for summaries of other texts name another, such as lsg_bart_base_4096_multinews (downloaded once)"
)
GENERATION = ("beam", "lenpen", "min_len", "max_len_b", "no_repeat_ngram_size")
# What the lines do not depend on, and what is known by its content.
WITHOUT_EFFECT = (
    "output",
    "overwrite",
    "quiet",
    "device",
    "batch_size",
    "max_tokens",
    "tokenizer",
    "revision",
    "merge",
)
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args = read_arguments(build_parser(), argv)
    warnings.showwarning = lambda message, *_: print(f"{PROGRAM}: warning: {message}", file=sys.stderr)
    if args.merge:
        return run_command(PROGRAM, lambda: merge(args))
    return run_command(PROGRAM, lambda: summarize(args), "and the same command continues a file named by --output")


def merge(args: argparse.Namespace) -> None:
    """Put the outputs of all shards together; see merge_shards for what is raised."""
    count = merge_shards(args.inputs, args.output, args.overwrite)
    print(f"{PROGRAM}: {count} lines of {len(args.inputs)} shards in {args.output}", file=sys.stderr)


def take_shard(args: argparse.Namespace) -> None:
    """Settle which share of the documents is this process's, where it goes and on which device, and say so.

    Raises:
        LSGError: there is no such share, or its streams would be shared.
    """
    shard = choose_shard(args.num_shards, args.shard_id, os.environ)
    check_streams(shard, bool(args.inputs), args.output is not None)
    args.num_shards, args.shard_id, args.output = shard.num, shard.id, shard.output(args.output)
    args.device = shard.device(args.device, torch.cuda.device_count())
    if shard.num > 1:
        print(f"{PROGRAM}: {shard.line()}" + (f" to {args.output}" if args.output else ""), file=sys.stderr)


def summarize(args: argparse.Namespace) -> None:
    """Load the model and summarise all documents of the shard.

    Raises:
        LSGError: the checkpoint, an input or the output is not as it should be.
    """
    check_numbers(args)
    import_user_dir(args)
    named = {"document_field": args.document_field, "lang_field": args.lang_field, "query_field": args.query_field}
    inputs = Inputs(args.inputs, jsonl=args.jsonl, one_per_line=args.lines, output=args.output, **named)
    paths = inputs.files
    check_name(args)
    files = find_files(args)
    # Loaded first: a checkpoint that cannot be loaded leaves no output behind.
    hub = load(args, files)
    settings = hub.generation_settings.replaced(**{name: getattr(args, name) for name in GENERATION})
    options = BatchOptions(
        args.batch_size, args.max_tokens, args.dtype == "int8", prefix=hub.prefix, keep_part=args.keep_part
    )
    languages = (args.source_lang_token, args.target_lang_token)
    generator = BatchedGenerator(hub, settings, options, languages)
    total = inputs.count()
    total = None if total is None else len(range(args.shard_id, total, args.num_shards))
    with _open_output(args, files, paths) as output:
        documents = in_shard(inputs.read(), args.num_shards, args.shard_id)
        with tqdm(total=total, desc="summaries", unit="", file=sys.stderr, disable=args.quiet) as bar:
            summarize_documents(documents, generator, output, bar)
    generator.report_cut()


def check_name(args: argparse.Namespace) -> None:
    """Settle which checkpoint is meant.

    Raises:
        LSGError: the name is that of an entry and of a path.
    """
    if args.checkpoint is None:
        args.checkpoint = DEFAULT_ENTRY
        print(f"{PROGRAM}: {UNNAMED}", file=sys.stderr)
    elif args.checkpoint in ENTRY_CHECKPOINTS and Path(args.checkpoint).exists():
        raise LSGError(
            f"--checkpoint {args.checkpoint} is an entry, and there is a path of that name, too: write "
            f"./{args.checkpoint} for the path, or use the entry from another folder"
        )


def find_files(args: argparse.Namespace) -> CheckpointFiles:
    """The files of the checkpoint, downloaded and converted if need be.

    Raises:
        LSGError: it cannot be found, or is an encoder-only model.
    """
    options = CheckpointOptions(
        tokenizer=args.tokenizer, revision=args.revision, max_source_positions=args.max_source_positions
    )
    entry = ENTRY_CHECKPOINTS.get(args.checkpoint)
    if entry and not FAMILIES[entry.family].has_decoder:
        raise _encoder_alone(args.checkpoint)  # before it is downloaded
    _overrides(args)
    # The default is the entry, whatever lies in the working directory; check_name settles other names.
    return find_checkpoint(entry.location if entry else args.checkpoint, options)


def load(args: argparse.Namespace, files: CheckpointFiles) -> LSGHubInterface:
    """The model that the arguments ask for, where and as what they ask for.

    Raises:
        LSGError: it cannot be loaded, is an encoder-only model, or the device is not there.
    """
    device = _device(args.device)
    hub = from_files(files, _overrides(args))
    if not isinstance(hub, LSGHubInterface):
        raise _encoder_alone(args.checkpoint)
    return hub.to(device, DTYPES[args.dtype])


def _overrides(args: argparse.Namespace) -> Overrides:
    return read_overrides({**_lsg_settings(args), "max_source_positions": args.max_source_positions})


def _device(name: str) -> torch.device:
    """A device that this torch can put something on."""
    try:
        device = torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].split(". ")[0]
        raise LSGError(f"--device {name} cannot be used here ({reason}): use --device cpu") from error
    if device.type == "meta":
        raise LSGError("--device meta holds no numbers: use --device cpu")
    return device


def _encoder_alone(checkpoint: str) -> LSGError:
    able = " or ".join(family.title for family in FAMILIES.values() if family.has_decoder)
    return LSGError(f"{checkpoint} is an encoder-only model, which cannot summarise: give a {able} checkpoint")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__)
    parser.add_argument(
        "inputs",
        nargs="*",
        type=Path,
        metavar="INPUT",
        help=f"text files (a document each), {FORMATS}, or folders of these (default: standard input)",
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
    _add_record_flags(parser)
    parser.add_argument("--keep-part", choices=PARTS, help=f"{PARTS_HELP} (default: the checkpoint's, else head)")
    _add_work_flags(parser)
    _add_model_flags(parser)
    return parser


def _add_record_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--document-field",
        default="document",
        metavar="NAME",
        help="a.b for a field b of a record a; a list of strings is joined by line feeds (default: %(default)s)",
    )
    parser.add_argument("--lang-field", metavar="NAME", help="where a document's language is, its summary's too")
    parser.add_argument(
        "--query-field",
        metavar="NAME",
        help="where a document's query is: it is read in front of the document, with the separator between them, and "
        "is never cut",
    )
    parser.add_argument(
        "--summary-field",
        metavar="NAME",
        help=f"--jsonl: where a summary goes (default: {SUMMARY_FIELD}; {GENERATED_FIELD} where that is taken)",
    )
    for side, texts in (("source", "documents"), ("target", "summaries")):
        parser.add_argument(
            f"--{side}-lang-token",
            metavar="CODE",
            help=f"language of the {texts}, such as en_XX, for an mBART (default: the checkpoint's)",
        )


def _add_work_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how the work is done")
    for name in GENERATION:
        flag = "--" + name.replace("_", "-")
        group.add_argument(
            flag, type=NUMBERS[name].kind, metavar=NUMBERS[name].kind.__name__.upper(), help="as in fairseq-generate"
        )
    group.add_argument("--batch-size", type=int, metavar="N", help="documents at once (default: up to 32)")
    group.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="tokens at once, padding included: what memory allows (default: 32768 unless --batch-size is given)",
    )
    group.add_argument(
        "--num-shards",
        type=int,
        metavar="N",
        help="share the documents among N processes (default: torchrun's, srun's)",
    )
    group.add_argument("--shard-id", type=int, metavar="I", help="this process's number, from 0")
    group.add_argument("--merge", action="store_true", help="put INPUT, the outputs of all shards, together in F")
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
    add_user_dir_flag(group)
    add_lsg_flags(group)


def read_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; ends the program with status 2 if it makes no sense."""
    args = parser.parse_args(argv)
    if args.merge and not (args.inputs and args.output):
        parser.error("--merge needs the outputs of all shards as INPUT, and --output")
    if args.overwrite and args.output is None:
        parser.error("--overwrite needs --output")
    if not args.merge:
        try:
            take_shard(args)
        except LSGError as error:
            parser.error(str(error))
    return args


def _lsg_settings(args: argparse.Namespace) -> dict[str, Any]:
    names = [f.name for f in fields(LSGConfig)]
    return {name: getattr(args, FLAG_PREFIX + name) for name in names if hasattr(args, FLAG_PREFIX + name)}


@contextmanager
def _open_output(args: argparse.Namespace, files: CheckpointFiles, inputs: Sequence[Path]) -> Iterator[StreamOutput]:
    lines = LineFormat(args.jsonl, args.summary_field)
    if args.output is None:
        yield StreamOutput(sys.stdout, lines)
        return
    settings = {name: _plain(value) for name, value in vars(args).items() if name not in WITHOUT_EFFECT}
    content = {f"the checkpoint {args.checkpoint}": content_of_checkpoint(files), **content_of_inputs(inputs)}
    with open_output(args.output, Run(settings, content), args.overwrite, lines) as output:
        yield output


def _plain(value: Any) -> Any:
    if isinstance(value, Path | list):
        return [str(path) for path in value] if isinstance(value, list) else str(value)
    return value


if __name__ == "__main__":
    sys.exit(main())
