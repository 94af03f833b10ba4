"""Tell whether new rows are still those of the reference, and what about them has moved.

Scores are compared by the statistic of Kolmogorov and Smirnov between the two samples, since the
p-values of new rows share their reference and so are not independent; means of inputs and latents
by Welch's test. The level is shared among all comparisons (Bonferroni), so that an alarm without a
cause comes at most that often, whatever depends on what.
"""

from __future__ import annotations

import math

import numpy as np

from isoprobe.theory.stated import stated

#: of the series of the limiting distribution
_TERMS = 100


@stated("Drift (beyond)")
def ks_statistic(new: np.ndarray, reference: np.ndarray) -> float:
    """Return the largest difference of two empirical distribution functions.

    Args:
        new: values, ``(N,)``, at least one.
        reference: values, ``(M,)``, at least one.

    Returns:
        Between 0 and 1; ties only make it smaller.
    """
    every = np.concatenate([new, reference])
    of_new = np.searchsorted(np.sort(new), every, side="right") / len(new)
    of_old = np.searchsorted(np.sort(reference), every, side="right") / len(reference)
    return float(np.abs(of_new - of_old).max())


@stated("Drift (beyond)")
def ks_p_value(statistic: float, new: int, reference: int) -> float:
    """Return the chance of so large a difference between samples of one distribution.

    By the limiting distribution at sqrt(NM / (N + M)) times the statistic, with Stephens'
    correction for few rows; with ties the true chance is smaller.
    """
    size = math.sqrt(new * reference / (new + reference))
    x = (size + 0.12 + 0.11 / size) * statistic
    if x < 0.2:
        return 1.0
    terms = np.arange(1, _TERMS + 1)
    series = 2 * ((-1.0) ** (terms - 1) * np.exp(-2 * (terms * x) ** 2)).sum()
    return float(min(max(series, 0.0), 1.0))


@stated("Drift (beyond)")
def mean_shift(
    mean: np.ndarray, sd: np.ndarray, count: int, old_mean: np.ndarray, old_sd: np.ndarray, old: int
) -> np.ndarray:
    """Return differences of means in standard errors (Welch), 0 where nothing varies.

    Args:
        mean: of the new rows, ``(K,)``.
        sd: their standard deviations.
        count: how many rows.
        old_mean: of the reference.
        old_sd: its standard deviations.
        old: its rows.

    Returns:
        ``(K,)``; infinite where a value that never varied has another value now.
    """
    error = np.sqrt(sd**2 / count + old_sd**2 / old)
    gap = mean - old_mean
    rounding = 1e-6 * (np.abs(mean) + np.abs(old_mean))
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.where(np.abs(gap) <= rounding, 0.0, gap / error)
    shifted: np.ndarray = found
    return shifted


@stated("Drift (beyond)")
def normal_p_value(shift: np.ndarray) -> np.ndarray:
    """Two-sided p-values of shifts in standard errors, ``(K,)``."""
    return np.array([math.erfc(abs(value) / math.sqrt(2)) for value in np.ravel(shift).tolist()])
