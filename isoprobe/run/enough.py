"""How many samples are enough: until what people come for is known to a wanted relative error.

A longer run extends a shorter one, so that shards are added until the errors are small enough; the
numbers tried are the ends of the stages of the order. A result equals, to the last bit, what
``--samples N`` gives. Where all rows are needed, they are taken as they lie.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.data.order import round_numbers
from isoprobe.errors import OptionError
from isoprobe.statistics.moments import BLOCKS, student_t95

if TYPE_CHECKING:
    from isoprobe.contracts import Beta, Variable

#: relative standard error that is enough when no other is asked for
TOLERANCE = 0.01


@dataclass(frozen=True)
class Largest:
    """The worst known of the reported means.

    Attributes:
        what: the mean, in words.
        error: its relative standard error.
        looked_at: every mean that was looked at, in words.
    """

    what: str
    error: float
    looked_at: str = ""


@dataclass(frozen=True)
class Enough:
    """The errors that are small enough.

    Attributes:
        tolerance: the largest relative standard error.
        rows: samples that there are.
    """

    tolerance: float
    rows: int

    @classmethod
    def asked(cls, samples: int | str | None, tolerance: float | None, rows: int) -> Enough | None:
        """Return what ``--samples auto`` asks for; None for a given number of samples.

        Raises:
            OptionError: for a tolerance that means nothing.
        """
        if samples != "auto":
            if tolerance is not None:
                raise OptionError(
                    "--tolerance belongs to --samples auto; add that, or leave it out."
                )
            return None
        if tolerance is not None and not 0 < tolerance < 1:
            raise OptionError(f"--tolerance lies between 0 and 1, as in 0.01; found {tolerance:g}.")
        return cls(TOLERANCE if tolerance is None else tolerance, rows)

    @property
    def first(self) -> int:
        """Samples to begin with."""
        return min(next(round_numbers()), self.rows)

    def after(self, count: int, largest: Largest) -> int:
        """Return how many samples to take after a number of them: the same when it is enough."""
        if largest.error <= self.tolerance or count >= self.rows:
            return count
        return more(count, largest.error / self.tolerance, self.rows)

    def told(self, count: int, largest: Largest) -> str:
        """Say why a number of samples is the last."""
        if largest.error <= self.tolerance:
            said = f"{count:,} samples used: the standard errors looked at are at most"
        else:
            said = f"all {self.rows:,} samples used: not every standard error looked at is within"
        return (
            f"{said} {self.tolerance:.3g} of the value (largest: {largest.what}, "
            f"{largest.error:.2g}); looked at: {largest.looked_at}"
        )


def largest_error(
    results: Mapping[str, Mapping[str, Variable]], active: np.ndarray, beta: Beta
) -> Largest:
    """Find the largest relative standard error among what a run is made for.

    That is the beta recovered, the distortion, and of each used latent its KL and its norm, where
    these are computed.

    Args:
        results: named arrays by analysis.
        active: which latents are used, ``(n,)`` bool.
        beta: as resolved.

    Returns:
        The largest, as a share of its mean.
    """
    found = list(_errors(results, active, beta))
    worst = max((latents for latents, _ in found), key=lambda largest: largest.error)
    return replace(worst, looked_at=_listed([name for _, name in found]))


def _errors(
    results: Mapping[str, Mapping[str, Variable]], active: np.ndarray, beta: Beta
) -> Iterator[tuple[Largest, str]]:
    """The worst of each kind, and how the kind is called."""
    overview, isometry = results["overview"], results.get("isometry", {})
    if beta.recovered is not None and beta.ci95 is not None:
        half = (beta.ci95[1] - beta.ci95[0]) / 2 / student_t95(BLOCKS - 1)
        error = half / abs(beta.recovered) if beta.recovered else math.inf
        yield Largest("the recovered beta", math.inf if math.isnan(error) else error), "beta"
    yield Largest("the distortion", float(_relative(overview, "distortion"))), "distortion"
    norm = "norm" if "norm_mean" in isometry else "stationary_norm"
    for group, name, text in ((overview, "kl", "KL"), (isometry, norm, "norm")):
        if f"{name}_mean" in group and active.any():
            errors = np.where(active, _relative(group, name), 0.0)
            worst = int(errors.argmax())
            kind = f"{text} of each used latent ({int(active.sum())} of {len(active)})"
            yield Largest(f"the {text} of latent {worst}", float(errors[worst])), kind


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + (" and " if len(names) > 1 else "") + names[-1]


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
    return min(next(rung for rung in round_numbers() if rung >= needed), rows)
