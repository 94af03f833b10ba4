"""Rescale latents to isometric coordinates y, in which distance is distance in the metric.

dy_j/dz_j = sqrt(beta/2) / sigma_j (Eq. 16), with sigma_j as a function of mu_j estimated from the
data (Eq. 67) in bins that fill as samples stream by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from isoprobe.statistics.moments import Accumulator
from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    from isoprobe.contracts import Variable


class Groups(Protocol):
    """A result, or anything that gives named arrays by group."""

    def __getitem__(self, group: str, /) -> Mapping[str, Variable]:
        """The named arrays of a group."""
        ...


#: bins are uniform in asinh(mu / 2) up to |mu| of about 500: fine where the prior lives
_EDGE = float(np.arcsinh(250.0))
#: bins to either side that tell how far 1 / sigma_j scatters about its curve
_NEIGHBOURS = 8
_GAUSS_HERMITE = np.polynomial.hermite_e.hermegauss(24)


class ScaleTable(Accumulator):
    """Running sums of mu_j, mu_j^2, 1/sigma_j, sigma_j^2 and sigma_j^-2 in bins of mu_j.

    Args:
        latents: number of dimensions n.
        bins: bins a dimension; fewer for very many latents, to bound memory.
    """

    kept: ClassVar[tuple[str, ...]] = ("sums",)

    def __init__(self, latents: int, bins: int | None = None) -> None:
        self.latents = latents
        self.bins = bins or int(np.clip(2**17 // max(latents, 1), 16, 2048))
        self.sums = np.zeros((6, latents, self.bins))

    def update(self, mean: np.ndarray, std: np.ndarray, variance: np.ndarray | None = None) -> None:
        """Take in mu and sigma, each ``(B, n)``; variances too where they are not sigma^2."""
        position = (np.arcsinh(mean / 2) + _EDGE) / (2 * _EDGE) * self.bins
        cell = np.clip(position.astype(np.int64), 0, self.bins - 1)
        flat = (cell + self.bins * np.arange(self.latents)).ravel()
        wide = std**2 if variance is None else variance
        weights = (None, mean, mean**2, 1 / std, wide, std**-2)
        for row, weight in enumerate(weights):
            counted = np.bincount(
                flat,
                weights=None if weight is None else weight.ravel(),
                minlength=self.latents * self.bins,
            )
            self.sums[row] += counted.reshape(self.latents, self.bins)

    def curve(self, latent: int) -> ScaleCurve:
        """The scale of one latent as a function of its mean."""
        count, mean, square, inverse, variance, steep = self.sums[:, latent]
        used = count > 0
        n = count[used]
        mean = mean[used] / n
        return ScaleCurve(
            weight=n / n.sum(),
            mean=mean,
            within=np.maximum(square[used] / n - mean**2, 0) + variance[used] / n,
            inverse=inverse[used] / n,
            count=n,
            wobble=np.maximum(steep[used] / n - (inverse[used] / n) ** 2, 0),
        )

    def variances(self, beta: float) -> np.ndarray:
        """Var(y_j) of every latent at a given beta, ``(n,)``."""
        return np.array([self.curve(j).variance(beta) for j in range(self.latents)])

    def variance_errors(self, beta: float) -> np.ndarray:
        """Standard errors of :meth:`variances`, ``(n,)``."""
        return np.array([self.curve(j).variance_error(beta) for j in range(self.latents)])

    def isometric_map(self, beta: float) -> IsometricMap:
        """The map z -> y of every latent at a given beta."""
        return IsometricMap([self.curve(j).coordinate(beta) for j in range(self.latents)])


@dataclass(frozen=True)
class ScaleCurve:
    """One latent in bins that hold samples, in ascending order of the mean, each ``(K,)``.

    Attributes:
        weight: share of the samples.
        mean: mean of mu_j in the bin.
        within: variance of the aggregate posterior within the bin: of mu_j, plus E sigma_j^2.
        inverse: E[1 / sigma_j] in the bin.
        count: samples in the bin.
        wobble: Var(1 / sigma_j) in the bin.
    """

    weight: np.ndarray
    mean: np.ndarray
    within: np.ndarray
    inverse: np.ndarray
    count: np.ndarray
    wobble: np.ndarray

    def coordinate(self, beta: float) -> Coordinate:
        """y_j(z): the integral of sqrt(beta/2) / sigma_j from 0 to z (Eq. 67)."""
        return Coordinate(self.mean, np.sqrt(beta / 2) * self.inverse)

    @stated("Importance", "Eq. 16, 67")
    def variance(self, beta: float) -> float:
        """Return Var(y_j) under the aggregate posterior: the exact importance (Eq. 16, 67).

        Each bin is a Gaussian of its mean and variance, integrated by Gauss-Hermite quadrature.
        """
        _, off, probability = self._centred(beta)
        return float((probability * off**2).sum())

    def _centred(self, beta: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Nodes z of the quadrature, y less its mean at them, and their weights, ``(K, Q)``."""
        nodes, weights = _GAUSS_HERMITE
        z = self.mean[:, None] + np.sqrt(self.within)[:, None] * nodes
        y = self.coordinate(beta).to_isometric(z)
        probability = self.weight[:, None] * weights / weights.sum()
        return z, y - (probability * y).sum(), probability

    @stated("Importance")
    def variance_error(self, beta: float) -> float:
        """Standard error of the exact importance, beyond the paper.

        Two parts that do not depend on each other: which samples were drawn, and how well each
        bin knows its slope. To first order a slope moves Var(y) by twice the covariance of y with
        what the slope adds to y.

        Args:
            beta: KL weight.

        Returns:
            In units of the metric; infinite for a single sample.
        """
        z, off, probability = self._centred(beta)
        total = self.count.sum()
        if total < 2:
            return float("inf")
        within = (probability * off**2).sum(axis=1) / self.weight
        drawn = (self.weight * (within - (self.weight * within).sum()) ** 2).sum() / (total - 1)
        order = np.argsort(z, axis=None)
        places, pull = z.ravel()[order], (probability * off).ravel()[order]
        # H(t) = E[(y - E y) 1(z > t)]: how Var(y) answers to slope at t, halved
        above = np.append(pull[::-1].cumsum()[::-1], 0.0)
        # its integral over each bin's share of the axis, the last ones without an end
        edges = np.concatenate([places[:1], (self.mean[1:] + self.mean[:-1]) / 2, places[-1:]])
        area = np.concatenate([[0.0], np.cumsum(above[1:-1] * np.diff(places))])
        answer = 2 * np.sqrt(beta / 2) * np.diff(np.interp(edges, places, area))
        known = (answer**2 * self._unrest() / self.count).sum()
        return float(np.sqrt(drawn + known))

    def _unrest(self) -> np.ndarray:
        """Var(1 / sigma_j) about the curve, ``(K,)``, from each bin and its neighbours."""
        # what samples of a bin differ by, and what bins differ by from the next, where the curve
        # itself hardly changes: most bins of a short run hold a single sample
        apart, degrees = self.count * self.wobble, self.count - 1
        step = np.diff(self.inverse) ** 2 / (1 / self.count[1:] + 1 / self.count[:-1])
        apart = apart + np.append(step, 0.0)
        degrees = degrees + np.append(np.ones_like(step), 0.0)
        window = np.ones(2 * _NEIGHBOURS + 1)
        pooled = np.convolve(apart, window)[_NEIGHBOURS:-_NEIGHBOURS]
        about: np.ndarray = pooled / np.maximum(
            np.convolve(degrees, window)[_NEIGHBOURS:-_NEIGHBOURS], 1
        )
        return about


