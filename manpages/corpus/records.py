"""The examples of a split, as they were written."""

from __future__ import annotations

import json
from pathlib import Path

from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.modules.lsg_config import LSGError

TEST_SETS = ("test_seen", "test_unseen")
Record = dict[str, str]


def read_records(data: Path, split: str) -> list[Record]:
    """The examples of a split.

    Raises:
        LSGError: the split has not been prepared.
    """
    path = data / f"{split}.jsonl"
    if not path.is_file():
        raise LSGError(f"{path} does not exist: run scripts/prepare_manpages.py --out {data} first")
    return [json.loads(text) for _, text in read_lines(path)]
