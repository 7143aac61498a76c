"""The systems that are compared, their scores on the same pages, and how sure the differences are."""

from __future__ import annotations

import argparse
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from examples.manpages.corpus.pages import EVALUATED, TEST_SETS, Record
from lsg_fairseq.modules.lsg_config import LSGError
from lsg_fairseq.scoring import rouge_scores

# --- the ways in which a model answers: the same weights and pages, other attention or less to read -------------------

SHORT, LONG = 512, 4096  # source tokens, <s> and </s> included
AS_TRAINED, CUT = "as_trained", "cut_to_512"
STAGE_BEFORE = "stage_before_cut_to_512"
FIRST_SENTENCE, NEAREST = "first_sentence", "nearest_training_page"
BASELINES = (FIRST_SENTENCE, NEAREST)
CUT_FLAGS = ("--max-source-positions", str(SHORT))

# The same for all variants. A batch is bounded by the memory of full attention over LONG tokens.
GENERATION: dict[str, int] = {
    "--beam": 4,
    "--min-len": 1,
    "--max-len-b": 48,
    "--no-repeat-ngram-size": 3,
    "--batch-size": 32,
    "--max-tokens": 4 * LONG,
}


@dataclass(frozen=True)
class Variant:
    """What is added to the command line, and what that means."""

    flags: tuple[str, ...]
    meaning: str


def variants_of(positions: int) -> dict[str, Variant]:
    """The ways in which a checkpoint of so many source positions answers."""
    whole = ("--max-source-positions", str(positions))
    return {
        AS_TRAINED: Variant(
            whole,
            f"the checkpoint's own attention settings, pages cut to its {positions:,} positions",
        ),
        CUT: Variant(CUT_FLAGS, f"the same, but pages cut to {SHORT} tokens, `<s>` and `</s>` included"),
        "sparsity_none": Variant(
            (*whole, "--model-overrides", "{'lsg_sparsity_type': 'none'}"),
            "no sparse tokens: a token sees its own block, both neighbours and the global tokens",
        ),
        "full_attention": Variant(
            (*whole, "--model-overrides", "{'lsg_attention': 'full'}"),
            "every token sees every token; the learned global tokens stay in front, as the decoder was trained so",
        ),
    }


def short_variant() -> dict[str, Variant]:
    """The way in which the checkpoint of the stage before answers."""
    meaning = "the checkpoint of the stage before (`--short-model`), which read openings of pages"
    return {STAGE_BEFORE: Variant(CUT_FLAGS, meaning)}


# --- which sets of pages are scored: both test sets unless others are named, as for choices that must not see those ---


def add_sets(parser: argparse.ArgumentParser) -> None:
    """Add --sets."""
    default = " ".join(TEST_SETS)
    parser.add_argument("--sets", nargs="+", choices=EVALUATED, default=TEST_SETS, help=f"default: {default}")


def in_order(sets: Collection[str]) -> tuple[str, ...]:
    """The sets, each once, in an order that does not depend on the command line."""
    return tuple(name for name in EVALUATED if name in sets)


# --- ROUGE F1 x 100 with stemming -------------------------------------------------------------------------------------

SCORES = ("rouge1", "rouge2", "rougeL")


def page_scores(pages: Sequence[Record], predictions: Sequence[str]) -> dict[str, list[float]]:
    """The scores of each page, by name."""
    scored = [rouge_scores(page["summary"], text) for page, text in zip(pages, predictions, strict=True)]
    return {name: [100 * scores[name] for scores in scored] for name in SCORES}


def mean_scores(pages: Sequence[Record], predictions: Sequence[str]) -> dict[str, float]:
    """Mean scores, by name."""
    return {name: round(fmean(scores), 2) for name, scores in page_scores(pages, predictions).items()}


# --- the paired bootstrap over groups of examples ---------------------------------------------------------------------
# Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3: the percentile interval. Paired, for
# two systems on the same test examples: Koehn, "Statistical Significance Tests for Machine Translation Evaluation"
# (2004). Whole groups are drawn where examples within a group are alike: Field and Welsh, "Bootstrapping clustered
# data" (2007).

LEVELS = (0.025, 0.975)
RESAMPLES_AT_ONCE = 500  # what bounds the memory


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], groups: Sequence[Hashable], resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of a - b over the same examples, and the ends of its 95% interval when groups of them are drawn anew.

    A resample has as many groups as there are, drawn with replacement, and its mean is that of all their examples. Of
    one group alone the interval is a point, and says nothing; where each example is a group, examples are drawn.

    Args:
        groups: the group of each example.

    Raises:
        LSGError: the lengths differ, there is no example, or fewer than one resample was asked for.
    """
    if not len(a) == len(b) == len(groups) or not len(a):
        counts = f"{len(a)}, {len(b)} and {len(groups)}"
        raise LSGError(f"scores and groups must be of the same examples, one at least, not of {counts}")
    if resamples < 1:
        raise LSGError(f"there must be at least 1 resample, not {resamples}")
    differences = np.asarray(a, dtype=float) - np.asarray(b, dtype=float)
    _, members = np.unique(np.asarray(groups), return_inverse=True)
    sums, counts = np.bincount(members, weights=differences), np.bincount(members)
    low, high = np.quantile(_resampled_means(sums, counts, resamples, np.random.default_rng(seed)), LEVELS)
    return float(differences.mean()), float(low), float(high)


def _resampled_means(sums: np.ndarray, counts: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """Means (resamples,) over groups of these sums and numbers of examples (G,)."""
    means = []
    for start in range(0, resamples, RESAMPLES_AT_ONCE):
        drawn = rng.integers(0, len(sums), (min(RESAMPLES_AT_ONCE, resamples - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)


# --- scores of several systems on the same pages ----------------------------------------------------------------------

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
