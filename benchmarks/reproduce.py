"""The published models' ROUGE on arXiv and PubMed: `make reproduce`, or `python -m benchmarks.reproduce --only NAME`.

Needs a network: the test sets (160 MB) and the weights (145 million parameters each) come from the Hugging Face hub,
once, and go on where they were interrupted. lsg-summarize then writes reproduce-run/{entry}-every1.jsonl, which the
same command continues, too. The figures beside ours are those of the models' pages, for the same checkpoint with the
same block size. `--every 100` takes every hundredth paper, for a first look. What stands behind `--` goes to
lsg-summarize: `-- --dtype bfloat16 --max-tokens 65536`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from lsg_fairseq.commands.summarize import main as summarize
from lsg_fairseq.data.parquet_files import count_rows
from lsg_fairseq.data.record_files import read_records, text_of
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.scoring import ROUGE_NAMES, rouge_scores

FIELD = "lsg_summary"


class TestSet(NamedTuple):
    """A file of a data set on the hub, its fields, and how many papers it must have."""

    __test__ = False  # no test of pytest's

    repository: str
    file: str
    document_field: str
    summary_field: str
    papers: int


class Published(NamedTuple):
    """A hub entry, the test set that its page reports, and R1, R2, RL and RLsum there.

    `page` is the commit of the page: later ones may report other figures.
    """

    entry: str
    test_set: str
    rouge: tuple[float, float, float, float]
    page: str


# The papers of Cohan et al. 2018 (scientific_papers) as the models' publisher has them.
TEST_SETS = {
    "arxiv": TestSet(
        "ccdv/arxiv-summarization", "document/test-00000-of-00001.parquet", "article", "abstract", papers=6440
    ),
    "pubmed": TestSet(
        "ccdv/pubmed-summarization", "document/test-00000-of-00001.parquet", "article", "abstract", papers=6658
    ),
}
# Rows of the pages' tables for block size 256 and no sparse tokens, as the checkpoints' config.json has it; the ones of
# 16,384 tokens with 64 global tokens.
PUBLISHED = (
    Published("lsg_bart_base_4096_arxiv", "arxiv", (46.65, 18.91, 26.90, 42.18), "main"),
    Published("lsg_bart_base_4096_pubmed", "pubmed", (47.37, 21.74, 28.59, 43.67), "main"),
    Published("lsg_bart_base_16384_arxiv", "arxiv", (48.74, 20.88, 28.50, 44.23), "main"),
    Published("lsg_bart_base_16384_pubmed", "pubmed", (48.29, 22.53, 29.35, 44.55), "83d2fce"),
)


def fetch(test_set: TestSet) -> Path:
    """The file in huggingface_hub's cache, downloaded if need be.

    Raises:
        LSGError: it cannot be fetched, or has another number of papers.
    """
    import huggingface_hub

    try:
        path = huggingface_hub.hf_hub_download(test_set.repository, test_set.file, repo_type="dataset")
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise LSGError(
            f"{test_set.file} of {test_set.repository} cannot be fetched ({type(error).__name__}: {reason}): this "
            "needs a network, or HF_HOME with the file in its cache"
        ) from error
    papers = count_rows(Path(path))
    if papers != test_set.papers:
        raise LSGError(
            f"{path} has {papers} papers and should have {test_set.papers}: the data set has changed, so that "
            "published figures say nothing about it"
        )
    return Path(path)


def write_summaries(run: Published, papers: Path, folder: Path, every: int, more: Sequence[str] = ()) -> Path:
    """Summarise every n-th paper with the checkpoint's own settings; what is there already is not done again.

    Raises:
        LSGError: lsg-summarize ended with an error, which it has printed.
    """
    test_set = TEST_SETS[run.test_set]
    output = folder / f"{run.entry}-every{every}.jsonl"
    share = ["--num-shards", every, "--shard-id", 0] if every > 1 else []
    fields = ["--document-field", test_set.document_field, "--summary-field", FIELD]
    flags = ["--checkpoint", run.entry, "--jsonl", "--output", output, *fields, *share, *more]
    if summarize([str(papers), *map(str, flags)]):
        raise LSGError(f"{run.entry} could not summarise {papers}: the same command goes on with {output}")
    return output


def score(summaries: Path, test_set: TestSet, papers: int) -> list[float]:
    """R1, R2, RL and RLsum in percent, means over papers: F1, stemmed.

    Raises:
        LSGError: there are more or fewer summaries than papers.
    """
    scores: dict[str, list[float]] = {name: [] for name in ROUGE_NAMES}
    for place, record in read_records(summaries, "JSON Lines"):
        reference = text_of(record, test_set.summary_field, place, "summary")
        for name, value in rouge_scores(reference, text_of(record, FIELD, place, "summary")).items():
            scores[name].append(100 * value)
    found = len(scores[ROUGE_NAMES[0]])
    if found != papers:
        raise LSGError(f"{summaries} has {found} summaries for {papers} papers: run the command again")
    return [round(statistics.fmean(scores[name]), 2) for name in ROUGE_NAMES]


def reproduce(
    runs: Sequence[Published], folder: Path, every: int = 1, more: Sequence[str] = ()
) -> dict[str, list[float]]:
    """Entry -> its scores, printed as soon as they are known; raises as fetch, write_summaries and score."""
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[float]] = {}
    for run in runs:
        test_set = TEST_SETS[run.test_set]
        summaries = write_summaries(run, fetch(test_set), folder, every, more)
        results[run.entry] = score(summaries, test_set, len(range(0, test_set.papers, every)))
        (folder / "results.json").write_text(json.dumps({"every": every, "rouge": results}, indent=1) + "\n")
        print(to_markdown(runs, results, every), flush=True)
    return results


def to_markdown(runs: Sequence[Published], results: dict[str, list[float]], every: int) -> str:
    """The table that is printed: ours and the published ones, with the difference."""
    papers = "all papers" if every == 1 else f"every {every}th paper"
    lines = [f"| {papers}: R1 / R2 / RL / RLsum | here | published | page |", "|---|--:|--:|---|"]
    for run in runs:
        if run.entry in results:
            figures = [" / ".join(f"{value:.2f}" for value in row) for row in (results[run.entry], run.rouge)]
            lines.append(f"| {run.entry}, {run.test_set} | {figures[0]} | {figures[1]} | {run.page} |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, or 1 after one sentence on standard error."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=[run.entry for run in PUBLISHED], help="one of the models (default: all)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every Nth paper (default: all)")
    parser.add_argument("--folder", type=Path, default=Path("reproduce-run"), help="default: %(default)s")
    given = list(sys.argv[1:] if argv is None else argv)
    end = given.index("--") if "--" in given else len(given)
    args = parser.parse_args(given[:end])
    if args.every < 1:
        parser.error(f"--every must be 1 or more, not {args.every}")
    runs = [run for run in PUBLISHED if args.only in (None, run.entry)]
    try:
        reproduce(runs, args.folder, args.every, given[end + 1 :])
    except LSGError as error:
        print(f"reproduce: error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
