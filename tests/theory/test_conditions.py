"""Conditions beyond sigma: closed forms of the linear VAE on and off its optimum."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.contracts import VAE, Posterior
from isoprobe.statistics.jackknife import jackknife
from isoprobe.statistics.moments import BLOCKS
from isoprobe.statistics.quantiles import corrected, student_quantile
from isoprobe.theory.conditions import isometry_eigenvalues, round_trip
from isoprobe.theory.pooling import pooled_ratio
from isoprobe_plugins.analyses.conditions import TRIED
from isoprobe_plugins.architectures.linear import linear_vae
from tests.theory.test_linear_vae import exact_moments

BETA = 1.0
EIGENVALUES = np.array([4.0, 2.0, 1.0, 0.75])


def covariance() -> np.ndarray:
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    spectrum = np.concatenate([EIGENVALUES, [BETA / 4, BETA / 4]])
    return basis @ np.diag(spectrum) @ basis.T


def model() -> VAE:
    return linear_vae(torch.as_tensor(covariance()), BETA, latent_size=4)


def conditions(vae: VAE, **options: object):
    options = {"metric": "sse", "beta": BETA, "samples": None, "pairs": 8} | options
    with isoprobe.analyze(
        vae, exact_moments(covariance()), analyses=["conditions"], **options
    ) as result:
        return {name: result["conditions"][name].values for name in result["conditions"]}


@pytest.fixture(scope="module")
def optimum():
    return conditions(model())


def test_everything_holds_at_the_optimum(optimum) -> None:
    for name, truth in (("gain", 0), ("shift", 0), ("residual", 0)):
        off = np.abs(optimum[name] - truth)
        assert (off <= 4 * optimum[f"{name}_se"] + 1e-9).all(), name
        assert off.max() < 0.06, name
    # nothing is left to chance where the decoder is linear: the Gram tells all that draws add
    assert optimum["beta"] == pytest.approx(BETA, rel=1e-6)
    assert optimum["beta_se"] < 1e-6


def test_own_samples_come_back_shrunk_by_the_posterior(optimum) -> None:
    """mu(Dec(z)) = (1 - sigma^2) z, exactly."""
    shrunk = 1 - BETA / 2 / EIGENVALUES
    np.testing.assert_allclose(optimum["round_trip"], np.diag(shrunk), atol=1e-6)
    np.testing.assert_allclose(optimum["round_trip_expected"], shrunk, atol=1e-6)


def test_eigenvalues_are_the_norms_where_columns_are_orthogonal(optimum) -> None:
    expected = np.sort(1 - BETA / 2 / EIGENVALUES)[::-1]
    scale = float(optimum["beta"]) / BETA  # eigenvalues are given at the recovered beta
    np.testing.assert_allclose(optimum["eigenvalue"] * scale, expected, atol=1e-6)
    np.testing.assert_allclose(optimum["eigenvalue_expected"], expected, atol=1e-9)


@pytest.mark.parametrize("gain", [1.1, 0.7])
def test_a_column_that_is_too_strong_reads_gain_times_excess(gain: float) -> None:
    """E[z d] over beta E[z^2 (1/sigma^2 - 1)] is a (a - 1) for a column a times too strong."""
    vae, latent = model(), 1
    decode = vae.decode
    scale = torch.ones(4, dtype=torch.float64)
    scale[latent] = gain
    vae.decode = lambda z: decode(z * scale)
    found = conditions(vae)
    truth = np.zeros(4)
    truth[latent] = gain * (gain - 1) * BETA / float(found["beta"])
    assert (np.abs(found["gain"] - truth) < 4 * found["gain_se"]).all()
    assert abs(found["gain"][latent]) > 0.08


def rotation() -> torch.Tensor:
    q, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(4, 4)))
    return torch.as_tensor(q)


def rotated() -> VAE:
    """Both sides turned, sigma at its optimum for the turned decoder: residual 0 all the same."""
    vae = model()
    decode, encode, turn = vae.decode, vae.encode, rotation()
    precision = torch.as_tensor(2 * EIGENVALUES / BETA)  # 1 / sigma^2 before
    sigma = ((turn.T @ torch.diag(precision) @ turn).diagonal()) ** -0.5

    def turned(x: torch.Tensor) -> Posterior:
        mean = encode(x).mean @ turn
        return Posterior(mean, sigma.expand_as(mean))

    vae.encode, vae.decode = turned, lambda z: decode(z @ turn.T)
    return vae


def test_a_rotated_model_has_no_residual_and_shows_in_mixing_and_eigenvalues() -> None:
    found = conditions(rotated())
    assert (np.abs(found["residual"]) < 4 * found["residual_se"] + 0.01).all()
    turned = np.abs(found["turn"])
    assert turned.max() > 0.3
    assert (turned.max() - 4 * found["turn_se"].max()) > 0.2
    spread = found["eigenvalue"] - found["eigenvalue_expected"]
    assert np.abs(spread).max() > 0.3


def test_the_verdict_on_a_rotated_model_names_the_rotation_and_not_the_data() -> None:
    with isoprobe.analyze(
        rotated(), exact_moments(covariance()), metric="sse", beta=BETA, samples=None
    ) as result:
        group = result["diagnosis"]
        assert [str(code) for code in group["finding"].values] == ["rotated"]
        assert "data" not in str(group["causes"].values[0])


def test_eigenvalues_of_the_rotated_pullback_are_the_spectrum() -> None:
    """Those of E[J'GJ] + beta/2 are the eigenvalues of the data, whatever turned the latents."""
    vae = rotated()
    jacobian = torch.func.jacfwd(vae.decode)(torch.zeros(1, 4, dtype=torch.float64))
    columns = jacobian.reshape(-1, 4)
    values = torch.linalg.eigvalsh(columns.T @ columns).flip(0) + BETA / 2
    np.testing.assert_allclose(values.detach().numpy(), EIGENVALUES, atol=1e-6)


def test_eigenvalues_keep_the_trace_of_the_norms() -> None:
    rng = np.random.default_rng(2)
    root = torch.as_tensor(rng.normal(size=(3, 4, 4)))
    gram, std = root @ root.mT, torch.as_tensor(rng.uniform(0.2, 0.9, size=(3, 4)))
    values = isometry_eigenvalues(gram, std, BETA)
    norms = 2 / BETA * std**2 * gram.diagonal(dim1=1, dim2=2)
    torch.testing.assert_close(values.sum(1), norms.sum(1))
    assert bool((values[:, :-1] >= values[:, 1:]).all())


def test_round_trip_tells_an_exchange_and_a_sign() -> None:
    z = np.random.default_rng(0).normal(size=(400, 3))
    slopes = round_trip(z, np.stack([z[:, 1], z[:, 0], -z[:, 2]], axis=1))
    np.testing.assert_allclose(slopes, [[0, 1, 0], [1, 0, 0], [0, 0, -1]], atol=1e-12)


# ------------------------------------------------------------------ statistics behind them


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(BLOCKS, 5, 3))
    sums, counts = rows.sum(axis=1), np.full((BLOCKS, 3), 5.0)
    found = jackknife(lambda s, c: s / c, sums, counts)
    means = rows.mean(axis=1)
    np.testing.assert_allclose(found.value, means.mean(axis=0))
    np.testing.assert_allclose(found.se, means.std(axis=0, ddof=1) / np.sqrt(BLOCKS))


