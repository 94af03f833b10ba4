"""Decide over many rows at once: how many of those flagged are expected to be flagged wrongly.

A p-value up to alpha flags a share alpha of normal rows, however many there are: of a million rows
of nothing 50,000 at 0.05. The step-up procedure of Benjamini and Hochberg (1995) bounds the share
of the flagged rows that are normal instead; with conformal p-values against one reference, or one
reference a group, it holds (Bates, Candes, Lei, Romano and Sesia 2023).
"""

from __future__ import annotations

import math

import numpy as np

from isoprobe.theory.stated import stated

_ROUNDING = 1e-9


@stated("Decisions over many rows (beyond)")
def adjusted_p_values(distinct: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the least false discovery rate at which rows of each p-value are flagged.

    Conformal p-values are few different numbers, so that a count of each is all there is to know.

    Args:
        distinct: the different p-values, ascending, ``(K,)``.
        counts: rows of each, ``(K,)``.

    Returns:
        ``min over k' >= k of p_k' rows / #{p <= p_k'}``, at most 1, ``(K,)``.
    """
    reached = np.cumsum(counts)
    ratio = distinct * (reached[-1] / reached) if len(reached) else np.empty(0)
    lowest: np.ndarray = np.minimum(np.minimum.accumulate(ratio[::-1])[::-1], 1.0)
    return lowest


@stated("Decisions over many rows (beyond)")
def smallest_p_value(count: int) -> float:
    """Return the least conformal p-value there can be against ``count`` reference rows."""
    return 1 / (count + 1)


@stated("Decisions over many rows (beyond)")
def least_flagged(rows: int, count: int, level: float) -> int:
    """Return how many rows the step-up procedure flags at least, where it flags any.

    Args:
        rows: that are decided over.
        count: reference rows.
        level: false discovery rate.

    Returns:
        The least k with ``1 / (count + 1) <= level k / rows``.
    """
    return max(1, math.ceil(rows * smallest_p_value(count) / level - _ROUNDING))


@stated("Decisions over many rows (beyond)")
def trimmed(ordered: np.ndarray, share: float) -> np.ndarray:
    """Leave out the highest reference scores, which may be of anomalies themselves.

    Where at most that share of the reference are anomalies, and these score above its normal rows,
    at least its normal rows are left. Where they do not, a normal row is flagged more often than
    its p-value says: at most with a chance of (alpha + share) instead of alpha.

    Args:
        ordered: scores of reference rows, ascending, ``(N,)``.
        share: at least 0, below 1.

    Returns:
        All but the ``floor(share N)`` highest.
    """
    return ordered[: len(ordered) - math.floor(share * len(ordered) + _ROUNDING)]


@stated("Decisions over many rows (beyond)")
def added_parts(score: float, parts: np.ndarray) -> np.ndarray:
    """Make parts add up to their score exactly: ``math.fsum(parts) == score``.

    Parts of both signs that are all far larger than their sum cannot; theirs are as near as the
    digits of the smallest allow.

    Args:
        score: the sum they stand for, up to rounding.
        parts: ``(K,)``, at least one.

    Returns:
        The same parts, one or two of them changed by what rounding had taken.
    """
    exact = np.array(parts, dtype=np.float64)
    order = np.argsort(-np.abs(exact))
    # the largest takes nearly all of it, and what its last digit cannot hold a smaller one does
    for place in (order[0], *order[::-1]):
        missing = math.fsum([score, *(-exact)])
        if missing == 0:
            break
        exact[place] += missing
    return exact
