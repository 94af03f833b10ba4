"""Bins, curves and maps z -> y against integrals of the slope."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import integrate, stats

from isoprobe.theory.isometric import (
    Coordinate,
    IsometricMap,
    ScaleTable,
    map_from_arrays,
    map_to_arrays,
    straight_in_y,
)
from tests.theory.codes import same

CHANCE = np.random.default_rng(11)


BETA = 0.3


def table(
    rows: int = 400, bins: int | None = 24
) -> tuple[ScaleTable, np.ndarray, np.ndarray, np.ndarray]:
    chance = np.random.default_rng(13)
    mean = chance.normal(0.2, 1.0, (rows, 2)) * [1.0, 40.0]
    std = 0.3 + 0.2 * np.tanh(mean) + 0.05 * chance.random((rows, 2))
    made, wide = ScaleTable(2, bins), std**2 + 0.1
    made.update(mean[:150], std[:150], wide[:150])
    made.update(mean[150:], std[150:], wide[150:])
    return made, mean, std, wide


def test_bins_are_even_in_asinh_and_hold_their_moments() -> None:
    made, mean, std, wide = table()
    edges = 2 * np.sinh(np.linspace(-1, 1, 25) * np.arcsinh(250.0))
    for j in range(2):
        place = np.searchsorted(edges, mean[:, j], side="right") - 1
        used = np.unique(place)
        curve = made.curve(j)
        for name, values in {
            "count": [(place == b).sum() for b in used],
            "weight": [(place == b).mean() for b in used],
            "mean": [mean[place == b, j].mean() for b in used],
            "inverse": [(1 / std[place == b, j]).mean() for b in used],
            "within": [mean[place == b, j].var() + wide[place == b, j].mean() for b in used],
            "wobble": [(1 / std[place == b, j]).var() for b in used],
        }.items():
            same(getattr(curve, name), values, 1e-8, 1e-10)
    # of one sample the variances are rounding alone
    lonely, places = ScaleTable(1), np.sinh(np.linspace(-5, 5, 300))[:, None]
    lonely.update(places, np.linspace(0.1, 0.9, 300)[:, None], np.zeros((300, 1)))
    alone = lonely.curve(0)
    assert (alone.count == 1).sum() > 100
    assert alone.within.min() == alone.wobble.min() == 0
    plain = ScaleTable(2, 24)
    plain.update(mean, std)
    same(plain.sums[4], [np.bincount(np.searchsorted(edges, mean[:, j], side="right") - 1,
                                     std[:, j] ** 2, minlength=24) for j in range(2)])  # fmt: skip
    far = ScaleTable(1, 24)
    far.update(np.array([[-1e9], [1e9], [-499.0], [499.0]]), np.ones((4, 1)))
    assert far.sums[0, 0].nonzero()[0].tolist() == [0, 23] and far.sums[0, 0, 0] == 2
    assert [ScaleTable(n).bins for n in (1, 64, 128, 10_000, 0)] == [2048, 2048, 1024, 16, 2048]


def test_the_variance_of_y_is_that_of_its_bins_gaussians() -> None:
    """By a quadrature of twenty thousand points a bin; the slope is linear between the bins."""
    made, *_ = table()
    found = made.variances(BETA)
    for j in range(2):
        curve = made.curve(j)
        y = made.isometric_map(BETA).coordinates[j]
        shares = (np.arange(20_000) + 0.5) / 20_000
        z = curve.mean[:, None] + np.sqrt(curve.within)[:, None] * stats.norm.ppf(shares)
        values = y.to_isometric(z)
        first = curve.weight @ values.mean(axis=1)
        second = curve.weight @ ((values - first) ** 2).mean(axis=1)
        assert found[j] == pytest.approx(second, rel=2e-3)
        # the map itself: sqrt(beta/2) times the integral of 1 / sigma along the curve
        for end in (-1.3, 0.4, 2.2, 90.0):
            slope = np.interp(np.linspace(0, end, 200_001), curve.mean, curve.inverse)
            whole = math.sqrt(BETA / 2) * integrate.trapezoid(slope, dx=end / 200_000)
            assert float(y.to_isometric(np.array(end))) == pytest.approx(whole, rel=1e-6)


def test_the_error_of_the_variance_has_its_two_parts() -> None:
    """Which samples were drawn, and what each bin's slope moves, by differences."""
    made, *_ = table()
    for j in range(2):
        curve = made.curve(j)
        nodes, weights = np.polynomial.hermite_e.hermegauss(24)
        z = curve.mean[:, None] + np.sqrt(curve.within)[:, None] * nodes
        share = curve.weight[:, None] * weights / weights.sum()

        y = made.isometric_map(BETA).coordinates[j].to_isometric(z)
        off = y - (share * y).sum()
        within = (share * off**2).sum(axis=1) / curve.weight
        drawn = (np.repeat(within, curve.count.astype(int))).var(ddof=1) / curve.count.sum()
        known = 0.0
        for b, unrest in enumerate(unrests(curve.count, curve.inverse, curve.wobble)):
            # d Var(y) / d slope_b = 2 Cov(y, what the slope adds), with y of the smooth map
            edges = np.r_[z.min(), (curve.mean[1:] + curve.mean[:-1]) / 2, z.max()]
            added = np.clip(z, edges[b], edges[b + 1])
            answer = 2 * math.sqrt(BETA / 2) * (share * off * added).sum()
            known += answer**2 * unrest / curve.count[b]
        assert made.variance_errors(BETA)[j] == pytest.approx(math.sqrt(drawn + known), rel=1e-6)
    alone = ScaleTable(1, 24)
    alone.update(np.zeros((1, 1)), np.ones((1, 1)))
    assert alone.variance_errors(BETA)[0] == math.inf
    alone.update(np.ones((1, 1)), np.ones((1, 1)))
    assert math.isfinite(alone.variance_errors(BETA)[0])


