"""The examples of a split as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from examples.manpages.corpus.pages import Example
from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.modules.lsg_config import LSGError

TEST_SETS = ("test_seen", "test_unseen")
EVALUATED = ("valid", *TEST_SETS)  # what a model can be scored on: it was trained on none of them
FIELDS = ("document", "summary", "name", "section", "package")
PREPARED_BY = {"descriptions": "python -m examples.manpages.descriptions.prepare"}
Record = dict[str, str]


def as_jsonl(records: Iterable[Mapping[str, Any]]) -> str:
    """A record a line."""
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def write_examples(examples: Sequence[Example], path: Path) -> None:
    """One example a line."""
    records = ({field: getattr(example, field) for field in FIELDS} for example in examples)
    path.write_text(as_jsonl(records), encoding="utf-8")


def path_of(data: Path, split: str) -> Path:
    """Where the examples of a split are.

    Raises:
        LSGError: the split has not been prepared.
    """
    path = data / f"{split}.jsonl"
    if not path.is_file():
        command = PREPARED_BY.get(split.partition("_")[0], "scripts/prepare_manpages.py")
        raise LSGError(f"{path} does not exist: run {command} --out {data} first")
    return path


def read_records(data: Path, split: str) -> list[Record]:
    """The examples of a split; raises as path_of."""
    return [json.loads(text) for _, text in read_lines(path_of(data, split))]
