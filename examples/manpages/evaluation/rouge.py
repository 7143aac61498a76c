"""ROUGE of what is said of pages, F1 x 100 with stemming."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from examples.manpages.corpus.records import Record
from lsg_fairseq.scoring import rouge_scores

SCORES = ("rouge1", "rouge2", "rougeL")


def page_scores(pages: Sequence[Record], predictions: Sequence[str]) -> dict[str, list[float]]:
    """The scores of each page, by name."""
    scored = [rouge_scores(page["summary"], text) for page, text in zip(pages, predictions, strict=True)]
    return {name: [100 * scores[name] for scores in scored] for name in SCORES}


def mean_scores(pages: Sequence[Record], predictions: Sequence[str]) -> dict[str, float]:
    """Mean scores, by name."""
    return {name: round(fmean(scores), 2) for name, scores in page_scores(pages, predictions).items()}
