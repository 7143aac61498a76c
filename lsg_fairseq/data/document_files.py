"""The examples of a split: from files of records, two parallel text files, or one text file of documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from lsg_fairseq.data.record_files import LINES, TEXT, has_field, is_known, kind_of, read_records, text_of
from lsg_fairseq.data.text_lines import Place, read_lines
from lsg_fairseq.modules.lsg_config import LSGError


@dataclass(frozen=True)
class Example:
    """A document with its place in the input, its summary if it has one, its language ("": not given) and query."""

    place: Place
    document: str
    summary: str | None = None
    language: str = ""
    query: str = ""


@dataclass(frozen=True)
class Split:
    """The files of train, valid or test, and the fields of their records; only test may lack summaries.

    `lang_field` and `query_field` are the fields with a record's language and query, None if the records have none.
    """

    name: str
    paths: Sequence[Path]
    document_field: str = "document"
    summary_field: str = "summary"
    lang_field: str | None = None
    query_field: str | None = None

    @property
    def needs_summaries(self) -> bool:
        """Whether an example without a summary is an error."""
        return self.name != "test"

    @property
    def has_records(self) -> bool:
        """Whether the files hold records: by their suffixes, or because it is one file with an unknown suffix."""
        kinds = [kind_of(path, LINES) for path in self.paths]
        return TEXT not in kinds and (len(self.paths) == 1 or all(map(is_known, self.paths)))

    def read(self) -> Iterator[Example]:
        """Yield the examples in the order of the files.

        Raises:
            LSGError: a file or a field is missing, a file is damaged, or the files do not suit the split.
        """
        if self.has_records:
            for path in self.paths:
                yield from self._read_records(path)
            return
        for flag, field_name in (("lang", self.lang_field), ("query", self.query_field)):
            if field_name is not None:
                raise LSGError(
                    f"--{flag}-field {field_name} is a field of records, but --{self.name} is a text file "
                    f"({self.paths[0]}): give JSON Lines"
                    + (", or one language for all documents (--source-lang-token)" if flag == "lang" else "")
                )
        yield from self._read_text()

    def _read_text(self) -> Iterator[Example]:
        if len(self.paths) == 2:
            yield from read_parallel(*self.paths)
        elif len(self.paths) > 2:
            names = ", ".join(map(str, self.paths))
            raise LSGError(
                f"--{self.name} takes files of records or two parallel text files, not {len(self.paths)} files: {names}"
            )
        elif self.needs_summaries:
            raise LSGError(
                f"{self.paths[0]} has only documents, but {self.name} needs summaries: add a second text file "
                "(a file of JSON Lines must end in .jsonl)"
            )
        else:
            yield from (Example(Place(str(self.paths[0]), line), text) for line, text in read_lines(self.paths[0]))

    def _read_records(self, path: Path) -> Iterator[Example]:
        names = [self.document_field, self.summary_field, *filter(None, [self.lang_field, self.query_field])]
        for place, record in read_records(path, kind_of(path, LINES), names):
            document = text_of(record, self.document_field, place, "document")
            wanted = self.needs_summaries or has_field(record, self.summary_field)
            summary = text_of(record, self.summary_field, place, "summary") if wanted else None
            language = text_of(record, self.lang_field, place, "lang")
            query = text_of(record, self.query_field, place, "query")
            yield Example(place, document, summary, language, query)


@dataclass(frozen=True)
class SplitCheck:
    """What a first pass found: the number of examples, whether they have summaries, each language's first place."""

    examples: int
    has_summaries: bool
    languages: Mapping[str, str] = field(default_factory=dict)


def check_split(split: Split, examples: Iterable[Example]) -> SplitCheck:
    """Read all examples once, so that a mistake in the last line is reported before the long work starts.

    Raises:
        LSGError: as Split.read; or only some examples have summaries, there are no examples, or all are empty.
    """
    first_places: dict[bool, Place] = {}
    languages: dict[str, str] = {}
    count = usable = 0
    for example in examples:
        count += 1
        if split.lang_field is not None:
            languages.setdefault(example.language, str(example.place))
        first_places.setdefault(example.summary is not None, example.place)
        if len(first_places) == 2:
            raise LSGError(
                f"there is a summary ({split.summary_field!r}) in {first_places[True]} but none in "
                f"{first_places[False]}: either all examples of {split.name} must have one or none"
            )
        usable += not any(part is not None and not part.strip() for part in (example.document, example.summary))
    if not count:
        raise LSGError(f"{split.paths[0]} has no example for {split.name}")
    if not usable:
        raise LSGError(f"{split.paths[0]}: document or summary is empty in all {count} examples of {split.name}")
    return SplitCheck(count, True in first_places, languages)


def read_parallel(documents: Path, summaries: Path) -> Iterator[Example]:
    """Pair line n of one file with line n of the other.

    Raises:
        LSGError: the files differ in their number of lines.
    """
    for left, right in zip_longest(read_lines(documents), read_lines(summaries)):
        if left is None or right is None:
            counts = [sum(1 for _ in read_lines(path)) for path in (documents, summaries)]
            raise LSGError(
                f"{documents} has {counts[0]} lines but {summaries} has {counts[1]} lines: they must correspond "
                "line by line"
            )
        yield Example(Place(str(documents), left[0]), left[1], right[1])