def test_quantiles_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 5, 8, 19, 63):
        for level in (0.975, 0.995, 0.9995):
            assert student_quantile(level, degrees) == pytest.approx(
                stats.t.ppf(level, degrees), rel=0.006
            )
    assert corrected(10, 63) == pytest.approx(stats.t.ppf(1 - 0.05 / 20, 63), rel=1e-3)


def test_an_odd_latent_does_not_move_the_pooled_beta() -> None:
    rng = np.random.default_rng(3)
    below = np.full((BLOCKS, 10), 20.0)
    above = 2.0 * below * (1 + 0.02 * rng.normal(size=below.shape))
    plain = above.sum() / below.sum()
    assert float(pooled_ratio(above, below).value) == pytest.approx(plain, rel=1e-12)
    above[:, 4] *= 1e-6  # a sigma a thousandth of its optimum
    odd = pooled_ratio(above, below)
    assert float(odd.value) == pytest.approx(2.0, rel=0.01)
    assert float(odd.low) < 2.0 < float(odd.high)


def test_eigenvalues_are_those_of_the_scaled_pullback() -> None:
    chance = np.random.default_rng(5)
    root, std = chance.normal(size=(3, 4, 4)), chance.uniform(0.2, 1, (3, 4))
    gram = root @ root.transpose(0, 2, 1)
    scaled = 2 / 0.3 * std[:, :, None] * gram * std[:, None, :]
    found = isometry_eigenvalues(torch.as_tensor(gram), torch.as_tensor(std), 0.3)
    np.testing.assert_allclose(found, np.linalg.eigvalsh(scaled)[:, ::-1], rtol=1e-9)


def test_what_is_tried_on_a_few_rows_and_the_variance_are_those_of_the_rows() -> None:
    x = torch.as_tensor(exact_moments(covariance())) + 0.7  # means that are not 0
    with isoprobe.analyze(
        model(), x, analyses=["conditions"], metric="sse", beta=BETA, samples=None, pairs=2
    ) as result:
        found = {name: result["conditions"][name].values for name in result["conditions"]}
    count = len(x)
    others = (x.sum(0) - x) / (count - 1)
    if count <= TRIED:
        expected = float((x - others).square().sum(1).mean())
        assert found["mean_distortion"] == pytest.approx(expected, rel=1e-6)
    assert np.isfinite(found["pca_distortion"])
    mean = model().encode(x).mean.detach().numpy()
    assert np.abs(mean.mean(axis=0)).max() > 0.1
    np.testing.assert_allclose(found["variance"], mean.var(axis=0), rtol=1e-6)


def test_a_turned_decoder_mixes_by_more_than_its_error() -> None:
    """Shares of a column are of the size of the angle, and known to a few per cent of it."""
    vae = rotated()
    found = conditions(vae)
    assert found["mixing"].shape == (4, 4)
    assert 0.05 < np.abs(found["mixing"]).max() < 0.5
    assert 0 < found["mixing_se"].max() < 0.05
