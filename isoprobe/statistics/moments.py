"""Keep statistics of samples that arrive in batches of any size, from any number of processes.

Everything is float64 numpy. An accumulator can be saved, restored and merged, and none takes a
mean of batch means.
"""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

#: Samples fall into this many interleaved blocks by their position in the run; the deviation of
#: estimates with one block left out gives standard errors of ratios (delete-a-group jackknife).
BLOCKS = 64


#: what an accumulator has of its own where it does not name what it keeps
_TRAVELS = ("state", "restore", "merge")


class Accumulator(abc.ABC):
    """State that grows with samples and can travel as named arrays.

    A kind of accumulator names what it keeps, or brings ``state``, ``restore`` and ``merge``.

    Raises:
        TypeError: where one is made that does neither.
    """

    #: names of the arrays that are kept; sums, where :meth:`join` is not another one
    kept: ClassVar[tuple[str, ...]]

    def __new__(cls, *args: object, **options: object) -> Self:
        """Refuse to make what could not be saved."""
        inherited = (getattr(cls, name) is getattr(Accumulator, name) for name in _TRAVELS)
        if not hasattr(cls, "kept") and any(inherited):
            raise TypeError(
                f"accumulator {cls.__name__} does not say what it keeps: name its arrays in "
                "'kept', or write its state, restore and merge"
            )
        return super().__new__(cls)

    def state(self) -> dict[str, np.ndarray]:
        """Return everything accumulated."""
        return {name: np.asarray(getattr(self, name)) for name in self.kept}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Replace what is accumulated."""
        for name in self.kept:
            setattr(self, name, state[name].copy())

    def merge(self, other: Accumulator) -> None:
        """Take in what another accumulator of the same kind and shape has seen.

        Raises:
            TypeError: for another kind of accumulator.
        """
        # what a kind adds that keeps and joins the same is no matter
        kinds = (c for c in type(self).__mro__ if {"kept", "join"} & vars(c).keys())
        if not isinstance(other, next(kinds)):
            raise TypeError(f"{type(self).__name__} cannot merge with {type(other).__name__}")
        self.join(other)

    def join(self, other: Self) -> None:
        """Take in what another of the same kind has seen: by default, add its sums."""
        for name in self.kept:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Moments(Accumulator):
    """Count, mean and squared deviations of arrays, by Chan, Golub and LeVeque's update.

    Args:
        shape: shape of one sample's value.
    """

    kept: ClassVar[tuple[str, ...]] = ("count", "mean", "squares")

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.count = 0
        self.mean = np.zeros(shape)
        self.squares = np.zeros(shape)

    def update(self, values: np.ndarray) -> None:
        """Take in ``(B, *shape)``."""
        if len(values):
            mean = values.mean(axis=0)
            self._combine(len(values), mean, ((values - mean) ** 2).sum(axis=0))

    def join(self, other: Self) -> None:
        """Take in another's samples."""
        if other.count:
            self._combine(other.count, other.mean, other.squares)

    def _combine(self, count: int, mean: np.ndarray, squares: np.ndarray) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.squares = self.squares + squares + delta**2 * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    @property
    def sd(self) -> np.ndarray:
        """Standard deviation with n - 1; zero for a single sample."""
        sd: np.ndarray = np.sqrt(self.squares / max(self.count - 1, 1))
        return sd

    @property
    def se(self) -> np.ndarray:
        """Standard error of the mean."""
        error: np.ndarray = self.sd / np.sqrt(max(self.count, 1))
        return error

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Continue from a saved state."""
        super().restore(state)
        self.count = int(state["count"])


class BlockSums(Accumulator):
    """Sums of arrays in :data:`BLOCKS` interleaved blocks of samples.

    Any linear combination or ratio of means gets a standard error from them, chosen after the
    fact: which dimensions are active need not be known while samples arrive.

    Args:
        shape: shape of one sample's value.
    """

    kept: ClassVar[tuple[str, ...]] = ("counts", "sums")

    def __init__(self, shape: tuple[int, ...] = ()) -> None:
        self.counts = np.zeros(BLOCKS, dtype=np.int64)
        self.sums = np.zeros((BLOCKS, *shape))

    def update(self, index: np.ndarray, values: np.ndarray) -> None:
        """Take in ``values (B, *shape)`` of the samples at ``index (B,)``."""
        block = index % BLOCKS
        self.counts += np.bincount(block, minlength=BLOCKS)
        order = np.argsort(block, kind="stable")
        found, starts = np.unique(block[order], return_index=True)
        self.sums[found] += np.add.reduceat(values[order], starts, axis=0)

    def mean(self) -> np.ndarray:
        """Mean over all samples, ``shape``."""
        average: np.ndarray = self.sums.sum(axis=0) / max(int(self.counts.sum()), 1)
        return average


@dataclass(frozen=True)
class Estimate:
    """An estimate with its standard error and 95 % confidence interval, arrays of one shape."""

    value: np.ndarray
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
