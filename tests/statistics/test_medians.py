"""The interval of a median: its ranks by the binomial, and that it covers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from isoprobe.statistics.medians import median_interval


@pytest.mark.parametrize("count", [2, 4, 5])
def test_too_few_values_have_no_interval(count: int) -> None:
    """The smallest and largest of five hold the median in 1 - 2 / 32 = 93.75 % of cases."""
    assert all(map(math.isnan, median_interval(np.ones(1))))
    assert all(map(math.isnan, median_interval(np.arange(float(count)))))
    low, high = median_interval(np.arange(float(count)), 1 - 2 / 2**count - 1e-9)
    assert (low, high) == pytest.approx((0, count - 1), abs=1e-6)


def test_ends_lie_between_those_of_neighbouring_ranks() -> None:
    """Of 24 values ranks 7 and 18 hold it in 97.7 % of cases, 8 and 17 in 93.6 %."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, 25.0))
    low, high = median_interval(values)
    assert 7 < low < 8 and high == pytest.approx(25 - low)
    assert median_interval(values, 0.9773)[0] == pytest.approx(7, abs=0.02)
    assert median_interval(values, 0.9361)[0] == pytest.approx(8, abs=0.02)


@pytest.mark.parametrize("count", [6, 9, 24, 60, 201])
@pytest.mark.parametrize("shape", ["normal", "exponential", "standard_cauchy"])
def test_it_covers_whatever_the_distribution(count: int, shape: str) -> None:
    generator = np.random.default_rng(count)
    middle = math.log(2) if shape == "exponential" else 0.0
    draws = getattr(generator, shape)(size=(2000, count))
    ends = np.array([median_interval(row) for row in draws])
    held = np.mean((ends[:, 0] <= middle) & (middle <= ends[:, 1]))
    assert 0.935 < held < 0.97
