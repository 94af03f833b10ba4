"""The order of samples: a longer run extends a shorter one, and each is spread over the data."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from isoprobe.data import order
from isoprobe.data.order import Order, stages

ROWS = 70_000


def test_a_longer_run_extends_a_shorter_one() -> None:
    longest = Order(ROWS, 15_000).at(0, 15_000)
    for samples in (1000, 1500, 5000, 10_000):
        np.testing.assert_array_equal(Order(ROWS, samples).at(0, samples), longest[:samples])


@pytest.mark.parametrize("samples", [1000, 2345, 8500, 10_000, 60_000])
def test_any_number_is_spread_evenly(samples: int) -> None:
    rows = np.sort(Order(ROWS, samples).at(0, samples))
    assert len(np.unique(rows)) == samples
    assert np.diff(np.append(rows, rows[0] + ROWS)).max() <= 2.5 * ROWS / samples
    shares, _ = np.histogram(rows, bins=20, range=(0, ROWS))
    assert np.abs(shares / (samples / 20) - 1).max() < 0.06
    # rows that repeat with a period of the data are not taken by it
    for period in (2, 7, 10):
        assert np.abs(np.bincount(rows % period) / (samples / period) - 1).max() < 0.12


def test_files_are_read_upwards_in_few_sweeps() -> None:
    rows = Order(ROWS, 10_000).at(0, 10_000)
    assert (np.diff(rows) < 0).sum() == len(list(stages(10_000))) - 1 == 6


def test_all_rows_come_as_they_lie() -> None:
    np.testing.assert_array_equal(Order(1797, 1797).at(5, 1797), np.arange(5, 1797))


def test_any_cut_gives_the_same_rows() -> None:
    whole = Order(ROWS, 3333).at(0, 3333)
    cuts = [0, 1, 999, 1000, 1001, 1600, 3100, 3333]
    parts = [Order(ROWS, 3333).at(a, b) for a, b in itertools.pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_a_step_with_short_cycles_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counter-test: evenness comes from the choice of the step."""
    monkeypatch.setattr(order, "_step", lambda _: 7)
    rows = np.sort(Order(ROWS, 1000).at(0, 1000))
    assert np.diff(np.append(rows, rows[0] + ROWS)).max() > 10 * ROWS / 1000
