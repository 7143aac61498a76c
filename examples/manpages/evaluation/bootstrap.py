"""How sure a difference of means is: the paired bootstrap over groups of examples.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3: the percentile interval. Paired, for two
systems on the same test examples: Koehn, "Statistical Significance Tests for Machine Translation Evaluation" (2004).
Whole groups are drawn where examples within a group are alike: Field and Welsh, "Bootstrapping clustered data" (2007).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from lsg_fairseq.modules.lsg_config import LSGError

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
