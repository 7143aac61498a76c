"""Documents and summaries -> a data folder: fairseq's binarized format, dictionaries, tokenizer files and a report."""

from __future__ import annotations

import json
import statistics
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary, indexed_dataset
from tqdm import tqdm

from lsg_fairseq.data.document_files import Split, SplitCheck, check_split
from lsg_fairseq.data.encoding import Encoded, encode_in_order, task_count
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.data.split_files import (
    REPORT_FILE,
    check_codes,
    languages_file,
    queries_file,
    read_report,
    write_languages,
    write_queries,
)
from lsg_fairseq.data.text_lines import Place
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.tokenizers.fairseq_bpe import (
    build_dictionary,
    has_tokenizer,
    load_tokenizer,
    read_dictionary,
    train_tokenizer,
)
from lsg_fairseq.tokenizers.sequence_format import SEQUENCE_FORMAT_FILE, SequenceFormat

DICTIONARY_FILES = ("dict.txt", "dict.source.txt", "dict.target.txt")
# Longest inputs in tokens: BART 1,024, LSG-BART by default 4,096, the longest published LSG model 16,384.
LENGTH_LIMITS = (1024, 4096, 16384)
SKIPPED_PLACES_NAMED = 5


@dataclass(frozen=True)
class Job:
    """What to preprocess, and how.

    Args:
        tokenizer: a folder; without it and without train_vocab_size, `out` must have a tokenizer.
        train_vocab_size: train a tokenizer with that many tokens.
        source_language, target_language: codes for sequence_format.json; None leaves it unchanged.
        keep_part: which part of long documents the task is to keep; None: the task decides.
    """

    splits: Sequence[Split]
    out: Path
    tokenizer: Path | None = None
    train_vocab_size: int | None = None
    workers: int = 1
    source_language: str | None = None
    target_language: str | None = None
    keep_part: str | None = None


# Lengths take eight bytes each: there may be millions of examples.
_lengths = partial(array, "q")


@dataclass
class SplitReport:
    """What became of a split: the lengths of its texts in tokens, and the examples that were skipped.

    Lengths do not count `<s>` and the final `</s>`; a source's length counts its query and the separator.
    """

    split: Split
    keep_part: str | None = None
    source_lengths: array[int] = field(default_factory=_lengths)
    target_lengths: array[int] = field(default_factory=_lengths)
    languages: list[str] = field(default_factory=list)
    query_lengths: array[int] = field(default_factory=_lengths)
    empty_documents: list[Place] = field(default_factory=list)
    empty_summaries: list[Place] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """The split's entry in preprocess.json."""
        split = self.split
        over = {n: [length - n for length in self.source_lengths if length > n] for n in LENGTH_LIMITS}
        query = {} if split.query_field is None else {"query": split.query_field}
        return {
            "files": [str(path) for path in split.paths],
            "fields": {"document": split.document_field, "summary": split.summary_field, **query},
            "examples": len(self.source_lengths),
            **({"languages": dict(Counter(self.languages))} if split.lang_field is not None else {}),
            "skipped": {"empty_documents": len(self.empty_documents), "empty_summaries": len(self.empty_summaries)},
            "source_tokens": _length_summary(self.source_lengths),
            "target_tokens": _length_summary(self.target_lengths),
            **({"query_tokens": _length_summary(self.query_lengths)} if query else {}),
            "documents_longer_than": {str(n): len(beyond) for n, beyond in over.items()},
            "tokens_beyond": {str(n): sum(beyond) for n, beyond in over.items()},
            "keep_part": self.keep_part,
            "truncated": 0,
        }

    def warning(self) -> str | None:
        """One sentence about the skipped examples; None if there are none."""
        found = {"document": self.empty_documents, "summary": self.empty_summaries}
        several = len(self.split.paths) > 1
        parts = [f"{len(p)} with an empty {name} ({_name_places(p, several)})" for name, p in found.items() if p]
        files = "" if several else f" of {self.split.paths[0]}"
        return f"{self.split.name}: skipped {' and '.join(parts)}{files}" if parts else None