def unrests(count: np.ndarray, inverse: np.ndarray, wobble: np.ndarray) -> list[float]:
    """Within bins, and between neighbours, pooled over eight bins to either side."""
    found = []
    for b in range(len(count)):
        near = range(max(b - 8, 0), min(b + 9, len(count)))
        apart = sum(count[i] * wobble[i] for i in near)
        degrees = sum(count[i] - 1 for i in near)
        for i in near:
            if i + 1 < len(count):
                apart += (inverse[i + 1] - inverse[i]) ** 2 / (1 / count[i] + 1 / count[i + 1])
                degrees += 1
        found.append(apart / max(degrees, 1))
    return found


def test_a_coordinate_is_the_integral_of_its_slope_and_its_inverse_comes_back() -> None:
    knots, slopes = np.array([-1.0, -0.2, 0.5, 2.0]), np.array([3.0, 0.5, 4.0, 1.0])
    coordinate = Coordinate(knots, slopes)
    # a slope that falls to nearly nothing takes a root of nearly nothing
    steep = Coordinate(np.array([0.0, 1.0]), np.array([1e9, 1e-9]))
    end = float(steep.to_isometric(np.array(1.0)))
    for near in (np.nextafter(end, 0), end, end * (1 - 1e-12)):
        assert float(steep.from_isometric(np.array(near))) == pytest.approx(1, abs=1e-5)
    for z in (-9.0, -1.0, -0.7, -0.2, 0.0, 0.3, 0.5, 1.1, 2.0, 7.0):
        fine = np.linspace(0, z, 100_001)
        told = integrate.trapezoid(np.interp(fine, knots, slopes), fine)
        y = coordinate.to_isometric(np.array(z))
        assert float(y) == pytest.approx(told, abs=1e-8)
        assert float(coordinate.from_isometric(y)) == pytest.approx(z, abs=1e-12)
    assert coordinate.to_isometric(np.zeros((2, 3))).shape == (2, 3)


def test_maps_are_stored_with_their_ends_padded_and_walked_straight_in_y() -> None:
    one = Coordinate(np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0]))
    two = Coordinate(np.array([0.0]), np.array([4.0]))
    made = IsometricMap([one, two])
    knots, slopes = map_to_arrays(made)
    same(knots, [[0, 1, 2], [0, np.nan, np.nan]])
    same(slopes, [[1, 2, 3], [4, np.nan, np.nan]])
    z = CHANCE.normal(size=(7, 2))
    back = map_from_arrays(knots, slopes)
    same(back.to_isometric(z), np.stack([one.to_isometric(z[:, 0]), 4 * z[:, 1]], axis=1))
    same(back.from_isometric(back.to_isometric(z)), z)
    ends = CHANCE.normal(size=(3, 2, 2)) * 1.7
    line = straight_in_y(made, ends, 5)
    assert line.shape == (3, 5, 2)
    np.testing.assert_array_equal(line[:, [0, -1]], ends)
    for pair, (a, b) in zip(line, ends, strict=True):
        y = made.to_isometric(pair)
        start, end = made.to_isometric(a[None])[0], made.to_isometric(b[None])[0]
        same(y, start + np.linspace(0, 1, 5)[:, None] * (end - start), 1e-9, 1e-9)
