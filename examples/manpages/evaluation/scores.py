"""Scores of several systems on the same pages, and how sure their differences are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from examples.manpages.corpus.records import Record
from examples.manpages.evaluation.bootstrap import paired_bootstrap
from examples.manpages.evaluation.predictions import BASELINES
from examples.manpages.evaluation.rouge import SCORES, page_scores
from examples.manpages.evaluation.variants import AS_TRAINED, SHORT

RESAMPLES, SEED = 10_000, 1
COMPARED = "rougeL"
ALL, LONGER = "all", f"over {SHORT} tokens"


@dataclass(frozen=True)
class Scored:
    """Scores of N pages: system -> score -> (N,) F1 x 100, and the package of each page."""

    values: Mapping[str, Mapping[str, np.ndarray]]
    packages: np.ndarray


def score_systems(pages: Sequence[Record], texts: Mapping[str, Sequence[str]]) -> Scored:
    """Each system's scores of each page."""
    values = {
        system: {name: np.array(values) for name, values in page_scores(pages, said).items()}
        for system, said in texts.items()
    }
    return Scored(values, np.array([page["package"] for page in pages]))


def measure(scored: Scored, tokens: np.ndarray, positions: int) -> dict[str, Any]:
    """Figures over all pages and over the long ones alone, and how many pages there are of which length.

    Args:
        tokens: (N,) the pages' lengths.
        positions: how many of them the model as trained reads.
    """
    return {
        "longer_than": {str(limit): int((tokens > limit).sum()) for limit in (SHORT, positions)},
        ALL: measure_pages(scored, tokens > 0),
        LONGER: measure_pages(scored, tokens > SHORT),
    }


def measure_pages(scored: Scored, chosen: np.ndarray) -> dict[str, Any]:
    """Mean scores over the chosen (N,) pages, and what the model as trained has more in ROUGE-L than each other system.

    Of no page there are no figures.
    """
    packages = scored.packages[chosen]
    figures: dict[str, Any] = {"pages": int(chosen.sum()), "packages": len(set(packages))}
    if not figures["pages"]:
        return figures
    own = scored.values[AS_TRAINED][COMPARED][chosen]
    figures["scores"] = {
        system: {name: round(float(values[name][chosen].mean()), 2) for name in SCORES}
        for system, values in scored.values.items()
    }
    figures["differences"] = {
        system: dict(zip(("mean", "low", "high"), _difference(own, values[COMPARED][chosen], packages), strict=True))
        for system, values in scored.values.items()
        if system != AS_TRAINED
    }
    return figures


def _difference(own: np.ndarray, other: np.ndarray, packages: np.ndarray) -> list[float]:
    return [round(value, 3) for value in paired_bootstrap(own, other, packages, RESAMPLES, SEED)]


def is_better(figures: Mapping[str, Any]) -> bool:
    """Whether the model as trained is surely better than each baseline: the interval's lower end is above 0.

    Pages of one package alone can show nothing of the kind.
    """
    return figures["packages"] > 1 and all(figures["differences"][name]["low"] > 0 for name in BASELINES)
