"""Order the rows of a data set so that a longer run extends a shorter one.

A run over all rows takes them as they lie. One of fewer takes a beginning of a fixed order that is
spread evenly over the data wherever it is cut: multiples of a step near the golden section of the
number of rows, modulo that number (Weyl's sequence on the integers; by the three-distance theorem
gaps have at most three lengths). So that files are read in sweeps, not row by row here and there,
the order goes by stages, each in ascending order of rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from typing import ClassVar

import numpy as np

#: samples of the first stage; stages end at these steps times powers of ten
FIRST = 1000
_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
_GOLDEN = (math.sqrt(5) - 1) / 2
#: steps tried on either side of the golden section, for one without common or near divisors
_TRIED = 64


def round_numbers() -> Iterator[int]:
    """Yield the ends of stages, without end: 1000, 1500, 2000, 3000, ..."""
    power = FIRST
    while True:
        yield from (int(step * power) for step in _STEPS)
        power *= 10


def stages(samples: int) -> Iterator[range]:
    """Yield the stages of a run of so many samples; the last one is cut off."""
    start = 0
    for stop in round_numbers():
        if start >= samples:
            return
        yield range(start, min(stop, samples))
        start = stop


@dataclass(frozen=True)
class Order:
    """Which row each sample of a run is.

    Attributes:
        rows: that there are, R.
        samples: that the run takes, N, at most R.
    """

    rows: int
    samples: int
    _stage: dict[range, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @property
    def whole(self) -> bool:
        """Whether every row is taken, and so as they lie."""
        return self.samples == self.rows

    @property
    def name(self) -> str:
        """What tells it from other orders of the same rows."""
        return "rows" if self.whole else "spread"

    def at(self, start: int, stop: int) -> np.ndarray:
        """Rows of samples start to stop, ``(stop - start,)`` int64."""
        if self.whole:
            return np.arange(start, stop, dtype=np.int64)
        parts = [
            self._rows(stage)[max(start - stage.start, 0) : stop - stage.start]
            for stage in stages(self.samples)
            if start < stage.stop and stage.start < stop
        ]
        return np.concatenate([np.empty(0, np.int64), *parts])

    def _rows(self, stage: range) -> np.ndarray:
        """Rows of a stage, ascending; the last stage asked for is kept."""
        if stage not in self._stage:
            step = _step(self.rows)
            first = stage.start * step % self.rows
            drawn = (first + np.arange(len(stage), dtype=np.int64) * step) % self.rows
            self._stage.clear()
            self._stage[stage] = np.sort(drawn)
        return self._stage[stage]


@dataclass(frozen=True)
class Rest:
    """Rows of the spread order beyond a number of samples, up to another, in one ascending sweep.

    Attributes:
        rows: that there are, R.
        start: samples that others have taken.
        stop: samples with these, at most R.
    """

    rows: int
    start: int
    stop: int
    whole: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What tells it from other orders of the same rows."""
        return f"encoded-{self.start}-{self.stop}"

    def at(self, start: int, stop: int) -> np.ndarray:
        """Rows of samples start to stop, ``(stop - start,)`` int64."""
        return self._taken[start - self.start : stop - self.start]

    @cached_property
    def _taken(self) -> np.ndarray:
        # wherever it is cut, the spread order has the same rows before the cut
        step = _step(self.rows)
        first = self.start * step % self.rows
        count = self.stop - self.start
        return np.sort((first + np.arange(count, dtype=np.int64) * step) % self.rows)


@lru_cache
def _step(rows: int) -> int:
    """Step near the golden section of ``rows`` that meets each row once, and no short cycle.

    The quotients of the continued fraction of step / rows say how uneven gaps can get.

    Returns:
        The step, 1 for the fewest rows.
    """
    near = round(_GOLDEN * rows)
    tried = range(max(near - _TRIED, 1), min(near + _TRIED, max(rows - 1, 1)) + 1)
    coprime = [step for step in tried if math.gcd(step, rows) == 1]
    return min(coprime, key=lambda step: (_unevenness(step, rows), abs(step - near)), default=1)


def _unevenness(step: int, rows: int) -> int:
    """Largest quotient of the continued fraction of step / rows."""
    above, below, quotients = rows, step, [1]
    while below:
        quotients.append(above // below)
        above, below = below, above % below
    return max(quotients)
