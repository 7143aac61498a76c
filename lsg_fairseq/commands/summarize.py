"""lsg-summarize: documents in files or on standard input -> summaries on standard output or in a file."""

from __future__ import annotations

import argparse
import json
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
from lsg_fairseq.commands.running import add_user_dir_flag, check_numbers, import_user_dir, run_command
from lsg_fairseq.data.kept_part import PARTS, PARTS_HELP
from lsg_fairseq.data.record_files import FORMATS
from lsg_fairseq.hub import read_overrides
from lsg_fairseq.hub.batches import BatchedGenerator, BatchOptions, GenerationSettings
from lsg_fairseq.hub.entries import from_files
from lsg_fairseq.hub.entry_checkpoints import DEFAULT_ENTRY, ENTRY_CHECKPOINTS
from lsg_fairseq.hub.summarizer import LSGHubInterface
from lsg_fairseq.models.lsg_model import FLAG_PREFIX, add_lsg_flags
from lsg_fairseq.modules.lsg_config import LSGConfig, LSGError
from lsg_fairseq.summarizing.documents import Inputs, in_shard
from lsg_fairseq.summarizing.resumable_output import (
    GENERATED_FIELD,
    SUMMARY_FIELD,
    LineFormat,
    Run,
    StreamOutput,
    content_of_checkpoint,
    content_of_inputs,
    open_output,
)
from lsg_fairseq.summarizing.shards import check_streams, choose_shard, merge_shards
from lsg_fairseq.summarizing.windows import summarize_documents
from lsg_fairseq.weights.families import FAMILIES
from lsg_fairseq.weights.limits import NUMBERS

PROGRAM = "lsg-summarize"
UNNAMED = (
    f"no --checkpoint is given, so {DEFAULT_ENTRY} is used, a small model that describes a manual page in one line; "
    "for other texts, give another, such as lsg_bart_base_4096_multinews (downloaded once)"
)
GENERATION = ("beam", "lenpen", "min_len", "max_len_b", "no_repeat_ngram_size")
# Arguments that do not change the output's lines, or whose files are compared by content.
WITHOUT_EFFECT = "output overwrite quiet device batch_size max_tokens tokenizer revision merge".split()
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.float32}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args = read_arguments(build_parser(), argv)
    warnings.showwarning = lambda message, *_: print(f"{PROGRAM}: warning: {message}", file=sys.stderr)
    if args.merge:
        return run_command(PROGRAM, lambda: merge(args))
    return run_command(PROGRAM, lambda: summarize(args), "and the same command continues a file named by --output")


def merge(args: argparse.Namespace) -> None:
    """Merge the outputs of all shards; raises as merge_shards."""
    count = merge_shards(args.inputs, args.output, args.overwrite)
    print(f"{PROGRAM}: {count} lines of {len(args.inputs)} shards in {args.output}", file=sys.stderr)


