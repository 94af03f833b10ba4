"""Compare two methods on the same splits, pair by pair."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

#: pairs up to which every pattern of signs is counted
_EXACT = 20


@dataclass(frozen=True)
class Paired:
    """Differences of pairs.

    Attributes:
        count: pairs.
        mean: of the differences.
        error: its standard error.
        p_value: share of the 2^count patterns of signs whose mean is as far from 0 (two-sided).
    """

    count: int
    mean: float
    error: float
    p_value: float


def paired(first: Sequence[float], second: Sequence[float]) -> Paired:
    """Test whether the mean of ``first - second`` is 0, the signs being exchangeable.

    Args:
        first: figures of one method by split.
        second: those of another on the same splits, at most 20 and at least 2.

    Returns:
        The differences and the exact test.

    Raises:
        ValueError: for other numbers of pairs.
    """
    if len(first) != len(second) or not 2 <= len(first) <= _EXACT:
        raise ValueError(f"2 to {_EXACT} pairs are needed; found {len(first)} and {len(second)}")
    differences = np.subtract(first, second)
    sums = np.zeros(1)
    for difference in differences:
        sums = np.concatenate([sums + difference, sums - difference])
    # a pattern whose sum is the observed one but for rounding counts
    least = abs(differences.sum()) * (1 - 1e-9)
    return Paired(
        count=len(differences),
        mean=float(differences.mean()),
        error=float(differences.std(ddof=1) / math.sqrt(len(differences))),
        p_value=float((np.abs(sums) >= least).mean()),
    )
