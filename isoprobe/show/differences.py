"""List how two results differ in rate, distortion and ELBO, paired where they saw the same rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.theory.differences import gap, paired_gap
from isoprobe.theory.formulas import elbo, excess

if TYPE_CHECKING:
    from collections.abc import Iterator

    from isoprobe.results.reader import Result

#: relative difference up to which two betas count as the same number
_SAME_BETA = 1e-6
_COLUMNS = ("kl", "distortion", "distortion_self")


@dataclass(frozen=True)
class Difference:
    """A mean of the other result less that of the reference.

    Attributes:
        name: ``rate`` in nats, ``distortion`` in units of the metric, or ``elbo`` in nats.
        value: the difference.
        se: its standard error, None where there is none.
        low: lower end of its 95 % interval.
        high: upper end.
        paired: both saw the same rows, and the error is that of differences row by row.
    """

    name: str
    value: float
    se: float | None
    low: float | None
    high: float | None
    paired: bool

    @property
    def text(self) -> str:
        """The difference in words."""
        if self.se is None or self.high is None:
            return f"{self.name} {self.value:+.3g}"
        how = "paired" if self.paired else "independent rows"
        return f"{self.name} {self.value:+.3g} (+-{self.high - self.value:.2g}, 95 %, {how})"


def differences(reference: Result, other: Result) -> tuple[Difference, ...]:
    """Compare the rows of two results.

    Distortions are compared under one metric alone, ELBOs under one metric and one beta; two runs
    of one model take the reference's beta.

    Args:
        reference: what is compared with.
        other: what is compared.

    Returns:
        A difference for each mean that both have.
    """
    both = (reference, other)
    if not all("samples" in result for result in both):  # left out by --no-rows
        return ()
    if not all(name in result["samples"] for result in both for name in _COLUMNS):
        return ()
    ours, theirs = (result.samples(names=list(_COLUMNS)) for result in both)
    paired = _same_rows(reference, other)
    return tuple(
        _difference(name, ours_rows, theirs_rows, paired=paired)
        for name, ours_rows, theirs_rows in _compared(reference, other, ours, theirs)
    )


def _compared(
    reference: Result, other: Result, ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    rates = [rows["kl"].astype(float) for rows in (ours, theirs)]
    yield "rate", rates[0], rates[1]
    if reference.attrs.get("metric") != other.attrs.get("metric"):
        return
    moved = [
        excess(rows["distortion"].astype(float), rows["distortion_self"].astype(float))
        for rows in (ours, theirs)
    ]
    yield "distortion", moved[0], moved[1]
    beta, second = (float(result.attrs.get("beta", math.nan)) for result in (reference, other))
    model = reference.attrs.get("model_sha256")
    same_model = bool(model) and model == other.attrs.get("model_sha256")
    if beta > 0 and (same_model or abs(second / beta - 1) <= _SAME_BETA):
        bounds = [elbo(d, r, beta) for d, r in zip(moved, rates, strict=True)]
        yield "elbo", bounds[0], bounds[1]


def _difference(name: str, ours: np.ndarray, theirs: np.ndarray, *, paired: bool) -> Difference:
    found = paired_gap(ours, theirs) if paired else gap(ours, theirs)
    ends = (float(found.se), float(found.low), float(found.high))
    se, low, high = ends if all(map(math.isfinite, ends)) else (None, None, None)
    return Difference(name, float(found.value), se, low, high, paired)


def _same_rows(reference: Result, other: Result) -> bool:
    """Whether both saw the same rows in the same order."""
    for name in ("data_fingerprint", "samples"):
        if reference.attrs.get(name) != other.attrs.get(name):
            return False
    chosen = ["row" in result["samples"] for result in (reference, other)]
    if chosen == [False, False]:
        return True
    rows = [result.samples(names=["row"])["row"] for result in (reference, other) if all(chosen)]
    return len(rows) == 2 and np.array_equal(rows[0], rows[1])
