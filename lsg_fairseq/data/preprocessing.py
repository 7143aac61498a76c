"""Documents and summaries -> fairseq's binarized format, with dictionary, tokenizer files and a report beside it."""

from __future__ import annotations

import json
import statistics
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from fairseq.data import Dictionary, indexed_dataset
from tqdm import tqdm

from lsg_fairseq.data.document_files import Split, SplitCheck, check_split
from lsg_fairseq.data.encoding import Encoded, encode_in_order, task_count
from lsg_fairseq.data.languages import check_codes, languages_file, write_languages
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.data.queries import queries_file, write_queries
from lsg_fairseq.data.split_reports import REPORT_FILE, read_report
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
# Lengths at which common models end: BART 1,024, LSG-BART's default 4,096, the longest published LSG model 16,384.
LENGTH_LIMITS = (1024, 4096, 16384)
SKIPPED_PLACES_NAMED = 5


@dataclass(frozen=True)
class Job:
    """What to preprocess. Without a tokenizer and a size to train one, `out` must have its own.

    The languages are codes that sequence_format.json will name; None leaves it as it is. `keep_part` is what the task
    is to keep of documents that are too long for the model; None leaves that to it.
    """

    splits: Sequence[Split]
    out: Path
    tokenizer: Path | None = None
    train_vocab_size: int | None = None
    workers: int = 1
    source_language: str | None = None
    target_language: str | None = None
    keep_part: str | None = None


def _lengths() -> array[int]:
    """A list of integers of eight bytes each: there may be millions."""
    return array("q")


@dataclass
class SplitReport:
    """What became of a split: lengths in tokens (without `<s>` and the last `</s>`), and what was left out.

    A source's length counts its query and the separator.
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
        over = {n: [length - n for length in self.source_lengths if length > n] for n in LENGTH_LIMITS}
        return {
            "files": [str(path) for path in self.split.paths],
            "fields": {
                "document": self.split.document_field,
                "summary": self.split.summary_field,
                **self._query_field(),
            },
            "examples": len(self.source_lengths),
            **({"languages": dict(Counter(self.languages))} if self.split.lang_field is not None else {}),
            "skipped": {"empty_documents": len(self.empty_documents), "empty_summaries": len(self.empty_summaries)},
            "source_tokens": _length_summary(self.source_lengths),
            "target_tokens": _length_summary(self.target_lengths),
            **({"query_tokens": _length_summary(self.query_lengths)} if self._query_field() else {}),
            "documents_longer_than": {str(n): len(beyond) for n, beyond in over.items()},
            "tokens_beyond": {str(n): sum(beyond) for n, beyond in over.items()},
            "keep_part": self.keep_part,
            "truncated": 0,
        }

    def _query_field(self) -> dict[str, str]:
        return {} if self.split.query_field is None else {"query": self.split.query_field}

    def warning(self) -> str | None:
        """One sentence about the examples that were left out, if any."""
        found = {"document": self.empty_documents, "summary": self.empty_summaries}
        several = len(self.split.paths) > 1
        parts = [f"{len(p)} with an empty {name} ({_name_places(p, several)})" for name, p in found.items() if p]
        files = "" if several else f" of {self.split.paths[0]}"
        return f"{self.split.name}: skipped {' and '.join(parts)}{files}" if parts else None


def preprocess(job: Job) -> list[SplitReport]:
    """Binarize the splits into job.out: all of it or, on any error, nothing.

    Raises:
        LSGError: an input is not as it should be, or job.out has another vocabulary.
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
            binarize(SplitReport(split, job.keep_part), check, staged, len(dictionary), _fitting(job, check))
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
    """Refuse to replace what is read, and what cannot be read twice: once to check it, and once to encode it.

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
            raise LSGError(f"{path} is an input, and would be replaced in --out {job.out}: choose another --out")


def prepare_tokenizer(job: Job, folder: Path) -> str:
    """Put the tokenizer's files into the folder; returns where they come from.

    Raises:
        LSGError: there is no tokenizer, or none can be trained.
    """
    if job.train_vocab_size is not None:
        split = min(job.splits, key=lambda s: ("train", "valid", "test").index(s.name))
        train_tokenizer(_texts(split), job.train_vocab_size, folder)
        return f"trained on {split.name}"
    if job.tokenizer is None and not has_tokenizer(job.out / "tokenizer"):
        raise LSGError(f"{job.out} has no tokenizer of its own: name one with --tokenizer or use --train-tokenizer")
    source = job.tokenizer or job.out / "tokenizer"
    tokenizer = load_tokenizer(source)
    folder.mkdir()
    tokenizer.save(folder)
    return str(source)


def check_vocabulary(out: Path, dictionary: Dictionary) -> None:
    """Refuse to mix vocabularies in one data folder.

    Raises:
        LSGError: the folder's dictionary is a different one.
    """
    path = out / "dict.source.txt"
    if not path.is_file():
        return
    old = read_dictionary(path)
    if old.symbols != dictionary.symbols:
        raise LSGError(
            f"{out} has another vocabulary ({len(old)} symbols in {path.name}) than this tokenizer "
            f"({len(dictionary)} symbols): leave the tokenizer out to use the folder's own, or choose another --out"
        )


def binarize(report: SplitReport, check: SplitCheck, folder: Path, num_rows: int, workers: int) -> SplitReport:
    """Write {split}.source-target.{source,target}.{bin,idx}: token rows and `</s>`, whole documents.

    num_rows is the dictionary's size; the tokenizer is in `folder`. `report` is filled in.

    Raises:
        LSGError: no example is left.
    """
    split = report.split
    sides = ("source", "target") if check.has_summaries else ("source",)
    paths = {side: str(folder / f"{split.name}.source-target.{side}") for side in sides}
    builders = {s: indexed_dataset.make_builder(f"{p}.bin", "mmap", num_rows) for s, p in paths.items()}
    # Closed at once on an error: the processes must be gone before their folder is.
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


def _fitting(job: Job, check: SplitCheck) -> int:
    return min(job.workers, task_count(check.examples))


def _is_kept(encoded: Encoded, has_summaries: bool, report: SplitReport) -> bool:
    """Count the example in the report; False if it has to be left out."""
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
    """An existing folder keeps the format that its models were trained with, but for languages that are named."""
    kept = SequenceFormat.load(job.out) if (job.out / "dict.source.txt").is_file() else default
    return kept.speaking(job.source_language, job.target_language)


def _write_report(out: Path, staged: Path, tokenizer: dict[str, Any], reports: list[SplitReport]) -> None:
    """preprocess.json: the tokenizer and every split, those of an existing folder kept."""
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
