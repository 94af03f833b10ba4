"""Information of labels against dense integrals, the linear probe against scipy's optimum."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import integrate, optimize, special, stats

from isoprobe.theory import information, linear_probe
from isoprobe.theory.information import Factor, LatentInformation, factor, latent_information
from tests.theory.codes import same, spread

CHANCE = np.random.default_rng(11)


def test_columns_are_cut_into_tenths_beyond_ten_fractions_or_a_hundred_numbers() -> None:
    for values, quantiles in (
        (np.arange(10) / 3, False), (np.arange(11) / 3, True), (np.arange(11.0), False),
        (np.arange(100), False), (np.arange(101), True), (np.arange(101.0), True),
        (np.arange(100.0), False),
    ):  # fmt: skip
        found = factor(values)
        assert found.quantiles is quantiles
        assert found.classes == (10 if quantiles else len(values))
    values = CHANCE.normal(size=997)
    told = np.searchsorted(np.quantile(values, np.linspace(0.1, 0.9, 9)), values, side="right")
    np.testing.assert_array_equal(factor(values).codes, told)
    ties = np.r_[np.zeros(30), np.arange(1, 12) / 3]
    assert factor(ties).codes.tolist() == np.unique(
        np.searchsorted(np.unique(np.quantile(ties, np.arange(1, 10) / 10)), ties, side="right"),
        return_inverse=True,
    )[1].tolist()  # fmt: skip
    lonely = Factor("", np.array([0, 0, 1, 1]), 3)
    same(lonely.shares, [0.5, 0.5, 0])
    assert lonely.entropy == 1
    with pytest.raises(ValueError, match="not finite"):
        factor(np.array([1.0, np.inf]))


def grid_information(
    mean: np.ndarray, std: np.ndarray, codes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Plug-in and left-out values by row, densely on a fine grid of its own."""
    count, classes = len(codes), int(codes.max()) + 1
    z = np.linspace((mean - 8 * std).min(), (mean + 8 * std).max(), 4001)
    density = stats.norm.pdf(z, mean[:, None], std[:, None])
    indicators = np.eye(classes)[codes]
    sums = indicators.T @ density
    total, shares = sums.sum(axis=0), indicators.mean(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.log2(sums / (shares[:, None] * count) / (total / count))
        ratios = np.where(np.isfinite(ratios), ratios, 0)
        others = total - density
        guess = (sums[codes] - density) / others / shares[codes, None]
        guess = np.where(others > 1e-9 * total, guess.clip(0), 1)
    plug_in = integrate.trapezoid(density * ratios[codes], z)
    tried = [
        integrate.trapezoid(density * np.log2((1 - e) * guess + e), z)
        for e in (0.001, 0.01, 0.1, 1.0)
    ]
    return plug_in, max(tried, key=lambda rows: rows.mean())


@pytest.mark.parametrize("narrow", [0.02, 0.1, 0.5])
def test_information_of_labels_is_that_of_dense_integrals(narrow: float) -> None:
    mean, std = spread(120, 3, seed=8, narrow=narrow)
    noisy = mean + 0.4 * np.random.default_rng(9).normal(size=mean.shape)
    factors = [factor((noisy[:, 0] > 0.3) + 2 * (noisy[:, 2] > 0)), factor(noisy[:, 1] > 0)]
    found = latent_information(mean, std, factors, seed=5)
    rows: dict[tuple[int, int], np.ndarray] = {}
    for k, one in enumerate(factors):
        for j in range(3):
            above, below = grid_information(mean[:, j], std[:, j], one.codes)
            rows[k, j] = 0.5 * (above + below)
            told = {
                "plug_in": above.mean(), "lower": below.mean(), "bits": rows[k, j].mean(),
                "low": below.mean() - 2 * stats.sem(below),
                "high": above.mean() + 2 * stats.sem(above),
            }  # fmt: skip
            for name, value in told.items():
                assert getattr(found, name)[k, j] == pytest.approx(value, abs=1e-3), name
        ranked = np.argsort([-rows[k, j].mean() for j in range(3)])
        assert (found.first[k], found.second[k]) == tuple(ranked[:2])
        apart = (rows[k, ranked[0]] - rows[k, ranked[1]]) / one.entropy
        assert found.gap[k] == pytest.approx(apart.mean(), abs=1e-3)
        assert found.gap_se[k] == pytest.approx(stats.sem(apart), abs=2e-4)
    chance = np.random.default_rng((5, information._STREAM))
    shuffles = [chance.permutation(120) for _ in range(5)]
    by_chance = [grid_information(mean[:, 0], std[:, 0], factors[0].codes[o])[0] for o in shuffles]
    assert found.permuted[0, 0] == pytest.approx(np.mean(by_chance), abs=2e-4)
    same(found.widened, 0)


def test_labels_that_rows_far_apart_tell_are_lowered_by_the_least_share_of_the_prior() -> None:
    """The others' posterior of a class of half the rows is 2 p_c, and 0.1 % of p_c beside."""
    codes = np.arange(200) % 2
    found = latent_information(20.0 * codes[:, None], np.ones((200, 1)), [factor(codes)])
    assert found.plug_in[0, 0] == pytest.approx(1, abs=1e-6)
    assert found.lower[0, 0] == pytest.approx(math.log2(0.999 * 2 + 0.001), abs=1e-6)


def told(bits: np.ndarray, lower: np.ndarray) -> LatentInformation:
    nothing = np.zeros_like(bits)
    return LatentInformation(bits, nothing, lower, *[nothing] * 3, *[nothing[:, 0]] * 4, nothing[0])


def test_modularity_and_what_is_informative() -> None:
    bits = np.array([[2.0, 1.0, 0.1, 1.0], [0.5, 1.0, 0.0, -1.0], [0.5, 1.0, 0.0, 0.0]])
    found = told(bits, np.array([[0.06, 1, 0.05, 1], [0, 0, 0, 0], [0, 0, 0, 0.0]]))
    assert found.informative.tolist() == [True, True, False, True]
    same(found.modularity, [(2 / 3 - 1 / 3) / (2 / 3), 0, np.nan, 1], atol=1e-9)
    assert np.isnan(told(bits[:1], bits[:1]).modularity).all()
    assert np.isfinite(told(bits[:2], bits[:2] + 1).modularity[:2]).all()


def test_a_single_latent_has_no_second() -> None:
    mean, std = spread(30, 1)
    found = latent_information(mean, std, [factor(np.arange(30) % 3)])
    assert (found.first.tolist(), found.second.tolist()) == ([0], [-1])
    wide = latent_information(
        np.array([[0.0], [9.0]]), np.array([[1e-6], [1.0]]), [factor(np.arange(2))]
    )
    assert wide.widened.tolist() == [1]


def test_a_linear_probe_is_the_penalised_regression_and_its_bits_those_of_held_out_rows() -> None:
    chance = np.random.default_rng(12)
    codes = chance.integers(0, 3, 201)
    mean = chance.normal(size=(201, 4)) * [1.0, 3.0, 0.2, 0.0] + np.eye(3)[codes] @ chance.normal(
        size=(3, 4)
    ) * [1, 1, 0.2, 0]
    order = np.array([2, 0, 1, 3])
    found = linear_probe.probe_curve(mean, codes, order, seed=4)
    assert found.counts.tolist() == [1, 2, 3, 4]
    shuffled = np.random.default_rng((4, linear_probe._STREAM)).permutation(201)
    train = np.isin(np.arange(201), shuffled[:101])
    assert found.tested == 100
    seen = np.bincount(codes[train], minlength=3) + 0.5
    floor = np.log2(seen / seen.sum())[codes[~train]]
    assert found.majority == (codes[~train] == seen.argmax()).mean()
    for place, k in enumerate((1, 2, 3, 4)):
        x = mean[:, order[:k]]
        spread = x[train].std(axis=0)
        x = (x - x[train].mean(axis=0)) / np.where(spread > 0, spread, 1)
        logs = fitted(x[train], codes[train], 3)(x[~train])
        gained = logs[np.arange(100), codes[~train]] / math.log(2) - floor
        assert found.bits[place] == pytest.approx(gained.mean(), abs=1e-4)
        assert found.bits_se[place] == pytest.approx(stats.sem(gained), abs=1e-4)
        right = int((logs.argmax(axis=1) == codes[~train]).sum())
        assert found.accuracy[place] == right / 100
        ends = stats.binomtest(right, 100).proportion_ci(method="wilson")
        same((found.accuracy_low[place], found.accuracy_high[place]), (ends.low, ends.high), 1e-6)
    default = linear_probe.probe_curve(mean, codes, order)
    same(default.bits, linear_probe.probe_curve(mean, codes, order, seed=0).bits)
    assert not np.allclose(default.bits, found.bits)


def fitted(x: np.ndarray, codes: np.ndarray, classes: int) -> Callable[[np.ndarray], np.ndarray]:
    """Multinomial logistic regression with |w|^2 / 2 against 1000 times each row, by scipy."""
    size = x.shape[1]

    def split(parameters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return parameters[: size * classes].reshape(size, classes), parameters[size * classes :]

    def loss(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weight, bias = split(parameters)
        logs = special.log_softmax(x @ weight + bias, axis=1)
        off = np.exp(logs) - np.eye(classes)[codes]
        value = -logs[np.arange(len(x)), codes].sum() + (weight**2).sum() / 2000
        return value, np.r_[(x.T @ off + weight / 1000).ravel(), off.sum(axis=0)]

    found = optimize.minimize(
        loss, np.zeros((size + 1) * classes), jac=True, method="BFGS", options={"gtol": 1e-8}
    )
    weight, bias = split(found.x)
    return lambda rows: special.log_softmax(rows @ weight + bias, axis=1)


def test_the_penalty_holds_weights_of_separable_classes() -> None:
    """Weights that no data bound are as large as the penalty lets them be."""
    x = np.r_[-np.ones((20, 1)), np.ones((20, 1))]
    codes = np.r_[np.zeros(20, int), np.ones(20, int)]
    rows = np.array([[0.3], [1.0]])
    ours, theirs = linear_probe.fit_logistic(x, codes, 2)(rows), fitted(x, codes, 2)(rows)
    same(np.diff(ours), np.diff(theirs), 1e-2)


def test_a_class_that_no_row_of_the_half_shows_has_half_a_row() -> None:
    codes = np.r_[np.arange(20) % 2, 2]
    train = np.arange(21) < 20
    found = linear_probe.probe_curve(np.zeros((21, 1)), codes, np.arange(1), train=train)
    # the probe has never seen it: its chance is as small as the bias lets it be
    assert found.accuracy[0] == 0 and found.tested == 1
    assert found.majority == 0 and np.isnan(found.bits_se[0])
    assert found.bits[0] < math.log2(21.5 / 0.5) - 10


def test_counts_of_latents_and_intervals_of_shares() -> None:
    assert linear_probe.default_counts(1) == [1]
    assert linear_probe.default_counts(9) == [*range(1, 10)]
    assert linear_probe.default_counts(31) == [*range(1, 9), 16, 31]
    assert linear_probe.default_counts(32) == [*range(1, 9), 16, 32]
    assert linear_probe.default_counts(100) == [*range(1, 9), 16, 32, 64, 100]
    for hits, count in ((0, 7), (7, 7), (3, 7), (1, 1), (0, 1), (250, 1000)):
        for z, level in ((1.959964, 0.95), (1.0, 2 * stats.norm.cdf(1) - 1)):
            ends = stats.binomtest(hits, count).proportion_ci(level, method="wilson")
            same(linear_probe.wilson(hits, count, z), (ends.low, ends.high), 1e-6, 1e-9)
    ends = [linear_probe.wilson(hits, n) for n in range(1, 300) for hits in (0, n)]
    assert min(low for low, _ in ends) == 0 and max(high for _, high in ends) == 1
    assert linear_probe.wilson(3, 7) == linear_probe.wilson(3, 7, 1.959964)
