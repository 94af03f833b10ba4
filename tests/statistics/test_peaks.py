"""Largest values and upper quantiles: numpy's, whatever the batches."""

from __future__ import annotations

import numpy as np
import pytest

from isoprobe.statistics.moments import Moments
from isoprobe.statistics.peaks import HIGH, LOW, Peaks


def test_quantiles_are_numpys_to_a_bin() -> None:
    values = np.random.default_rng(0).lognormal(-1, 2, (5000, 3))
    running = Peaks(3)
    for part in np.array_split(values, 7):
        running.update(part)
    width = (HIGH / LOW) ** (1 / running.bins)
    np.testing.assert_array_equal(running.largest, values.max(axis=0))
    for level in (0.5, 0.99, 0.999):
        exact = np.quantile(values, level, axis=0, method="inverted_cdf")
        found = running.quantile(level)
        assert ((found >= exact) & (found <= exact * width * (1 + 1e-9))).all()


def test_parts_make_the_whole_and_states_travel() -> None:
    values = np.random.default_rng(1).exponential(size=(400, 2))
    whole, first, second = Peaks(2), Peaks(2), Peaks(2)
    whole.update(values)
    first.update(values[:150])
    second.update(values[150:])
    restored = Peaks(2)
    restored.restore(first.state())
    restored.merge(second)
    for name, array in whole.state().items():
        np.testing.assert_array_equal(restored.state()[name], array)
    with pytest.raises(TypeError, match="cannot merge"):
        restored.merge(Moments())


def test_ends_and_nothing() -> None:
    peaks = Peaks(2)
    assert np.isnan(peaks.quantile(0.9)).all()
    peaks.update(np.zeros((0, 2)))
    peaks.update(np.array([[0.0, 1e9], [0.0, 1e9]]))
    np.testing.assert_array_equal(peaks.quantile(0.5), [0.0, 1e9])
    assert np.isnan(peaks.quantile(0.6)).all()  # of two rows none lies above it