def preprocess(job: Job) -> list[SplitReport]:
    """Binarize the splits into job.out, completely or, on any error, not at all; returns a report for each split.

    Raises:
        LSGError: an input is missing or damaged, or job.out has a different vocabulary.
    """
    check_is_no_input(job)
    checks = [check_split(s, tqdm(s.read(), f"check {s.name}", unit="", delay=2, leave=False)) for s in job.splits]
    with staged_output(job.out, [f"{split.name}.source-target.*" for split in job.splits]) as staged:
        source = prepare_tokenizer(job, staged / "tokenizer")
        tokenizer = load_tokenizer(staged / "tokenizer")
        dictionary = build_dictionary(tokenizer)
        check_vocabulary(job.out, dictionary)
        named = dict.fromkeys(filter(None, (job.source_language, job.target_language)), "the command line")
        check_codes(tokenizer, named)
        for check in checks:
            check_codes(tokenizer, check.languages)
        reports = [
            binarize(SplitReport(split, job.keep_part), check, staged, len(dictionary), job.workers)
            for split, check in zip(job.splits, checks, strict=True)
        ]
        for report in reports:
            if report.split.lang_field is not None:
                pairs = [(code, job.target_language or code) for code in report.languages]
                write_languages(languages_file(staged, report.split.name), pairs)
            if report.split.query_field is not None:
                write_queries(queries_file(staged, report.split.name), report.query_lengths)
        for name in DICTIONARY_FILES:
            dictionary.save(str(staged / name))
        _format_of(job, tokenizer.sequence_format).save(staged)
        _write_report(job.out, staged, {"source": source, "size": len(dictionary)}, reports)
    return reports


def check_is_no_input(job: Job) -> None:
    """Refuse inputs that would be overwritten, or cannot be read twice: once to check them, and once to encode them.

    Raises:
        LSGError: an input is one of the files that are written into job.out, or is a pipe or a device.
    """
    for path in (path for split in job.splits for path in split.paths):
        if path.exists() and not path.is_file() and not path.is_dir():
            raise LSGError(
                f"{path} is a pipe or a device, and inputs are read more than once: write it to a file first"
            )
    out = job.out.resolve()
    written = [*DICTIONARY_FILES, REPORT_FILE, SEQUENCE_FORMAT_FILE, "tokenizer/*"]
    written += [f"{split.name}.source-target.*" for split in job.splits]
    replaced = [path for pattern in written for path in out.glob(pattern)]
    for path in (path for split in job.splits for path in split.paths if path.exists()):
        if any(path.samefile(own) for own in replaced):
            raise LSGError(f"{path} is an input and would be overwritten in --out {job.out}: choose another --out")


def prepare_tokenizer(job: Job, folder: Path) -> str:
    """Write the tokenizer's files into `folder`; returns their origin, for the report.

    Raises:
        LSGError: there is no tokenizer, or it cannot be trained.
    """
    if job.train_vocab_size is not None:
        split = min(job.splits, key=lambda s: ("train", "valid", "test").index(s.name))
        train_tokenizer(_texts(split), job.train_vocab_size, folder)
        return f"trained on {split.name}"
    if job.tokenizer is None and not has_tokenizer(job.out / "tokenizer"):
        raise LSGError(f"{job.out} has no tokenizer yet: give one with --tokenizer, or use --train-tokenizer")
    source = job.tokenizer or job.out / "tokenizer"
    tokenizer = load_tokenizer(source)
    folder.mkdir()
    tokenizer.save(folder)
    return str(source)


def check_vocabulary(out: Path, dictionary: Dictionary) -> None:
    """Refuse to mix vocabularies in one data folder.

    Raises:
        LSGError: the folder has a different dictionary.
    """
    path = out / "dict.source.txt"
    if not path.is_file():
        return
    old = read_dictionary(path)
    if old.symbols != dictionary.symbols:
        raise LSGError(
            f"the vocabulary of {out} ({len(old)} symbols in {path.name}) differs from this tokenizer's "
            f"({len(dictionary)} symbols): omit the tokenizer to use the folder's own, or choose another --out"
        )


