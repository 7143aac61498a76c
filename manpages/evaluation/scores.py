"""Scores of several systems on the same pages, and how sure their differences are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from manpages.corpus.records import Record
from manpages.evaluation.answering import AS_TRAINED, LONG, SHORT
from manpages.evaluation.baselines import FIRST_SENTENCE, NEAREST, SCORES, page_scores
from manpages.evaluation.bootstrap import paired_bootstrap

RESAMPLES, SEED = 10_000, 1
COMPARED = "rougeL"
BASELINES = (FIRST_SENTENCE, NEAREST)
ALL, LONGER = "all", f"over {SHORT} tokens"

Scores = dict[str, dict[str, np.ndarray]]  # system -> score -> (N,) F1 x 100


def score_systems(pages: Sequence[Record], texts: Mapping[str, Sequence[str]]) -> Scores:
    """Each system's scores of each page."""
    return {
        system: {name: np.array(values) for name, values in page_scores(pages, said).items()}
        for system, said in texts.items()
    }


def measure(scores: Scores, tokens: np.ndarray) -> dict[str, Any]:
    """Figures over all pages and over the long ones alone, and how many pages there are of which length."""
    return {
        "longer_than": {str(limit): int((tokens > limit).sum()) for limit in (SHORT, LONG)},
        ALL: measure_pages(scores, tokens > 0),
        LONGER: measure_pages(scores, tokens > SHORT),
    }


def measure_pages(scores: Scores, chosen: np.ndarray) -> dict[str, Any]:
    """Mean scores over the chosen (N,) pages, and what the model as trained has more in ROUGE-L than each other system.

    Of no page there are no figures.
    """
    figures: dict[str, Any] = {"pages": int(chosen.sum())}
    if not figures["pages"]:
        return figures
    own = scores[AS_TRAINED][COMPARED][chosen]
    figures["scores"] = {
        system: {name: round(float(values[name][chosen].mean()), 2) for name in SCORES}
        for system, values in scores.items()
    }
    figures["differences"] = {
        system: dict(zip(("mean", "low", "high"), _difference(own, values[COMPARED][chosen]), strict=True))
        for system, values in scores.items()
        if system != AS_TRAINED
    }
    return figures


def _difference(own: np.ndarray, other: np.ndarray) -> list[float]:
    return [round(value, 3) for value in paired_bootstrap(own, other, RESAMPLES, SEED)]


def is_better(figures: Mapping[str, Any]) -> bool:
    """Whether the model as trained is surely better than each baseline: the interval's lower end is above 0."""
    return all(figures["differences"][baseline]["low"] > 0 for baseline in BASELINES)
