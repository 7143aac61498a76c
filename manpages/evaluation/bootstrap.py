"""How sure a difference of means is: the paired bootstrap.

Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 13.3: the percentile interval. Paired, for two
systems on the same test examples: Koehn, "Statistical Significance Tests for Machine Translation Evaluation" (2004).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lsg_fairseq.modules.lsg_config import LSGError

LEVELS = (0.025, 0.975)


def paired_bootstrap(
    a: Sequence[float], b: Sequence[float], resamples: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """The mean of a - b over the same examples, and the ends of its 95% interval when examples are drawn anew.

    Raises:
        LSGError: the lengths differ, there is no example, or fewer than one resample was asked for.
    """
    if len(a) != len(b) or not len(a):
        raise LSGError(f"scores must be of the same examples, one at least, not of {len(a)} and {len(b)}")
    if resamples < 1:
        raise LSGError(f"there must be at least 1 resample, not {resamples}")
    differences, rng = np.asarray(a, dtype=float) - np.asarray(b, dtype=float), np.random.default_rng(seed)
    count = len(differences)
    means = [differences[rng.integers(0, count, count)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, LEVELS)
    return float(differences.mean()), float(low), float(high)
