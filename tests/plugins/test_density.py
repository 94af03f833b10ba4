"""Densities against the linear VAE's closed form, and volumes against dense determinants."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.contracts import VAE, Metric
from isoprobe.errors import OptionError
from isoprobe.results.reader import Result
from isoprobe_plugins.analyses.density import Density
from isoprobe_plugins.architectures.linear import linear_vae
from isoprobe_plugins.metrics.bce import BinaryCrossEntropy
from isoprobe_plugins.metrics.convex import DownwardConvex
from tests.oracles import dense_jacobian, dense_tensor, small_vae

BETA = 0.02
SPECTRUM = np.array([3.0, 1.5, 0.6, BETA / 2, BETA / 2])


@pytest.fixture(scope="module")
def gaussian() -> tuple[np.ndarray, np.ndarray, isoprobe.results.reader.Result]:
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    covariance = basis @ np.diag(SPECTRUM) @ basis.T
    x = np.random.default_rng(1).multivariate_normal(np.zeros(5), covariance, size=500)
    vae = linear_vae(torch.as_tensor(covariance), BETA, latent_size=5)
    result = isoprobe.analyze(
        vae, x, metric="sse", beta=BETA, analyses=["density", "rate-distortion"]
    )
    return covariance, x, result


def test_absolute_density_is_the_gaussian(gaussian) -> None:
    covariance, x, result = gaussian
    normal = torch.distributions.MultivariateNormal(
        torch.zeros(5, dtype=torch.float64), torch.as_tensor(covariance)
    )
    found = result.samples(names=["log_density_absolute"])["log_density_absolute"]
    np.testing.assert_allclose(found, normal.log_prob(torch.as_tensor(x)).numpy(), atol=1e-6)


def test_draws_with_the_gram_as_control_give_the_exact_objective(gaussian) -> None:
    _, x, result = gaussian
    rows = result.samples()
    sigma2 = BETA / 2 / SPECTRUM[:3]
    mean = rows["mean"][:, :3]
    exact = rows["distortion_transform"] + ((SPECTRUM[:3] - BETA / 2) * sigma2).sum()
    np.testing.assert_allclose(rows["distortion"], exact, rtol=1e-9)
    assert float(result["density"]["distortion_draw_se"].values) == pytest.approx(0, abs=1e-9)
    assert mean.shape == (len(x), 3)


def test_sse_needs_no_volume_correction(gaussian) -> None:
    rows = gaussian[2].samples()
    np.testing.assert_array_equal(rows["log_volume"], 0)
    np.testing.assert_array_equal(rows["log_density_input"], rows["log_density_metric"])


def test_density_of_sigmas_has_the_corrected_exponent(gaussian) -> None:
    """p(y) = (beta/2)^(-n/2) p(mu) prod sigma: the density of y = sqrt(beta/2) mu / sigma."""
    rows = gaussian[2].samples()
    sigma = np.sqrt(BETA / 2 / SPECTRUM[:3])
    mean = rows["mean"][:, :3]
    slope = np.sqrt(BETA / 2) / sigma
    expected = (-0.5 * mean**2 - 0.5 * np.log(2 * np.pi) - np.log(slope)).sum(axis=1)
    np.testing.assert_allclose(rows["log_density_metric_sigmas"], expected, rtol=1e-9)


def volume_is_dense(result: Result, vae: VAE, metric: Metric, within: float) -> None:
    """Half the log determinant of J'GJ less that of J'J, both dense, in every row."""
    rows = result.samples()
    active = result["overview"]["active"].values.astype(bool)
    z = torch.as_tensor(rows["mean"])
    jacobian = dense_jacobian(vae.decode, z)[:, :, active]
    tensor = dense_tensor(metric, vae.decode(z))
    expected = 0.5 * (
        (jacobian.mT @ tensor @ jacobian).logdet() - (jacobian.mT @ jacobian).logdet()
    )
    np.testing.assert_allclose(rows["log_volume"], expected.detach().numpy(), atol=within)


@pytest.mark.parametrize(
    ("metric", "sigmoid"),
    [(DownwardConvex(), False), (BinaryCrossEntropy(), True)],
    ids=["downward", "bce"],
)
def test_general_volume_equals_dense_determinants(metric: Metric, sigmoid: bool) -> None:
    vae = small_vae(sigmoid=sigmoid)
    x = np.random.default_rng(2).random((20, 9))
    result = isoprobe.analyze(vae, x, metric=metric, beta=1.0, analyses=[Density(volume="general")])
    volume_is_dense(result, vae, metric, 1e-9)


def test_general_volume_of_ssim_equals_dense_determinants() -> None:
    pytest.importorskip("isoprobe_plugins.metrics.ssim")
    from isoprobe_plugins.metrics.ssim import Ssim

    metric = Ssim(window=3)
    vae = small_vae(size=25, shape=(1, 5, 5), sigmoid=True)
    x = np.random.default_rng(3).random((6, 1, 5, 5))
    result = isoprobe.analyze(vae, x, metric=metric, beta=1.0, analyses=["density"])
    volume_is_dense(result, vae, metric, 1e-7)


def test_general_volume_reduces_to_the_papers_cases() -> None:
    """(n/2) log a for G = a I at x_check, and half log det G for m = n."""
    vae = small_vae(size=4, latents=4)
    x = np.random.default_rng(4).random((10, 4))
    metric = DownwardConvex()
    result = isoprobe.analyze(vae, x, metric=metric, beta=1.0, analyses=[Density("general")])
    rows = result.samples()
    n = int(result["overview"]["active"].values.sum())
    x_check = vae.decode(torch.as_tensor(rows["mean"])).detach()
    scale = n / 2 * metric.scale(x_check).log()
    np.testing.assert_allclose(rows["log_volume"], scale.numpy(), atol=1e-9)
    if n == 4:
        determinant = 0.5 * dense_tensor(metric, x_check).logdet()
        np.testing.assert_allclose(rows["log_volume"], determinant.numpy(), atol=1e-9)


def test_volume_at_m_equal_n_is_the_determinant_of_g() -> None:
    vae = small_vae(size=4, latents=4, sigmoid=True, seed=2)
    x = np.random.default_rng(4).random((10, 4))
    result = isoprobe.analyze(vae, x, metric="bce", beta=1.0, analyses=["density"])
    assert int(result["overview"]["active"].values.sum()) == 4
    assert "Eq. 20" in str(result["density"]["volume"].values)
    expected = 0.5 * dense_tensor(BinaryCrossEntropy(), torch.as_tensor(x)).logdet()
    np.testing.assert_allclose(result.samples()["log_volume"], expected.numpy(), atol=1e-9)


def test_grey_inputs_under_bce_have_no_absolute_density() -> None:
    vae = small_vae(sigmoid=True)
    x = np.random.default_rng(5).random((10, 9))
    result = isoprobe.analyze(vae, x, metric="bce", beta=1.0, analyses=["density"])
    assert "log_density_absolute" not in result.samples()
    assert "relative" in str(result["density"]["absolute"].values)


def test_binary_inputs_under_bce_have_a_probability_at_beta_one_only() -> None:
    vae = small_vae(sigmoid=True)
    x = (np.random.default_rng(6).random((10, 9)) > 0.5).astype(float)
    for beta, has in ((1.0, True), (2.0, False)):
        result = isoprobe.analyze(vae, x, metric="bce", beta=beta, analyses=["density"])
        rows = result.samples()
        assert ("log_density_absolute" in rows) is has
        if has:
            bound = -(rows["distortion"] + rows["kl"])
            np.testing.assert_allclose(rows["log_density_absolute"], bound, rtol=1e-12)


def test_unknown_volume_is_refused() -> None:
    with pytest.raises(OptionError, match="auto, general or none"):
        Density(volume="sideways")


def test_rate_distortion_closed_forms(gaussian) -> None:
    _, x, result = gaussian
    group = {name: v.values for name, v in result["rate-distortion"].items()}
    kept = SPECTRUM[:3]
    assert result["overview"]["distortion_coding_mean"].values == pytest.approx(
        ((kept - BETA / 2) * BETA / 2 / kept).sum(), rel=1e-9
    )
    exact = (BETA / 2 * (1 - BETA / 2 / kept)).sum()
    assert group["coding_loss_expected"] == pytest.approx(exact, rel=1e-9)
    np.testing.assert_array_equal(group["predicted_active"][8], 3)
    assert x.shape[1] == 5


def test_water_filling_in_closed_form() -> None:
    """With exact second moments every figure of Eq. 92 follows from the eigenvalues."""
    from tests.theory.test_linear_vae import BETA as beta
    from tests.theory.test_linear_vae import EIGENVALUES, KEPT, analyzed, model

    result = analyzed(model(), analyses=["isometry", "rate-distortion"])
    group = {name: v.values for name, v in result["rate-distortion"].items()}
    kept = EIGENVALUES[KEPT]
    rates = 0.5 * np.log(kept / (beta / 2))
    np.testing.assert_allclose(group["water_filling_rate"][KEPT], rates, rtol=1e-6)
    assert group["mutual_information"] == pytest.approx(rates.sum(), rel=1e-6)
    assert group["predicted_distortion"][8] == pytest.approx(KEPT.sum() * beta / 2, rel=1e-6)
    for other, count in zip(group["other_beta"], group["predicted_active"], strict=True):
        assert count == (kept > other / 2).sum()
    transform = ((beta / 2) ** 2 / kept).sum() + EIGENVALUES[~KEPT].sum()
    coding = ((kept - beta / 2) * beta / 2 / kept).sum()
    assert group["loss_ratio"] == pytest.approx(transform / coding, rel=1e-6)
    np.testing.assert_allclose(result["overview"]["second_moment_mean"].values, 1, atol=1e-9)
    assert group["certificate_gap"] == pytest.approx(0, abs=1e-9)
    assert group["elbo"] == pytest.approx(group["elbo_entropy"], rel=1e-9)


def test_a_model_that_codes_nothing_has_no_loss_ratio() -> None:
    vae = linear_vae(torch.eye(3, dtype=torch.float64), 4.0, latent_size=2)
    x = np.random.default_rng(0).normal(size=(50, 3))
    result = isoprobe.analyze(vae, x, analyses=["rate-distortion"])
    assert np.isnan(result["rate-distortion"]["loss_ratio"].values)
    assert result["overview"]["rate_mean"].values == pytest.approx(0, abs=1e-12)
