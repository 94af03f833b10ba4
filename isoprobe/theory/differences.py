"""Tell two sets of rows apart by their means; rows that are the same are paired."""

from __future__ import annotations

import numpy as np

from isoprobe.statistics.moments import Estimate
from isoprobe.statistics.quantiles import student_t95
from isoprobe.theory.stated import stated


@stated("Rate and distortion")
def gap(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """Mean of other rows less the mean of ours; the sets are independent, so that errors add.

    Args:
        ours: ``(N,)``.
        theirs: ``(M,)``.

    Returns:
        Difference, standard error and 95 % interval, by the t quantile of the smaller set.
    """
    value = theirs.mean() - ours.mean()
    fewest = min(len(ours), len(theirs))
    if fewest < 2:
        return _unknown(value)
    se = np.hypot(ours.std(ddof=1) / np.sqrt(len(ours)), theirs.std(ddof=1) / np.sqrt(len(theirs)))
    return _estimate(value, se, fewest - 1)


@stated("Rate and distortion")
def paired_gap(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """Mean over rows of a difference row by row, which what rows have in common does not blur.

    Args:
        ours: ``(N,)``.
        theirs: of the same rows, ``(N,)``.

    Returns:
        Difference, standard error and 95 % interval.
    """
    each = theirs - ours
    if len(each) < 2:
        return _unknown(each.mean())
    return _estimate(each.mean(), each.std(ddof=1) / np.sqrt(len(each)), len(each) - 1)


def _estimate(value: np.ndarray, se: np.ndarray, degrees: int) -> Estimate:
    half = student_t95(degrees) * se
    return Estimate(value, se, value - half, value + half)


def _unknown(value: np.ndarray) -> Estimate:
    infinite = np.asarray(np.inf)
    return Estimate(value, infinite, -infinite, infinite)
