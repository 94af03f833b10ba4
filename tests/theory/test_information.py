"""Latents against factors: closed forms, invariances, and a probe against scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest

from isoprobe.theory.information import Factor, LatentInformation, factor, latent_information
from isoprobe.theory.linear_probe import default_counts, fit_logistic, probe_curve, wilson


@pytest.mark.parametrize(("a", "bits"), [(0.5, 0.160747), (1, 0.485944), (2, 0.912822)])
def test_two_classes(a: float, bits: float) -> None:
    """Two Gaussians at +-a with sigma 1 (quadrature)."""
    label = np.arange(1000) % 2
    found = latent_information(a * (2.0 * label[:, None] - 1), np.ones((1000, 1)), [factor(label)])
    assert found.plug_in[0, 0] == pytest.approx(bits, abs=1e-5)
    assert found.lower[0, 0] < bits
    assert found.bits[0, 0] == pytest.approx(bits, abs=2e-3)
    assert np.isnan(found.gap[0])
    assert np.isnan(found.modularity).all()


def grid(count: int, copies: int = 20, turn: float = 0.0) -> tuple[np.ndarray, list[Factor]]:
    """Two evenly spaced factors in two latents of unit variance, turned by an angle."""
    values = np.arange(count)
    first, second = (np.tile(v.ravel(), copies) for v in np.meshgrid(values, values))
    spread = values.std()
    code = np.stack([first - values.mean(), second - values.mean()], axis=1) / spread
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return code @ rotation, [factor(first, "first"), factor(second, "second")]


def measured(code: np.ndarray, factors: list[Factor], std: float = 0.15) -> LatentInformation:
    return latent_information(code, np.full(code.shape, std), factors)


@pytest.mark.parametrize(
    ("count", "bits", "gap"),
    [(12, 2.58088, 0.71992), (8, 2.54506, 0.84835), (5, 2.26363, 0.97489), (3, 1.58484, 0.99992)],
)
def test_evenly_spaced_values(count: int, bits: float, gap: float) -> None:
    code, factors = grid(count)
    found = measured(code, factors)
    np.testing.assert_allclose(np.diag(found.plug_in), bits, atol=1e-5)
    np.testing.assert_allclose(found.plug_in - np.diag(np.diag(found.plug_in)), 0, atol=1e-9)
    np.testing.assert_allclose(np.diag(found.plug_in) / np.log2(count), gap, atol=1e-5)
    # the middle of plug-in and left-out rows, a little below
    np.testing.assert_allclose(found.gap, gap, atol=1e-3)
    np.testing.assert_array_equal(found.first, [0, 1])
    np.testing.assert_array_equal(found.second, [1, 0])
    np.testing.assert_allclose(found.modularity, 1)


def test_a_code_turned_by_45_degrees_has_no_gap() -> None:
    found = measured(*grid(12, turn=np.pi / 4))
    np.testing.assert_allclose(found.plug_in, 0.59235, atol=1e-5)
    np.testing.assert_allclose(found.gap, 0, atol=1e-9)
    assert (found.gap_se > 0).all()
    np.testing.assert_allclose(found.modularity, 0, atol=1e-9)


def test_bounds_enclose_and_shrink() -> None:
    """Rows of a rotated grid: the truth is that of all rows."""
    code, factors = grid(12, copies=1, turn=np.pi / 4)
    truth = measured(code, factors).plug_in
    widths = []
    for count in (300, 3000):
        rows = np.random.default_rng(count).integers(0, len(code), size=count)
        picked = [factor(one.codes[rows]) for one in factors]
        found = measured(code[rows], picked)
        assert (found.lower <= found.plug_in).all()
        assert (found.low <= truth).all()
        assert (truth <= found.high).all()
        if count == 300:
            assert np.abs(found.bits - truth).mean() < 0.6 * (found.plug_in - truth).mean()
        widths.append((found.high - found.low).mean())
    assert widths[1] < 0.5 * widths[0]


def test_shuffled_labels_hold_zero() -> None:
    generator = np.random.default_rng(0)
    code, _ = grid(12, copies=10)
    for seed in range(5):
        label = factor(generator.integers(0, 10, size=len(code)))
        found = latent_information(code, np.full(code.shape, 0.15), [label], seed=seed)
        assert (found.low <= 0).all()
        assert (found.high >= 0).all()
        assert not found.informative.any()
        # what chance gives is what the plug-in shows
        np.testing.assert_allclose(found.permuted, found.plug_in, atol=0.02)


def test_plain_leave_one_out_would_diverge_on_narrow_posteriors() -> None:
    generator = np.random.default_rng(1)
    code = generator.normal(size=(200, 1))
    found = latent_information(
        code, np.full((200, 1), 0.004), [factor(generator.integers(0, 3, size=200))]
    )
    assert -0.2 < found.lower[0, 0] < 0.05
    assert found.plug_in[0, 0] > 0.5


@pytest.fixture(scope="module")
def plain() -> LatentInformation:
    code, factors = grid(8)
    return latent_information(*_with_dead(code), factors)


def _with_dead(code: np.ndarray, std: float = 0.15) -> tuple[np.ndarray, np.ndarray]:
    """The same code and a latent at the prior."""
    dead = np.zeros((len(code), 1))
    return np.hstack([code, dead]), np.hstack([np.full(code.shape, std), dead + 1])


def test_a_dead_latent_has_no_bits(plain: LatentInformation) -> None:
    np.testing.assert_allclose(plain.plug_in[:, 2], 0, atol=1e-9)
    np.testing.assert_array_equal(plain.informative, [True, True, False])
    assert np.isnan(plain.modularity[2])


def test_what_must_change_nothing(plain: LatentInformation) -> None:
    code, factors = grid(8)
    mean, std = _with_dead(code)
    generator = np.random.default_rng(2)
    new_names = [factor(generator.permutation(8)[one.codes]) for one in factors]
    scaled = mean * [1e-3, 40, 1], std * [1e-3, 40, 1]
    # a dead latent whose mean still correlates with a factor, as binned means would count
    copy = mean.copy()
    copy[:, 2] = 1e-3 * mean[:, 0]
    for found in (
        latent_information(mean, std, new_names),
        latent_information(*scaled, factors),
        latent_information(copy, std, factors),
    ):
        np.testing.assert_allclose(found.bits, plain.bits, atol=1e-5)
        np.testing.assert_allclose(found.gap, plain.gap, atol=1e-5)


def test_a_warped_code_keeps_its_bits() -> None:
    """z -> exp(z) with sigma following its slope: the same order, nearly the same overlap."""
    code, factors = grid(8)
    warped = latent_information(np.exp(code), 0.05 * np.exp(code), factors)
    straight = measured(code, factors, 0.05)
    np.testing.assert_allclose(warped.bits, straight.bits, atol=0.02)


def test_a_latent_that_merges_two_factors_is_not_modular() -> None:
    code, factors = grid(4, copies=40)
    merged = (4 * factors[0].codes + factors[1].codes)[:, None] * 0.2
    found = measured(np.hstack([merged, code[:, :1] * 0]), factors, 0.05)
    np.testing.assert_allclose(found.plug_in[:, 0], [2, found.plug_in[1, 0]], atol=0.1)
    assert found.gap.min() > 0.8
    assert found.modularity[0] < 0.1


def test_duplicated_latents_have_no_gap() -> None:
    code, factors = grid(8)
    found = measured(np.hstack([code, code]), factors)
    np.testing.assert_allclose(found.gap, 0, atol=1e-12)
    np.testing.assert_allclose(found.modularity, 1)


def test_columns_become_factors() -> None:
    words = factor(np.array(["b", "a", "b"]), "kind")
    assert (words.name, words.classes, words.quantiles) == ("kind", 2, False)
    np.testing.assert_array_equal(words.codes, [1, 0, 1])
    assert words.entropy == pytest.approx(np.log2(3) - 2 / 3)
    continuous = factor(np.random.default_rng(0).normal(size=1000))
    assert continuous.quantiles
    np.testing.assert_allclose(continuous.shares, 0.1)
    few = factor(np.array([0.25, 0.5, 0.25]))
    assert not few.quantiles
    many = factor(np.arange(5000))
    assert many.quantiles
    assert many.classes == 10
    ties = factor(np.r_[np.zeros(900), np.linspace(0.01, 1, 100)])
    assert ties.quantiles
    assert ties.classes == 2
    assert factor(np.array([True, False])).classes == 2
    with pytest.raises(ValueError, match="'size' has values that are not finite"):
        factor(np.array([1.0, np.nan]), "size")


def test_a_single_class_has_nothing_to_tell() -> None:
    found = latent_information(np.zeros((10, 2)), np.ones((10, 2)), [factor(np.zeros(10))])
    np.testing.assert_allclose(found.plug_in, 0, atol=1e-12)
    assert np.isnan(found.gap[0])


# --------------------------------------------------------------------------- the probe


def blobs(count: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    label = generator.integers(0, 4, size=count)
    centres = 1.5 * generator.normal(size=(4, 5)) * [1, 0.7, 0.4, 0.2, 0]
    return centres[label] + generator.normal(size=(count, 5)), label


def test_the_probe_is_scikit_learns() -> None:
    from sklearn.linear_model import LogisticRegression

    code, label = blobs()
    train = np.arange(len(label)) < 1000
    curve = probe_curve(code, label, np.arange(5), [2, 5], train=train)
    scaled = (code - code[train].mean(axis=0)) / code[train].std(axis=0)
    for k, accuracy, bits in zip(curve.counts, curve.accuracy, curve.bits, strict=True):
        model = LogisticRegression(C=1e3, tol=1e-6, max_iter=1000)
        model.fit(scaled[train, :k], label[train])
        assert accuracy == pytest.approx(model.score(scaled[~train, :k], label[~train]), abs=1e-3)
        log_odds = model.predict_log_proba(scaled[~train, :k])
        shares = np.bincount(label[train]) / 1000
        expected = np.log2(np.e) * log_odds[np.arange(2000), label[~train]]
        assert bits == pytest.approx((expected - np.log2(shares)[label[~train]]).mean(), abs=2e-3)
    assert curve.tested == 2000
    assert curve.majority == pytest.approx(0.25, abs=0.05)
    assert (curve.accuracy_low < curve.accuracy).all()
    assert (curve.accuracy < curve.accuracy_high).all()


def test_usable_bits_of_gaussians_with_one_covariance_are_their_information() -> None:
    """The true posterior of two such classes is logistic, so no bit is out of its reach."""
    generator = np.random.default_rng(4)
    label = np.arange(20_000) % 2
    code = (2 * label - 1)[:, None] + generator.normal(size=(20_000, 1))
    curve = probe_curve(code, label, np.array([0]), seed=1)
    assert curve.bits[0] == pytest.approx(0.485944, abs=4 * curve.bits_se[0])
    assert curve.bits_se[0] < 0.01


def test_a_code_without_the_label_has_no_usable_bits() -> None:
    generator = np.random.default_rng(5)
    curve = probe_curve(
        generator.normal(size=(4000, 2)), generator.integers(0, 5, size=4000), np.arange(2)
    )
    assert (np.abs(curve.bits) < 0.02).all()
    assert (curve.accuracy_low < 0.22).all()


def test_counts_of_latents() -> None:
    assert default_counts(3) == [1, 2, 3]
    assert default_counts(8) == list(range(1, 9))
    assert default_counts(20) == [*range(1, 9), 16, 20]
    assert default_counts(16) == [*range(1, 9), 16]


def test_separable_classes_still_end() -> None:
    features = np.r_[-np.ones((20, 1)), np.ones((20, 1))]
    predict = fit_logistic(features, np.r_[np.zeros(20, int), np.ones(20, int)], 2)
    log_odds = predict(np.array([[1.0]]))
    np.testing.assert_allclose(np.exp(log_odds).sum(axis=1), 1)
    assert log_odds[0, 1] > np.log(0.99)


@pytest.mark.parametrize(
    ("hits", "count", "expected"),
    # statsmodels' proportion_confint(method="wilson"), to four digits
    [(0, 10, (0.0, 0.2775)), (5, 10, (0.2366, 0.7634)), (98, 100, (0.93, 0.9945))],
)
def test_wilson(hits: int, count: int, expected: tuple[float, float]) -> None:
    assert wilson(hits, count) == pytest.approx(expected, abs=1e-4)
