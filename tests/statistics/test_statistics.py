"""Running statistics equal numpy's on all samples at once, however the samples arrive."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from copy import deepcopy

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isoprobe.statistics.jackknife import jackknife
from isoprobe.statistics.moments import BLOCKS, Accumulator, BlockSums, Estimate, Moments
from isoprobe.statistics.quantiles import student_t95


def _pieces(values: np.ndarray, cuts: list[int]) -> list[slice]:
    edges = [0, *sorted(c % (len(values) + 1) for c in cuts), len(values)]
    return [slice(a, b) for a, b in itertools.pairwise(edges)]


@settings(deadline=None, max_examples=50)
@given(
    seed=st.integers(0, 1000),
    count=st.integers(1, 300),
    cuts=st.lists(st.integers(0, 10_000), max_size=6),
    shift=st.sampled_from([0.0, 1e6]),
)
def test_moments_equal_numpy_for_any_batches(
    seed: int, count: int, cuts: list[int], shift: float
) -> None:
    values = np.random.default_rng(seed).normal(shift, 2.0, (count, 3))
    running, merged = Moments((3,)), Moments((3,))
    for piece in _pieces(values, cuts):
        running.update(values[piece])
        part = Moments((3,))
        part.update(values[piece])
        merged.merge(part)
    for moments in (running, merged):
        # a mean near 0 is as exact as its addends, not as itself
        scale = np.abs(values).mean()
        np.testing.assert_allclose(moments.mean, values.mean(0), rtol=0, atol=1e-13 * scale)
        if count > 1:
            np.testing.assert_allclose(moments.sd, values.std(0, ddof=1), rtol=1e-7)


def test_moments_keep_a_small_deviation_on_a_large_mean() -> None:
    """A sum of squares would lose every digit here."""
    values = 1e8 + np.random.default_rng(0).normal(size=(10_000, 1))
    moments = Moments((1,))
    for part in np.array_split(values, 37):
        moments.update(part)
    np.testing.assert_allclose(moments.sd, values.std(0, ddof=1), rtol=1e-9)


@settings(deadline=None, max_examples=30)
@given(count=st.integers(1, 500), cuts=st.lists(st.integers(0, 10_000), max_size=6))
def test_block_sums_do_not_depend_on_batches(count: int, cuts: list[int]) -> None:
    values = np.random.default_rng(count).normal(size=(count, 2))
    index = np.arange(count)
    whole, pieces = BlockSums((2,)), BlockSums((2,))
    whole.update(index, values)
    for piece in _pieces(values, cuts):
        if values[piece].size:
            pieces.update(index[piece], values[piece])
    np.testing.assert_array_equal(whole.counts, pieces.counts)
    np.testing.assert_allclose(whole.sums, pieces.sums, atol=1e-12)
    np.testing.assert_allclose(whole.mean(), values.mean(0), atol=1e-12)


def test_saved_state_continues_to_the_same_numbers() -> None:
    values = np.random.default_rng(1).normal(size=(200, 2))
    first = Moments((2,))
    first.update(values[:77])
    second = Moments((2,))
    second.restore({k: v.copy() for k, v in first.state().items()})
    for moments in (first, second):
        moments.update(values[77:])
    np.testing.assert_array_equal(first.mean, second.mean)
    np.testing.assert_array_equal(first.squares, second.squares)


class Named(Moments):
    """Moments that have a word beside them."""

    word = "height"


class Wider(Moments):
    """Moments that keep more."""

    kept = (*Moments.kept, "rows")
    rows = 0


class Forgetful(Accumulator):
    """Names nothing, and writes no more than two of the three."""

    def state(self) -> dict[str, np.ndarray]:
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        del state


class Written(Forgetful):
    """Writes all three."""

    seen = 0

    def merge(self, other: Accumulator) -> None:
        self.seen += isinstance(other, Written)


def test_kinds_that_keep_the_same_merge_both_ways() -> None:
    values = np.random.default_rng(2).normal(size=(50, 1))
    for first, second in [(Moments((1,)), Named((1,))), (Named((1,)), Moments((1,)))]:
        first.update(values[:20])
        second.update(values[20:])
        first.merge(second)
        np.testing.assert_allclose(first.sd, values.std(0, ddof=1), rtol=1e-9)
    for other in (Moments((1,)), BlockSums((1,))):
        with pytest.raises(TypeError, match=r"^Wider cannot merge with (Moments|BlockSums)$"):
            Wider((1,)).merge(other)
    with pytest.raises(TypeError, match="^BlockSums cannot merge with Moments$"):
        BlockSums((1,)).merge(Moments((1,)))


def test_an_accumulator_that_could_not_be_saved_is_not_made() -> None:
    with pytest.raises(
        TypeError, match="^accumulator Forgetful does not say what it keeps: [^\n]+$"
    ):
        Forgetful()
    written = deepcopy(Written())
    written.merge(Written())
    assert written.seen == 1


def ratio(above: np.ndarray, below: np.ndarray) -> Estimate:
    return jackknife(lambda a, b: a / b, above, below)


def test_the_interval_of_a_skewed_mean_covers_the_truth_as_often_as_it_says() -> None:
    """Log-normal values: Student's own intervals hold in 89 % of these sets."""
    generator = np.random.default_rng(5)
    spread, repeats, count = 1.2, 1000, 64
    truth, plain, covered = np.exp(spread**2 / 2), 0, 0
    for _ in range(repeats):
        values = np.exp(spread * generator.normal(size=count))
        sums = BlockSums((2,))
        sums.update(np.arange(count), np.stack([values, np.ones(count)], axis=1))
        found = ratio(sums.sums[:, 0], sums.sums[:, 1])
        covered += bool(found.low <= truth <= found.high)
        plain += bool(abs(found.value - truth) <= student_t95(BLOCKS - 1) * found.se)
    # a thousand repeats have a standard error of 0.8 to 1 %
    assert plain / repeats < 0.91
    assert covered / repeats > 0.92


def test_ratio_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator = np.random.default_rng(2)
    truth, covered, repeats, n = 2.5, 0, 400, 640
    for _ in range(repeats):
        denominator = generator.gamma(2.0, size=n)
        numerator = truth * denominator + generator.normal(0, 2.0, n)
        sums = BlockSums((2,))
        sums.update(np.arange(n), np.stack([numerator, denominator], axis=1))
        found = ratio(sums.sums[:, 0], sums.sums[:, 1])
        covered += bool(found.low <= truth <= found.high)
    # 95 % nominal; 400 repeats have a standard error of 1.1 %.
    assert 0.917 <= covered / repeats <= 0.983


def test_ratio_of_one_block_claims_nothing() -> None:
    found = ratio(np.array([2.0] + [0.0] * (BLOCKS - 1)), np.array([1.0] + [0.0] * (BLOCKS - 1)))
    assert found.value == 2.0
    assert np.isinf(found.high)


@pytest.mark.parametrize(
    ("degrees", "quantile"), [(1, 12.706), (5, 2.5706), (10, 2.2281), (30, 2.0423), (63, 1.9983)]
)
def test_student_quantile(degrees: int, quantile: float) -> None:
    assert student_t95(degrees) == pytest.approx(quantile, rel=2e-3)