@dataclass(frozen=True)
class Coordinate:
    """The map z_j -> y_j of one latent: piecewise quadratic, since its slope is piecewise linear.

    Attributes:
        knots: ascending z, ``(K,)``.
        slopes: dy/dz at the knots, positive, ``(K,)``; constant beyond the ends.
    """

    knots: np.ndarray
    slopes: np.ndarray

    def __post_init__(self) -> None:
        steps = np.diff(self.knots) * (self.slopes[1:] + self.slopes[:-1]) / 2
        raised = np.concatenate([[0.0], np.cumsum(steps)])
        object.__setattr__(self, "_heights", raised)
        object.__setattr__(self, "_heights", raised - self._at(np.zeros(1))[0])

    def to_isometric(self, z: np.ndarray) -> np.ndarray:
        """Y of ``z``, any shape; y(0) = 0, in the square root of the metric's units."""
        return self._at(np.asarray(z, dtype=np.float64))

    def from_isometric(self, y: np.ndarray) -> np.ndarray:
        """Inverse of :meth:`to_isometric`, any shape."""
        heights: np.ndarray = self._heights  # type: ignore[attr-defined]
        y = np.asarray(y, dtype=np.float64)
        low = np.maximum(np.searchsorted(heights, y, side="right") - 1, 0)
        rise = y - heights[low]
        slope, bend = self.slopes[low], self._bend(low)
        bend = np.where(rise < 0, 0.0, bend)
        # The root of bend t^2 / 2 + slope t = rise that stays finite as bend goes to 0.
        root = np.sqrt(np.maximum(slope**2 + 2 * bend * rise, 0))
        result: np.ndarray = self.knots[low] + 2 * rise / (slope + root)
        return result

    def _at(self, z: np.ndarray) -> np.ndarray:
        heights: np.ndarray = self._heights  # type: ignore[attr-defined]
        low = np.maximum(np.searchsorted(self.knots, z, side="right") - 1, 0)
        t = z - self.knots[low]
        bend = np.where(t < 0, 0.0, self._bend(low))
        result: np.ndarray = heights[low] + self.slopes[low] * t + bend * t**2 / 2
        return result

    def _bend(self, low: np.ndarray) -> np.ndarray:
        """Second derivative in the interval that starts at knot ``low``; 0 beyond the last."""
        width = np.append(np.diff(self.knots), np.inf)
        change = np.append(np.diff(self.slopes), 0.0)
        bend: np.ndarray = (change / width)[low]
        return bend


