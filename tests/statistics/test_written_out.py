"""Each statistic against the same one written out row by row, or against scipy's."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from scipy import stats
from scipy.special import ndtri

from isoprobe.statistics import draws
from isoprobe.statistics.assisted import AssistedMeans
from isoprobe.statistics.draws import normal, signs
from isoprobe.statistics.jackknife import jackknife
from isoprobe.statistics.quantiles import corrected, student_quantile, student_t95

CHANCE = np.random.default_rng(20261127)
LEVELS = (0.51, 0.6, 0.8, 0.9, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9995)


# ------------------------------------------------------------------ Student's quantiles


def test_students_quantiles_are_scipys_for_any_degrees_and_level() -> None:
    for level in LEVELS:
        for degrees in (1, 2):
            told = stats.t.ppf(level, degrees)
            assert student_quantile(level, degrees) == pytest.approx(told, rel=1e-12)
        for degrees in [*range(8, 70), 200, 10**4, 10**7]:
            told = stats.t.ppf(level, degrees)
            assert student_quantile(level, degrees) == pytest.approx(told, rel=1e-2)
    for degrees in (1, 2, 3, 4):
        assert student_t95(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=2e-7)
    for degrees in range(5, 200):
        told = stats.t.ppf(0.975, degrees)
        assert student_t95(degrees) == pytest.approx(told, rel=2 / degrees**5)
    for degrees in (3, 4):  # one factor for every level
        ratio = [student_quantile(level, degrees) / student_quantile(level, 5) for level in LEVELS]
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-12)


@pytest.mark.parametrize("level", LEVELS[1:])
def test_the_expansion_is_right_to_the_fourth_power_of_the_degrees(level: float) -> None:
    """What it is off by is a series in 1 / degrees that begins with the fifth power."""
    degrees = np.arange(12, 100)
    off = np.array([student_quantile(level, int(d)) - stats.t.ppf(level, d) for d in degrees])
    powers = (12 / degrees[:, None]) ** np.arange(5, 11)
    left = off - powers @ np.linalg.lstsq(powers, off, rcond=None)[0]
    assert np.abs(left).max() < 2e-14 * stats.norm.ppf(level)


def test_intervals_that_hold_at_once_share_their_level() -> None:
    for count, level in ((1, 0.05), (7, 0.05), (7, 0.2)):
        told = stats.t.ppf(1 - level / (2 * count), 63)
        assert corrected(count, 63, level) == pytest.approx(told, rel=1e-6)
    assert corrected(7, 63) == corrected(7, 63, 0.05)
    assert corrected(0, 63) == corrected(1, 63) == student_t95(63)
    assert corrected(1, 0) == student_t95(1)


# ------------------------------------------------------------------ the jackknife


def left_out(above: np.ndarray, below: np.ndarray) -> tuple[float, float, float, float]:
    """A ratio by leaving out one block after another, its ends by the roots of Hall's cubic."""
    count = len(above)
    value = above.sum() / below.sum()
    without = np.array(
        [np.delete(above, i).sum() / np.delete(below, i).sum() for i in range(count)]
    )
    said = without.mean() - without
    a = stats.skew(said) / np.sqrt(count)
    se = np.sqrt((count - 1) / count * (said**2).sum())
    quantile = student_t95(count - 1)
    ends = []
    for q in (quantile, -quantile):
        roots = np.roots([a**2 / 27, a / 3, 1, a / 6 - q])
        ends.append(value - se * roots[np.abs(roots.imag).argmin()].real)
    return value, se, *ends


@pytest.mark.parametrize("blocks", [2, 3, 64])
@pytest.mark.parametrize("empty", [0, 5])
def test_the_jackknife_leaves_out_one_block_after_another(blocks: int, empty: int) -> None:
    above, below = np.exp(CHANCE.normal(size=(2, blocks, 4)))
    above[:, 1] = np.exp(3 * np.log(above[:, 1]))  # of a large skewness, of the other sign below
    above[:, 2] *= -1
    above[0, 3] = 0
    rows = [np.concatenate([part, np.zeros((empty, 4))]) for part in (above, below)]
    found = jackknife(lambda a, b: a / b, *rows)
    for j in range(4):
        expected = left_out(above[:, j], below[:, j])
        every = [float(part[j]) for part in (found.value, found.se, found.low, found.high)]
        np.testing.assert_allclose(every, expected, rtol=1e-9)
    assert (found.low < found.value).all() and (found.value < found.high).all()


def test_the_jackknife_of_blocks_that_are_not_skewed_is_students() -> None:
    sums = np.array([1.0, 2.0, 3.0, 4.0])
    found = jackknife(lambda s, c: s / c, sums, np.ones(4))
    half = student_t95(3) * np.sqrt(5 / 3 / 4)
    assert (float(found.low), float(found.high)) == pytest.approx((2.5 - half, 2.5 + half))
    same = jackknife(lambda s, c: s / c, np.full(4, 2.0), np.ones(4))
    assert (same.value, same.se, same.low, same.high) == (2, 0, 2, 2)


def test_a_block_of_zeros_in_one_sum_counts_and_one_block_claims_nothing() -> None:
    above, below = np.array([0.0, 3.0, 0.0]), np.array([1.0, 2.0, 0.0])
    found = jackknife(lambda a, b: a / b, above, below)
    assert (float(found.value), float(found.se)) == pytest.approx(
        (1, np.hypot(0.75, 0.75) / 2**0.5)
    )
    alone = jackknife(lambda a, b: a / b, above[1:2], below[1:2])
    assert (alone.value, alone.se, alone.low, alone.high) == (1.5, np.inf, -np.inf, np.inf)


# ------------------------------------------------------------------ random numbers

