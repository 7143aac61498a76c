"""lsg-preprocess: documents and summaries -> a data folder for fairseq-train and fairseq-generate."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from lsg_fairseq.commands.running import check_numbers, run_command
from lsg_fairseq.data.document_files import Split
from lsg_fairseq.data.kept_part import PARTS, PARTS_HELP
from lsg_fairseq.data.preprocessing import LENGTH_LIMITS, Job, SplitReport, preprocess
from lsg_fairseq.data.record_files import FORMATS

PROGRAM = "lsg-preprocess"
FILES_HELP = f"one or more files: {FORMATS}; or two parallel text files (documents, summaries)"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    args = parsed(build_parser(), argv)
    return run_command(PROGRAM, lambda: run(args))


def run(args: argparse.Namespace) -> None:
    """Preprocess, and print a line for each split.

    Raises:
        LSGError: a number is out of range, or as lsg_fairseq.data.preprocessing.preprocess.
    """
    check_numbers(args)
    job = job_of(args)
    for report in preprocess(job):
        if warning := report.warning():
            print(f"{PROGRAM}: warning: {warning}", file=sys.stderr)
        print(describe(report))
    print(f"wrote {job.out}")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__)
    for name in ("train", "valid"):
        parser.add_argument(f"--{name}", nargs="+", type=Path, metavar="F", help=FILES_HELP)
    parser.add_argument("--test", nargs="+", type=Path, metavar="F", help=f"{FILES_HELP}, or documents in one .txt")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="the data folder; it may exist")
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="Hugging Face tokenizer files (default: DIR's own)"
    )
    group.add_argument("--train-tokenizer", type=int, metavar="VOCAB_SIZE", help="train a byte-level BPE of this size")
    nested = "a.b: field b of record a; lists of strings are joined by line feeds"
    parser.add_argument("--document-field", default="document", metavar="NAME", help=f"{nested} (default: %(default)s)")
    parser.add_argument("--summary-field", default="summary", metavar="NAME", help="the same (default: %(default)s)")
    parser.add_argument(
        "--lang-field",
        metavar="NAME",
        help="field with a document's language, also its summary's unless --target-lang-token is given",
    )
    parser.add_argument(
        "--query-field",
        metavar="NAME",
        help="field with a document's query, which is put in front of the document, followed by </s>, and never cut",
    )
    for side, texts in (("source", "documents"), ("target", "summaries")):
        parser.add_argument(
            f"--{side}-lang-token", metavar="CODE", help=f"language of all {texts}, such as en_XX (mBART only)"
        )
    parser.add_argument(
        "--keep-part",
        choices=PARTS,
        help=f"{PARTS_HELP}. Documents are stored whole; the task keeps this part unless its own --keep-part is given "
        "(default: the checkpoint's, else head)",
    )
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="default: all cores")
    return parser


def parsed(parser: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; exits with status 2 if it is invalid."""
    args = parser.parse_args(argv)
    if not (args.train or args.valid or args.test):
        parser.error("give at least one of --train, --valid and --test")
    return args


def job_of(args: argparse.Namespace) -> Job:
    """The job that the arguments describe."""
    splits = [
        Split(name, paths, args.document_field, args.summary_field, args.lang_field, args.query_field)
        for name in ("train", "valid", "test")
        if (paths := getattr(args, name))
    ]
    languages = (args.source_lang_token, args.target_lang_token)
    return Job(splits, args.out, args.tokenizer, args.train_tokenizer, args.workers, *languages, args.keep_part)


def describe(report: SplitReport) -> str:
    """One line about a split for the user."""
    values = report.as_json()
    sides = [("documents", values["source_tokens"]), ("summaries", values["target_tokens"])]
    lengths = [f"{name} of {t['min']} to {t['max']} tokens (median {t['median']:g})" for name, t in sides if t]
    over = [f"{values['documents_longer_than'][str(n)]} over {n:,}" for n in LENGTH_LIMITS]
    kept = f"; the task keeps the {report.keep_part} of longer ones" if report.keep_part else ""
    counts = f"{values['examples']} examples, {', '.join(lengths)}; {', '.join(over)}"
    return f"{report.split.name}: {counts}; none was cut{kept}"


if __name__ == "__main__":
    sys.exit(main())
