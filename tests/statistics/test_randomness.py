from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoprobe.statistics import draws as randomness
from isoprobe.statistics.draws import normal, signs

KNOWN_ANSWERS = [  # the test vectors published with Random123
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_the_generator_gives_the_published_answers(counter, key, expected):
    words = randomness._philox(tuple(np.array([c], np.uint64) for c in counter), key)
    assert tuple(int(w[0]) for w in words) == expected


@pytest.mark.parametrize("draw", [normal, signs])
@given(
    index=st.lists(st.integers(0, 2**40), min_size=1, max_size=40),
    count=st.integers(1, 70),
    cut=st.integers(0, 40),
)
@settings(max_examples=30, deadline=None)
def test_batching_and_order_change_nothing(draw, index, count, cut):
    index = np.array(index)
    whole = draw(3, "noise", index, count)
    parts = [draw(3, "noise", part, count) for part in (index[:cut], index[cut:])]
    assert whole.shape == (len(index), count)
    assert np.array_equal(whole, np.concatenate(parts))
    assert np.array_equal(whole[::-1], draw(3, "noise", index[::-1], count))
    assert np.array_equal(whole[:, : count // 2 + 1], draw(3, "noise", index, count // 2 + 1))


def test_normals_have_the_normal_distribution():
    drawn = normal(0, "noise", np.arange(20_000), 10).ravel()
    n = len(drawn)
    assert abs(drawn.mean()) < 4 / np.sqrt(n)
    assert abs(drawn.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((drawn**4).mean() - 3) < 4 * np.sqrt(96 / n)
    assert _kolmogorov(drawn) < 1.95 / np.sqrt(n)  # passed by chance once in a thousand


def test_samples_and_positions_are_uncorrelated():
    drawn = normal(0, "noise", np.arange(20_000), 6)
    correlation = np.corrcoef(drawn.T) - np.eye(6)
    lagged = (drawn[1:] * drawn[:-1]).mean(axis=0)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(20_000)
    assert np.abs(lagged).max() < 4.5 / np.sqrt(20_000)


def test_signs_are_fair_and_independent():
    drawn = signs(0, "probe", np.arange(20_000), 40)
    assert set(np.unique(drawn)) == {-1.0, 1.0}
    assert np.abs(drawn.mean(axis=0)).max() < 4.5 / np.sqrt(20_000)
    assert np.abs(drawn.T @ drawn / 20_000 - np.eye(40)).max() < 5 / np.sqrt(20_000)


@pytest.mark.parametrize("other", [(1, "noise"), (0, "prior"), (-1, "noise"), (2**70, "noise")])
def test_seeds_and_streams_are_independent(other):
    index = np.arange(20_000)
    first, second = normal(0, "noise", index, 4), normal(*other, index, 4)
    assert not np.any(first == second)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 4 / np.sqrt(80_000)


def test_values_stay_what_they_were():
    # a result can be resumed or repeated by a later version only while these hold
    frozen = [[-0.27428160572412047, 0.9219801679595994], [1.5455031856271253, 0.4397971566197536]]
    assert np.allclose(normal(0, "noise", np.array([0, 1]), 2), frozen, rtol=1e-13, atol=0)


def _kolmogorov(drawn: np.ndarray) -> float:
    from scipy.stats import norm

    expected = norm.cdf(np.sort(drawn))
    n = len(drawn)
    steps = np.arange(n + 1) / n
    return float(max((steps[1:] - expected).max(), (expected - steps[:-1]).max()))
