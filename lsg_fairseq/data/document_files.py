"""Reading documents and summaries: JSON Lines, two parallel text files, or documents alone in a .txt."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from lsg_fairseq.data.raw_lines import raw_lines
from lsg_fairseq.modules.lsg_config import LSGError


@dataclass(frozen=True)
class Example:
    """One document, its summary if it has one, and the line (from 1) that it stands in; "": no language is named."""

    line: int
    document: str
    summary: str | None = None
    language: str = ""


@dataclass(frozen=True)
class Split:
    """Where the examples of train, valid or test come from; only test may lack summaries.

    `lang_field` is the field of JSON Lines that names an example's language, None where none does.
    """

    name: str
    paths: Sequence[Path]
    document_field: str = "document"
    summary_field: str = "summary"
    lang_field: str | None = None

    @property
    def needs_summaries(self) -> bool:
        """Whether an example without a summary is an error."""
        return self.name != "test"

    def read(self) -> Iterator[Example]:
        """The examples in the order of the file.

        Raises:
            LSGError: a file or a field is missing, or a line is not what it should be.
        """
        if self.lang_field is not None and (len(self.paths) > 1 or self.paths[0].suffix == ".txt"):
            raise LSGError(
                f"--lang-field {self.lang_field} names a field of JSON Lines, and --{self.name} is text "
                f"({self.paths[0]}): give JSON Lines, or name one language for all (--source-lang-token)"
            )
        if len(self.paths) == 2:
            yield from read_parallel(*self.paths)
        elif len(self.paths) > 2:
            names = ", ".join(map(str, self.paths))
            raise LSGError(f"--{self.name} takes one file, or two parallel text files, not {len(self.paths)}: {names}")
        elif self.paths[0].suffix == ".txt":
            if self.needs_summaries:
                raise LSGError(
                    f"{self.paths[0]} has documents only, but {self.name} needs summaries: add a second file"
                )
            yield from (Example(line, text) for line, text in read_lines(self.paths[0]))
        else:
            yield from self._read_jsonl(self.paths[0])

    def _read_jsonl(self, path: Path) -> Iterator[Example]:
        for line, text in read_lines(path):
            if not text:
                continue
            record = _parse_record(path, line, text)
            document = _field(record, self.document_field, path, line)
            wanted = self.needs_summaries or self.summary_field in record
            summary = _field(record, self.summary_field, path, line) if wanted else None
            language = _field(record, self.lang_field, path, line) if self.lang_field is not None else ""
            yield Example(line, document, summary, language)


@dataclass(frozen=True)
class SplitCheck:
    """What a first reading found: how many examples, whether they have summaries, and where each language is first."""

    examples: int
    has_summaries: bool
    languages: Mapping[str, str] = field(default_factory=dict)


def check_split(split: Split, examples: Iterable[Example]) -> SplitCheck:
    """Read everything once, so that a mistake in the last line shows before the long work starts.

    Raises:
        LSGError: anything that Split.read raises, only some summaries, no example, or nothing but empty ones.
    """
    first_lines: dict[bool, int] = {}
    languages: dict[str, str] = {}
    count = usable = 0
    for example in examples:
        count += 1
        if split.lang_field is not None:
            languages.setdefault(example.language, f"{split.paths[0]}, line {example.line}")
        first_lines.setdefault(example.summary is not None, example.line)
        if len(first_lines) == 2:
            raise LSGError(
                f"{split.paths[0]} has a summary ({split.summary_field!r}) in line {first_lines[True]} but none in "
                f"line {first_lines[False]}: either all examples of {split.name} have one or none"
            )
        usable += not any(part is not None and not part.strip() for part in (example.document, example.summary))
    if not count:
        raise LSGError(f"{split.paths[0]} has no example for {split.name}")
    if not usable:
        raise LSGError(f"{split.paths[0]}: document or summary is empty in all {count} examples of {split.name}")
    return SplitCheck(count, True in first_lines, languages)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text) of the lines of a UTF-8 file, split at line feeds alone, as documents may hold any other.

    Raises:
        LSGError: the file is missing, is a folder, or is not UTF-8.
    """
    if not path.exists():
        raise LSGError(f"the file {path} does not exist")
    if path.is_dir():
        raise LSGError(f"{path} is a folder, but a file is needed")
    with path.open("rb") as file:
        for number, raw in enumerate(raw_lines(file, str(path)), start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise LSGError(
                    f"{path}, line {number}, is not UTF-8 text (byte {error.start + 1} of the line)"
                ) from error
            yield number, text.removesuffix("\n").removesuffix("\r")


def read_parallel(documents: Path, summaries: Path) -> Iterator[Example]:
    """Line n of one file with line n of the other.

    Raises:
        LSGError: the files differ in length.
    """
    for left, right in zip_longest(read_lines(documents), read_lines(summaries)):
        if left is None or right is None:
            counts = [sum(1 for _ in read_lines(path)) for path in (documents, summaries)]
            raise LSGError(
                f"{documents} has {counts[0]} lines but {summaries} has {counts[1]} lines: they must correspond"
            )
        yield Example(left[0], left[1], right[1])


def _parse_record(path: Path, line: int, text: str) -> dict[str, object]:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LSGError(f"{path}, line {line}, is not valid JSON ({error}): each line must be a JSON object") from error
    if not isinstance(record, dict):
        raise LSGError(f"{path}, line {line}, is a JSON {type(record).__name__}, but each line must be an object")
    return record


def _field(record: dict[str, object], name: str, path: Path, line: int) -> str:
    if name not in record:
        present = ", ".join(map(repr, record)) or "none"
        raise LSGError(f"{path}, line {line}, has no field {name!r}; fields present: {present}")
    value = record[name]
    if not isinstance(value, str):
        raise LSGError(f"{path}, line {line}: field {name!r} must be a string, not {type(value).__name__}")
    return value
