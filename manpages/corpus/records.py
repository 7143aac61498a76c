"""The examples of a split, as they were written."""

from __future__ import annotations

import json
from pathlib import Path

from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.modules.lsg_config import LSGError

TEST_SETS = ("test_seen", "test_unseen")
Record = dict[str, str]


PREPARED_BY = {"descriptions": "python -m manpages.descriptions.prepare"}


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
