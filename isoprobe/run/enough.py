"""Decide how many samples are enough: until what people come for is known to a wanted error.

A longer run extends a shorter one, so that shards are added until the errors are small enough; the
numbers tried are the ends of the stages of the order. What the decoder is asked for equals, to the
last bit, what ``--samples N`` gives. Where all rows are needed, they are taken as they lie.

Derivatives of the decoder cost n passes and more, and are soon known well enough; rates and
importances cost one pass of the encoder and need many rows (the relative error of a variance is
sqrt(2/N) whatever is done to the decoder). So these see rows beyond the samples too.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.data.order import round_numbers
from isoprobe.errors import OptionError
from isoprobe.statistics.moments import BLOCKS
from isoprobe.statistics.quantiles import student_t95
from isoprobe.theory.judge import Answer, Level

if TYPE_CHECKING:
    from isoprobe.contracts import Beta, Variable

#: relative standard error that is enough when no other is asked for
TOLERANCE = 0.02
#: samples that are taken at most when no error is asked for, and rows that are encoded at least
DEFAULT_LIMIT = 10_000
#: analyses whose errors decide how many samples go through the decoder
DECIDING = ("overview", "isometry")


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
        rows: that there are.
        limit: samples that are taken at most.
    """

    tolerance: float
    rows: int
    limit: int

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
        if tolerance is None:
            return cls(TOLERANCE, rows, min(rows, DEFAULT_LIMIT))
        return cls(tolerance, rows, rows)

    def first(self, least: int = 0) -> int:
        """Return how many samples to begin with: a round number, not below another one."""
        return min(next(rung for rung in round_numbers() if rung >= least), self.limit)

    def after(self, count: int, largest: Largest) -> int:
        """Return how many samples to take after a number of them: the same when it is enough."""
        if largest.error <= self.tolerance or count >= self.limit:
            return count
        return more(count, largest.error / self.tolerance, self.limit)

    def decided(self, count: int, results: Mapping[str, Mapping[str, Variable]]) -> int:
        """Return how many samples would decide a verdict that so many leave undecided.

        Args:
            count: samples tried.
            results: named arrays by analysis.

        Returns:
            The same count where the verdict is known, or is not to be had within the limit.
        """
        judged = results.get("diagnosis", {})
        if "level" not in judged or str(judged["level"].values) != Level.UNDECIDED:
            return count
        names = ("answer", "size", "error", "tolerance")
        answer, size, error, tolerance = (judged[name].values for name in names)
        with np.errstate(divide="ignore", invalid="ignore"):
            excess = error / np.abs(tolerance - size)
        open_ = excess[(answer == Answer.CANNOT_TELL) & (excess > 1)]
        within = open_[count * open_**2 <= self.limit]
        return more(count, float(within.max()), self.limit) if len(within) else count

    def encoded(self, count: int, largest: Largest | None = None) -> int:
        """Return how many rows to encode after a number of them: the same when it is enough."""
        if largest is None:
            return min(max(count, DEFAULT_LIMIT), self.rows)
        if largest.error <= self.tolerance or count >= self.rows:
            return count
        return more(count, largest.error / self.tolerance, self.rows)

    def told(self, count: int, largest: Largest) -> str:
        """Say why a number of samples is the last."""
        which = "all " if count >= self.rows else ""
        if largest.error <= self.tolerance:
            said = f"{count:,} samples used: the standard errors looked at are at most"
        else:
            said = f"{which}{count:,} samples used: not every standard error looked at is within"
        return (
            f"{said} {self.tolerance:.3g} of the value (largest: {largest.what}, "
            f"{largest.error:.2g}); looked at: {largest.looked_at}"
        )


def encoded_too(rows: int, largest: Largest) -> str:
    """Say that more rows than the samples were encoded."""
    return (
        f"{rows:,} rows encoded: rates, moments and importance rest on all of them (largest error: "
        f"{largest.what}, {largest.error:.2g})"
    )


def largest_rate_error(overview: Mapping[str, Variable], active: np.ndarray) -> Largest:
    """Find the largest relative standard error among the rates of used latents.

    Args:
        overview: its named arrays.
        active: which latents are used, ``(n,)`` bool.

    Returns:
        The largest, as a share of its mean; zero where no latent is used.
    """
    found = list(_of_latents(overview, "kl", "KL", active))
    return found[0][0] if found else Largest("no latent is used", 0.0)


def largest_error(
    results: Mapping[str, Mapping[str, Variable]], active: np.ndarray, beta: Beta
) -> Largest:
    """Find the largest relative standard error among what a run asks the decoder for.

    That is the beta recovered, the distortion, and the norm of each used latent, where these are
    computed.

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
    yield from _of_latents(isometry, norm, "norm", active)


def _of_latents(
    group: Mapping[str, Variable], name: str, text: str, active: np.ndarray
) -> Iterator[tuple[Largest, str]]:
    """The worst of the used latents, where there are some."""
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
