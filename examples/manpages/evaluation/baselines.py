"""What needs no model: a page's first sentence, and the description of the nearest training page; scored with ROUGE.

python -m examples.manpages.evaluation.baselines [--data manpages-run] [--sets valid]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from examples.manpages.corpus.pages import TEST_SETS, Record, read_records
from examples.manpages.evaluation.scores import BASELINES, FIRST_SENTENCE, NEAREST, add_sets, in_order, mean_scores
from lsg_fairseq.commands.running import run_command
from lsg_fairseq.data.document_files import read_lines
from lsg_fairseq.data.output_folder import staged_output
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.scoring import SENTENCE_END

# --- predictions as JSON Lines ----------------------------------------------------------------------------------------

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


# --- the baselines ----------------------------------------------------------------------------------------------------

PROGRAM = "examples.manpages.evaluation.baselines"
PAGES_AT_ONCE = 256
Baseline = Callable[[Sequence[Record]], list[str]]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(PROGRAM, description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("manpages-run"), metavar="DIR", help="default: %(default)s")
    add_sets(parser)
    args = parser.parse_args(argv)
    return run_command(PROGRAM, lambda: score_baselines(args.data, in_order(args.sets)))


def score_baselines(data: Path, sets: Sequence[str] = TEST_SETS) -> None:
    """Write DATA/baselines.json (mean F1 x 100) and DATA/SET.baselines.jsonl (a prediction of each a line).

    The means of other sets than the test sets go into a file that is named after them.

    Raises:
        LSGError: DATA lacks a split.
    """
    baselines: dict[str, Baseline] = {
        FIRST_SENTENCE: lambda pages: [first_sentence(page["document"]) for page in pages],
        NEAREST: nearest_description(read_records(data, "train")),
    }
    results = {}
    with staged_output(data) as aside:
        for name in sets:
            pages = read_records(data, name)
            predictions = {baseline: predict(pages) for baseline, predict in baselines.items()} if pages else {}
            results[name] = {"pages": len(pages)} | {
                key: mean_scores(pages, texts) for key, texts in predictions.items()
            }
            write_predictions(pages, predictions, aside / f"{name}.baselines.jsonl")
        means = "baselines.json" if tuple(sets) == TEST_SETS else f"{'.'.join(sets)}.baselines.json"
        (aside / means).write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(results, indent=1))


def first_sentence(document: str) -> str:
    """The first sentence of DESCRIPTION, or of the first paragraph that ends in a full stop where there is none."""
    blocks = document.split("\n\n")
    described = [text for heading, text in pairwise(blocks) if heading.upper() == "DESCRIPTION"]
    prose = [block for block in blocks if block.endswith(".")]
    return SENTENCE_END.split(" ".join([*described, *prose, *blocks][0].split()))[0]


def nearest_description(training: Sequence[Record]) -> Baseline:
    """A baseline that finds the training page of the largest cosine of TF-IDF vectors and gives its description.

    Raises:
        LSGError: there is no training page.
    """
    if not training:
        raise LSGError("there is no training page, so none can be the nearest: prepare more pages")
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(sublinear_tf=True)
    known = vectorizer.fit_transform(page["document"] for page in training).T.tocsr()

    def predict(pages: Sequence[Record]) -> list[str]:
        vectors = vectorizer.transform(page["document"] for page in pages)
        chunks = range(0, len(pages), PAGES_AT_ONCE)
        # The rows have length 1, so their products are cosines.
        nearest = [(vectors[start : start + PAGES_AT_ONCE] @ known).toarray().argmax(axis=1) for start in chunks]
        return [training[index]["summary"] for chunk in nearest for index in chunk]

    return predict


if __name__ == "__main__":
    sys.exit(main())
