"""How many samples are enough: until every reported mean is known to a wanted relative error.

Samples are evenly spaced over the data and draws go by a sample's position, so a run of N samples
is no beginning of a longer one. Each attempt is therefore a plain run of a round number of
samples, and its errors say how many the next one needs: a result equals, to the last bit, what
``--samples N`` gives.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.errors import OptionError

if TYPE_CHECKING:
    from isoprobe.contracts import Variable
    from isoprobe.run.settle import Settings

#: relative standard error that is enough when no other is asked for
TOLERANCE = 0.01
#: fewest samples tried; numbers tried are these steps times powers of ten
FIRST = 1000
_STEPS = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)


@dataclass(frozen=True)
class Largest:
    """The worst known of the reported means.

    Attributes:
        what: the mean, in words.
        error: its relative standard error.
    """

    what: str
    error: float


class Attempts:
    """The runs that an analysis takes: one of a given number of samples, or more with ``auto``.

    Args:
        asked: what is asked for.
        rows: samples that there are.
        earlier: identity of an unfinished attempt to go on with.

    Attributes:
        notes: why the last attempt was enough.

    Raises:
        OptionError: for a tolerance that means nothing.
    """

    def __init__(self, asked: Settings, rows: int, earlier: Mapping[str, Any] | None) -> None:
        self._asked, self._rows = asked, rows
        self._auto = asked.samples == "auto"
        if asked.tolerance is not None and not self._auto:
            raise OptionError("--tolerance belongs to --samples auto; add that, or leave it out.")
        self._tolerance = _checked(asked.tolerance)
        first = int(earlier["samples"]) if earlier and "tolerance" in earlier else FIRST
        self._count = min(first, rows)
        self.notes: list[str] = []

    def settings(self) -> Settings:
        """What the present attempt is asked to do."""
        if not self._auto:
            return self._asked
        analyses = copy.deepcopy(self._asked.analyses)  # instances serve one attempt each
        return replace(self._asked, samples=self._count, tolerance=None, analyses=analyses)

    @property
    def identity(self) -> dict[str, float]:
        """What tells an attempt from a run that was asked for by number."""
        return {"tolerance": self._tolerance} if self._auto else {}

    def enough(self, results: Mapping[str, Mapping[str, Variable]], active: np.ndarray) -> bool:
        """Judge an attempt; when it is not enough, move on to the next.

        Args:
            results: named arrays by analysis.
            active: latents that count, ``(n,)`` bool.

        Returns:
            Whether it is the last.
        """
        if not self._auto:
            return True
        largest = largest_error(results, active)
        if largest.error <= self._tolerance:
            said = f"{self._count:,} samples used: every mean's standard error is at most"
        elif self._count >= self._rows:
            said = f"all {self._rows:,} samples used: not every mean's standard error is within"
        else:
            self._count = more(self._count, largest.error / self._tolerance, self._rows)
            return False
        share = f"{self._tolerance:.3g} of it (largest: {largest.what}, {largest.error:.2g})"
        self.notes.append(f"{said} {share}")
        return True


def largest_error(results: Mapping[str, Mapping[str, Variable]], active: np.ndarray) -> Largest:
    """Find the largest relative standard error among the means that a run reports.

    These are the distortion, the KL of each active latent, and its norm where a norm is computed.

    Args:
        results: named arrays by analysis.
        active: which latents count, ``(n,)`` bool.

    Returns:
        The largest, as a share of its mean.
    """
    return max(_errors(results, active), key=lambda found: found.error)


def _errors(results: Mapping[str, Mapping[str, Variable]], active: np.ndarray) -> Iterator[Largest]:
    overview, isometry = results["overview"], results.get("isometry", {})
    yield Largest("the distortion", float(_relative(overview, "distortion")))
    for group, name, text in ((overview, "kl", "KL"), (isometry, "norm", "norm")):
        if f"{name}_mean" in group and active.any():
            errors = np.where(active, _relative(group, name), 0.0)
            worst = int(errors.argmax())
            yield Largest(f"the {text} of latent {worst}", float(errors[worst]))


def _relative(group: Mapping[str, Variable], name: str) -> np.ndarray:
    """Standard error over mean; none for a mean known exactly, and no end where none is known."""
    mean, error = group[f"{name}_mean"].values, group[f"{name}_se"].values
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = np.where(error == 0, 0.0, error / np.abs(mean))
    return np.where(np.isnan(shares), np.inf, shares)


def more(count: int, excess: float, rows: int) -> int:
    """Return how many samples to try after a number that was too few.

    Standard errors fall with the square root of the count, which says how many are needed; the
    next round number from there on is tried.

    Args:
        count: samples tried.
        excess: how many times as large as wanted the largest error was.
        rows: samples that there are, the most that can be tried.
    """
    needed = max(count * min(excess, rows) ** 2, count + 1)
    return min(next(rung for rung in _round_numbers() if rung >= needed), rows)


def _round_numbers() -> Iterator[int]:
    power = FIRST
    while True:
        yield from (int(step * power) for step in _STEPS)
        power *= 10


def _checked(tolerance: float | None) -> float:
    if tolerance is None:
        return TOLERANCE
    if not 0 < tolerance < 1:
        raise OptionError(f"--tolerance lies between 0 and 1, as in 0.01; found {tolerance:g}.")
    return tolerance