def binarize(report: SplitReport, check: SplitCheck, folder: Path, num_rows: int, workers: int) -> SplitReport:
    """Write {split}.source-target.{source,target}.{bin,idx}: the dictionary indices of whole documents, and `</s>`.

    Args:
        report: filled in, and returned.
        folder: where to write; it contains tokenizer/.
        num_rows: the size of the dictionary.
        workers: the most processes to use.

    Raises:
        LSGError: all examples are empty.
    """
    split = report.split
    sides = ("source", "target") if check.has_summaries else ("source",)
    paths = {side: str(folder / f"{split.name}.source-target.{side}") for side in sides}
    builders = {s: indexed_dataset.make_builder(f"{p}.bin", "mmap", num_rows) for s, p in paths.items()}
    workers = min(workers, task_count(check.examples))
    # Closed immediately on an error: the processes must end before their folder is deleted.
    results = closing(encode_in_order(split.read(), folder / "tokenizer", workers))
    with results as examples, tqdm(total=check.examples, desc=split.name, unit=" examples") as progress:
        for encoded in examples:
            progress.update()
            if _is_kept(encoded, check.has_summaries, report):
                for side, builder in builders.items():
                    builder.add_item(torch.from_numpy(getattr(encoded, side)))
    if not report.source_lengths:
        raise LSGError(
            f"{split.paths[0]}: document or summary is empty in all {check.examples} examples of {split.name}"
        )
    for side, builder in builders.items():
        builder.finalize(f"{paths[side]}.idx")
    return report


def _is_kept(encoded: Encoded, has_summaries: bool, report: SplitReport) -> bool:
    """Count the example in the report; False if it is skipped."""
    if encoded.source is None:
        report.empty_documents.append(encoded.place)
    elif has_summaries and encoded.target is None:
        report.empty_summaries.append(encoded.place)
    else:
        report.source_lengths.append(len(encoded.source) - 1)
        if report.split.lang_field is not None:
            report.languages.append(encoded.language)
        if report.split.query_field is not None:
            report.query_lengths.append(encoded.query_length)
        if encoded.target is not None:
            report.target_lengths.append(len(encoded.target) - 1)
        return True
    return False


def _texts(split: Split) -> Iterator[str]:
    for example in tqdm(split.read(), f"read {split.name} for the tokenizer", unit=" examples"):
        yield example.document
        if example.query:
            yield example.query
        if example.summary is not None:
            yield example.summary


def _format_of(job: Job, default: SequenceFormat) -> SequenceFormat:
    """The sequence format to write: that of an existing folder, else the default, with the languages given."""
    kept = SequenceFormat.load(job.out) if (job.out / "dict.source.txt").is_file() else default
    return kept.speaking(job.source_language, job.target_language)


def _write_report(out: Path, staged: Path, tokenizer: dict[str, Any], reports: list[SplitReport]) -> None:
    """Write preprocess.json: the tokenizer, the new splits, and the other splits of an existing folder."""
    old = read_report(out)
    splits = {**old.get("splits", {}), **{report.split.name: report.as_json() for report in reports}}
    report = {"tokenizer": old.get("tokenizer", tokenizer), "splits": splits}
    (staged / REPORT_FILE).write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _length_summary(lengths: Sequence[int]) -> dict[str, float] | None:
    if not lengths:
        return None
    middle = {"median": statistics.median(lengths), "mean": round(statistics.fmean(lengths), 1)}
    return {"min": min(lengths), **middle, "max": max(lengths)}


def _name_places(places: list[Place], with_files: bool) -> str:
    """ "line 3", "rows 4, 5", or with the files' names."""
    first = places[:SKIPPED_PLACES_NAMED]
    if with_files:
        names = "; ".join(map(str, first))
    else:
        names = f"{first[0].unit}{'s' * (len(places) > 1)} " + ", ".join(str(place.number) for place in first)
    return names + (", ..." if len(places) > SKIPPED_PLACES_NAMED else "")
