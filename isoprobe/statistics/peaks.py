"""Keep the largest of values that arrive in batches, and their upper quantiles by a histogram."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np

from isoprobe.statistics.moments import Accumulator

#: bins are uniform in the logarithm between these values; what lies beyond counts at the ends
LOW, HIGH = 1e-4, 1e4
_MOST, _CELLS = 400, 2**20


class Peaks(Accumulator):
    """Largest value and upper quantiles of each of ``items``, over values that are not negative.

    Args:
        items: how many values a sample has, n.
    """

    kept: ClassVar[tuple[str, ...]] = ("largest", "counts")

    def __init__(self, items: int) -> None:
        self.bins = int(np.clip(_CELLS // max(items, 1), 16, _MOST))
        self.largest = np.full(items, -np.inf)
        self.counts = np.zeros((items, self.bins), dtype=np.int64)

    def update(self, values: np.ndarray) -> None:
        """Take in ``(B, n)``."""
        if not len(values):
            return
        self.largest = np.maximum(self.largest, values.max(axis=0))
        place = np.log(np.clip(values, LOW, HIGH) / LOW) / np.log(HIGH / LOW)
        cell = np.minimum((place * self.bins).astype(np.int64), self.bins - 1)
        items = values.shape[1]
        flat = (cell + self.bins * np.arange(items)).ravel()
        counted = np.bincount(flat, minlength=items * self.bins)
        self.counts += counted.reshape(items, self.bins)

    def quantile(self, level: float) -> np.ndarray:
        """The value that a share ``level`` of the samples does not exceed.

        Args:
            level: between 0 and 1.

        Returns:
            ``(n,)``: upper ends of bins, at most a bin too large, and never above the largest; NaN
            where there are too few samples to exceed it.
        """
        total = self.counts.sum(axis=1)
        if not total.all() or total[0] * (1 - level) < 1 - 1e-9:
            return np.full(len(total), np.nan)
        reached = np.cumsum(self.counts, axis=1) >= np.ceil(level * total)[:, None]
        upper = LOW * (HIGH / LOW) ** ((reached.argmax(axis=1) + 1) / self.bins)
        # beyond the last edge nothing is known but the largest
        last = reached.argmax(axis=1) == self.bins - 1
        quantile: np.ndarray = np.where(last, self.largest, np.minimum(upper, self.largest))
        return quantile

    def join(self, other: Self) -> None:
        """Take in another's samples."""
        self.largest = np.maximum(self.largest, other.largest)
        self.counts = self.counts + other.counts