MASK = 2**32 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x32-10 in whole numbers."""
    c, k = list(counter), list(key)
    for _ in range(10):
        one, two = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(two >> 32) ^ c[1] ^ k[0], two & MASK, (one >> 32) ^ c[3] ^ k[1], one & MASK]
        k = [(k[0] + 0x9E3779B9) & MASK, (k[1] + 0xBB67AE85) & MASK]
    return c


def words(seed: int, stream: str, index: int, count: int) -> list[int]:
    digest = hashlib.sha256(f"{seed}:{stream}".encode()).digest()
    key = [int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")]
    place = [index & MASK, index >> 32]
    return [w for block in range(count // 4 + 1) for w in philox([*place, block, 0], key)][:count]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 33, 200])
def test_draws_are_the_generators_words_in_their_order(count: int) -> None:
    index = np.array([0, 7, 2**32 + 5, 2**45 + 3])
    drawn, flipped = normal(11, "noise", index, count), signs(11, "noise", index, count)
    for row, place in enumerate(index.tolist()):
        pairs = np.array(words(11, "noise", place, 2 * count), dtype=object).reshape(count, 2)
        shares = [((int(a) << 32 | int(b)) >> 12) + 0.5 for a, b in pairs]
        np.testing.assert_allclose(drawn[row], ndtri(np.array(shares) / 2**52), rtol=1e-12)
        bits = [w >> i & 1 for w in words(11, "noise", place, count) for i in range(32)]
        np.testing.assert_array_equal(flipped[row], 2.0 * np.array(bits[:count]) - 1)


def test_the_least_and_the_largest_word_are_as_far_out_on_either_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ends = []
    for word in (0, MASK):
        told = np.full((1, 2), word, np.uint64)
        monkeypatch.setattr(draws, "_words", lambda *_, told=told: told)
        ends.append(float(normal(0, "noise", np.zeros(1, int), 1)[0, 0]))
    assert ends[0] == pytest.approx(ndtri(0.5 * 2.0**-52), rel=1e-12)
    assert ends[1] == pytest.approx(-ends[0], rel=1e-3)  # 1 holds fewer digits than 0


# ------------------------------------------------------------------ means of what few samples show


def regression(
    covariates: np.ndarray, seen: np.ndarray, values: np.ndarray, own: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The generalised regression estimator of one item, row by row, ``values (N, T)``."""
    total, count = len(covariates), int(seen.sum())
    if count < 2:
        return np.full(values.shape[1], np.nan), np.full(values.shape[1], np.nan)
    every = np.arange(covariates.shape[1])
    places = next((p for p in (every, own) if count >= 3 * len(p)), every[:1])
    x = covariates[:, places]
    scale = x.std(axis=0)
    x = (x - x.mean(axis=0)) / np.where(scale > 0, scale, 1)
    x[:, 0] = 1
    penalty = np.diag([0.0, *[0.01 * count] * (len(places) - 1)])
    inverse = np.linalg.inv(x[seen].T @ x[seen] + penalty)
    weights = inverse @ x[seen].T @ values[seen]
    residual = values[seen] - x[seen] @ weights
    freedom = max(count - np.trace(inverse @ x[seen].T @ x[seen]), 1)
    noise = (residual**2).sum(axis=0) / freedom
    predicted = x @ weights
    return (
        predicted.mean(axis=0) + residual.mean(axis=0),
        np.sqrt(noise * inverse[0, 0] + predicted.var(axis=0) / total),
    )


@pytest.mark.parametrize("count", [0, 1, 2, 8, 9, 14, 15, 60])
def test_assisted_means_are_the_generalised_regression_estimator(count: int) -> None:
    """Every covariate from three rows for each on, the item's own from three for each of those."""
    chance = np.random.default_rng([3, count])
    rows, items = 80, 2
    own = np.array([[0, 1, 4], [0, 2, 3]])
    covariates = np.hstack([np.ones((rows, 1)), chance.normal(2.0, 3.0, (rows, 4))])
    values = chance.normal(size=(rows, items, 3)) + covariates[:, 1:3, None] - 2
    seen = np.zeros((rows, items), dtype=bool)
    for item in range(items):
        seen[chance.permutation(rows)[:count], item] = True
    means = AssistedMeans(items, 5, own, 3)
    for part in (slice(0, 30), slice(30, rows)):
        means.update(covariates[part], seen[part], np.where(seen[..., None], values, np.nan)[part])
    found, error = means.means()
    for item in range(items):
        mean, off = regression(covariates, seen[:, item], values[:, item], own[item])
        np.testing.assert_allclose(found[item], mean, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(error[item], off, rtol=1e-7, atol=1e-12)
        if count > 1:
            told = values[seen[:, item], item].std(axis=0, ddof=1)
            np.testing.assert_allclose(means.sd()[item], told, rtol=1e-9)
        else:
            np.testing.assert_array_equal(means.sd()[item], 0)


def test_a_covariate_that_is_constant_is_left_out_of_the_fit() -> None:
    chance = np.random.default_rng(4)
    covariates = np.hstack([np.ones((50, 1)), chance.normal(size=(50, 2))])
    values, seen = chance.normal(size=(50, 1, 1)), chance.random((50, 1)) < 0.5
    still = covariates.copy()
    still[:, 2] = 1e3
    means = AssistedMeans(1, 3, np.array([[0, 1]]), 1)
    means.update(still, seen, values)
    x = covariates[:, :2]
    scaled = np.hstack([x[:, :1], (x[:, 1:] - x[:, 1:].mean()) / x[:, 1:].std()])
    mean, _ = regression(
        np.hstack([scaled, np.zeros((50, 1))]), seen[:, 0], values[:, 0], np.arange(2)
    )
    np.testing.assert_allclose(means.means()[0][0], mean, rtol=1e-6)
