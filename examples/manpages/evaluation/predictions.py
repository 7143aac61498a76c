"""What somebody says of each page of a split, as lines of JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from examples.manpages.corpus.records import TEST_SETS, Record
from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.modules.lsg_config import LSGError

FIRST_SENTENCE, NEAREST = "first_sentence", "nearest_training_page"
BASELINES = (FIRST_SENTENCE, NEAREST)
WHICH_PAGE = ("package", "name", "section", "summary")


def write_predictions(pages: Sequence[Record], predictions: Mapping[str, Sequence[str]], path: Path) -> None:
    """A line for each page: which it is, its description, and what each says that has a name in `predictions`."""
    with path.open("w", encoding="utf-8") as file:
        for index, page in enumerate(pages):
            about = {field: page[field] for field in WHICH_PAGE}
            record = about | {name: texts[index] for name, texts in predictions.items()}
            file.write(json.dumps(record, ensure_ascii=False) + "\n")


def read_predictions(data: Path, split: str, pages: Sequence[Record]) -> dict[str, list[str]]:
    """What each baseline says about `pages`, which are the first of a split or all of them.

    Raises:
        LSGError: the baselines have not been run, or on other pages.
    """
    path = data / f"{split}.baselines.jsonl"
    sets = "" if split in TEST_SETS else f" --sets {split}"
    advice = f"run python -m examples.manpages.evaluation.baselines --data {data}{sets} first"
    if not path.is_file():
        raise LSGError(f"{path} does not exist: {advice}")
    records = [json.loads(text) for _, text in read_lines(path)][: len(pages)]
    if [_which(record) for record in records] != [_which(page) for page in pages]:
        raise LSGError(f"{path} is about other pages than {split}.jsonl: {advice}")
    return {name: [record[name] for record in records] for name in BASELINES}


def _which(record: Record) -> list[str]:
    return [record[field] for field in WHICH_PAGE]