@dataclass(frozen=True)
class IsometricMap:
    """The map z -> y of all latents.

    Attributes:
        coordinates: one map a latent.
    """

    coordinates: list[Coordinate]

    @stated("Importance", "Eq. 16, 67")
    def to_isometric(self, z: np.ndarray) -> np.ndarray:
        """Isometric coordinates of latents ``(B, n)``: ``(B, n)`` (Eq. 16, 67)."""
        return np.stack([c.to_isometric(z[:, j]) for j, c in enumerate(self.coordinates)], axis=1)

    @stated("Importance")
    def from_isometric(self, y: np.ndarray) -> np.ndarray:
        """Latents of isometric coordinates ``(B, n)``: ``(B, n)``."""
        return np.stack([c.from_isometric(y[:, j]) for j, c in enumerate(self.coordinates)], axis=1)


@stated("Importance", "Eq. 16")
def map_to_arrays(isometric_map: IsometricMap) -> tuple[np.ndarray, np.ndarray]:
    """Knots and slopes dy/dz of a map (Eq. 16), each ``(n, K)``, padded with NaN at the end."""
    longest = max(len(c.knots) for c in isometric_map.coordinates)
    knots = np.full((len(isometric_map.coordinates), longest), np.nan)
    slopes = knots.copy()
    for j, coordinate in enumerate(isometric_map.coordinates):
        knots[j, : len(coordinate.knots)] = coordinate.knots
        slopes[j, : len(coordinate.knots)] = coordinate.slopes
    return knots, slopes


def map_from_arrays(knots: np.ndarray, slopes: np.ndarray) -> IsometricMap:
    """Inverse of :func:`map_to_arrays`."""
    used = ~np.isnan(knots)
    return IsometricMap(
        [Coordinate(k[u], s[u]) for k, s, u in zip(knots, slopes, used, strict=True)]
    )


def read_map(result: Groups) -> IsometricMap:
    """The map z -> y that an analysis ``coordinates`` stored.

    Args:
        result: a result, or anything that gives its groups by name.

    Returns:
        The map, with ``to_isometric`` and ``from_isometric``.
    """
    group = result["coordinates"]
    return map_from_arrays(group["knots"].values, group["slopes"].values)


def straight_in_y(isometric_map: IsometricMap, ends: np.ndarray, nodes: int) -> np.ndarray:
    """Latents along straight lines in y.

    Args:
        isometric_map: z -> y.
        ends: latents at both ends of each line, ``(P, 2, n)``.
        nodes: points of each.

    Returns:
        ``(P, nodes, n)``; the ends are those given.
    """
    pairs, _, n = ends.shape
    y = isometric_map.to_isometric(ends.reshape(2 * pairs, n)).reshape(pairs, 2, n)
    line = np.linspace(y[:, 0], y[:, 1], nodes, axis=1)
    z = isometric_map.from_isometric(line.reshape(nodes * pairs, n)).reshape(line.shape)
    z[:, 0], z[:, -1] = ends[:, 0], ends[:, 1]
    return z
