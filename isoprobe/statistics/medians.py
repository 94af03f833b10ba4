"""Give intervals of medians that hold whatever the distribution."""

from __future__ import annotations

import itertools
import math

import numpy as np


def median_interval(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Confidence interval of a median, from order statistics.

    Between the r-th smallest and the r-th largest of N values the median lies with probability
    1 - 2 P(B < r), B binomial(N, 1/2). No r gives just the level asked for, so the ends are put
    between those of two neighbouring r (Hettmansperger and Sheather 1986).

    Args:
        values: independent draws of one distribution, ``(N,)``.
        level: between 0 and 1.

    Returns:
        Both ends; NaN where even the smallest and largest value hold the median too rarely: fewer
        than six values at 95 %.
    """
    ordered, count = np.sort(values), len(values)
    below = itertools.accumulate(math.comb(count, k) for k in range(count // 2 + 1))
    held = [1 - 2 * missed / 2**count for missed in below]  # by the ranks 1, 2, ... from each end
    rank = sum(each >= level for each in held)
    if not rank:
        return math.nan, math.nan
    between = (held[rank - 1] - level) / (held[rank - 1] - held[rank])
    share = (count - rank) * between / (rank + (count - 2 * rank) * between)
    outer, inner = ordered[[rank - 1, -rank]], ordered[[rank, -rank - 1]]
    low, high = (1 - share) * outer + share * inner
    return float(low), float(high)