def take_shard(args: argparse.Namespace) -> None:
    """Set the shard, the output file and the device of this process in `args`, and print the shard.

    Raises:
        LSGError: as choose_shard and check_streams.
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
        LSGError: the checkpoint, an input or the output is missing, damaged or not allowed.
    """
    check_numbers(args)
    import_user_dir(args)
    named = {"document_field": args.document_field, "lang_field": args.lang_field, "query_field": args.query_field}
    inputs = Inputs(args.inputs, jsonl=args.jsonl, one_per_line=args.lines, output=args.output, **named)
    paths = inputs.files
    check_name(args)
    files = find_files(args)
    # Loaded before the output is opened, so that a checkpoint that fails to load leaves none behind.
    hub = load(args, files)
    given = GenerationSettings(**{name: getattr(args, name) for name in GENERATION})
    settings = hub.generation_settings.replaced(given)
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
    """Set the default checkpoint, and refuse an ambiguous name.

    Raises:
        LSGError: the name is that of an entry and of an existing path.
    """
    if args.checkpoint is None:
        args.checkpoint = DEFAULT_ENTRY
        print(f"{PROGRAM}: {UNNAMED}", file=sys.stderr)
    elif args.checkpoint in ENTRY_CHECKPOINTS and Path(args.checkpoint).exists():
        raise LSGError(
            f"--checkpoint {args.checkpoint} is an entry, but also an existing path: write ./{args.checkpoint} for the "
            "path, or run this in another folder for the entry"
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
    # For the default, a path of that name does not count; check_name refuses others.
    return find_checkpoint(entry.location if entry else args.checkpoint, options)


def load(args: argparse.Namespace, files: CheckpointFiles) -> LSGHubInterface:
    """Load the model onto the device and in the dtype of the arguments.

    Raises:
        LSGError: it cannot be loaded, is an encoder-only model, or the device is not available.
    """
    device = _device(args.device)
    hub = from_files(files, _overrides(args))
    if not isinstance(hub, LSGHubInterface):
        raise _encoder_alone(args.checkpoint)
    return hub.to(device, DTYPES[args.dtype])


def _overrides(args: argparse.Namespace) -> Overrides:
    return read_overrides({**_lsg_settings(args), "max_source_positions": args.max_source_positions})


def _device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        LSGError: this torch cannot use it.
    """
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
        help=f"name of a torch.hub entry, or a path or hub id, as for the entries (default: {DEFAULT_ENTRY})",
    )
    parser.add_argument(
        "--output", type=Path, metavar="F", help="write to F; the same command continues an interrupted run"
    )
    parser.add_argument("--overwrite", action="store_true", help="start again, whatever is in F")
    parser.add_argument(
        "--jsonl",
        action="store_true",
        help="write the input objects with their summaries; standard input is JSON Lines",
    )
    parser.add_argument("--lines", action="store_true", help="each line of a text is a document")
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
        help="a.b: field b of record a; a list of strings is joined by line feeds (default: %(default)s)",
    )
    parser.add_argument("--lang-field", metavar="NAME", help="field with a document's language, also its summary's")
    parser.add_argument(
        "--query-field",
        metavar="NAME",
        help="field with a document's query, which is put in front of the document, followed by </s>, and never cut",
    )
    parser.add_argument(
        "--summary-field",
        metavar="NAME",
        help=f"with --jsonl: field for the summary (default: {SUMMARY_FIELD}, or {GENERATED_FIELD} if that exists)",
    )
    for side, texts in (("source", "documents"), ("target", "summaries")):
        parser.add_argument(
            f"--{side}-lang-token",
            metavar="CODE",
            help=f"language of the {texts}, such as en_XX (mBART only; default: the checkpoint's)",
        )


def _add_work_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("how the work is done")
    for name in GENERATION:
        flag = "--" + name.replace("_", "-")
        kind = NUMBERS[name].kind
        group.add_argument(flag, type=kind, metavar=kind.__name__.upper(), help="as in fairseq-generate")
    group.add_argument("--batch-size", type=int, metavar="N", help="documents in a batch (default: up to 32)")
    group.add_argument(
        "--max-tokens",
        type=int,
        metavar="N",
        help="tokens in a batch, including padding, to limit memory (default: 32768 unless --batch-size is given)",
    )
    group.add_argument(
        "--num-shards",
        type=int,
        metavar="N",
        help="share the documents among N processes (default: as torchrun or srun say)",
    )
    group.add_argument("--shard-id", type=int, metavar="I", help="this process's number, from 0")
    group.add_argument("--merge", action="store_true", help="merge INPUT, the outputs of all shards, into F")
    group.add_argument("--quiet", action="store_true", help="no progress bar")


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("the model")
    group.add_argument("--tokenizer", type=Path, metavar="DIR", help="tokenizer files (default: the checkpoint's)")
    group.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    group.add_argument("--max-source-positions", type=int, metavar="N", help="longest document in tokens")
    group.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="default: %(default)s")
    group.add_argument(
        "--dtype",
        choices=DTYPES,
        default="float32",
        help="int8 is for CPUs: 8-bit weights, and keys and values of documents in bfloat16 (default: %(default)s)",
    )
    add_user_dir_flag(group)
    add_lsg_flags(group)


def read_arguments(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 if it is invalid."""
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
    settings = {name: value for name, value in vars(args).items() if name not in WITHOUT_EFFECT}
    content = {f"the checkpoint {args.checkpoint}": content_of_checkpoint(files), **content_of_inputs(inputs)}
    run = Run(json.loads(json.dumps(settings, default=str)), content)  # paths become strings
    with open_output(args.output, run, args.overwrite, lines) as output:
        yield output


if __name__ == "__main__":
    sys.exit(main())
