"""Ground truth 1: the linear VAE, where every figure has a closed form."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.contracts import VAE
from isoprobe.results.reader import Result
from isoprobe_plugins.architectures.linear import linear_vae

BETA = 0.01
EIGENVALUES = np.array([4.0, 2.0, 1.0, 0.5, 0.3, BETA / 4])
KEPT = EIGENVALUES > BETA / 2


def covariance() -> np.ndarray:
    basis, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(6, 6)))
    return basis @ np.diag(EIGENVALUES) @ basis.T


def exact_moments(target: np.ndarray, count: int = 4096) -> np.ndarray:
    """Rows whose mean is zero and whose second moments are the target's to the last digits."""
    rows = np.random.default_rng(1).normal(size=(count, len(target)))
    rows -= rows.mean(axis=0)
    whiten = np.linalg.inv(np.linalg.cholesky(rows.T @ rows / count)).T
    return rows @ whiten @ np.linalg.cholesky(target).T


def model() -> VAE:
    return linear_vae(torch.as_tensor(covariance()), BETA, latent_size=6)


def analyzed(vae: VAE, **options: object) -> Result:
    options = {"metric": "sse", "beta": BETA, "samples": None, "seed": 1} | options
    return isoprobe.analyze(vae, exact_moments(covariance()), **options)


@pytest.fixture(scope="module")
def result() -> Result:
    return analyzed(model())


def test_norm_is_one_minus_variance(result: Result) -> None:
    variance = np.where(KEPT, BETA / 2 / EIGENVALUES, 1.0)
    np.testing.assert_allclose(result["overview"]["variance_mean"].values, variance, atol=1e-9)
    np.testing.assert_allclose(result["isometry"]["norm_mean"].values, 1 - variance, atol=1e-6)
    np.testing.assert_allclose(result["isometry"]["residual_mean"].values, 0, atol=1e-6)
    np.testing.assert_allclose(result["isometry"]["norm_sd"].values, 0, atol=1e-6)


def test_columns_are_orthogonal(result: Result) -> None:
    cosine = result["isometry"]["cosine"].values
    np.testing.assert_allclose(cosine[np.ix_(KEPT, KEPT)], np.eye(KEPT.sum()), atol=1e-6)
    assert result["isometry"]["cosine_mean_abs"].values < 1e-6
    assert abs(result["isometry"]["hadamard_gap"].values) < 1e-6


def test_beta_is_recovered_by_both_routes() -> None:
    found = analyzed(model(), beta="auto").attrs
    assert found["beta_recovered_pullback"] == pytest.approx(BETA, rel=1e-6)
    # a linear decoder leaves nothing to chance once the Gram is the control
    low, high = found["beta_ci95"]
    assert (low, high) == pytest.approx((BETA, BETA), rel=1e-9)
    assert found["beta_source"] == "recovered"
    assert found["beta"] == found["beta_recovered"]


def test_stationarity_holds_exactly(result: Result) -> None:
    group = result["isometry"]
    np.testing.assert_allclose(group["stationary_residual_mean"].values[KEPT], 0, atol=1e-9)
    assert group["stationary_norm_se"].values.max() < 1e-9


def test_importance_equals_the_eigenvalues(result: Result) -> None:
    group = result["importance"]
    np.testing.assert_allclose(group["rough"].values[KEPT], EIGENVALUES[KEPT], rtol=1e-6)
    np.testing.assert_allclose(group["exact"].values[KEPT], EIGENVALUES[KEPT], rtol=1e-6)
    shares = EIGENVALUES[KEPT] / EIGENVALUES[KEPT].sum()
    np.testing.assert_allclose(group["share"].values[KEPT], shares, rtol=1e-6)
    np.testing.assert_array_equal(group["state"].values, np.where(KEPT, 0, 2))
    np.testing.assert_array_equal(group["order"].values, np.arange(6))


def test_rates_are_those_of_water_filling(result: Result) -> None:
    """E[KL_j] = log(lambda_j / (beta/2)) / 2 with exact second moments (Eq. 92)."""
    expected = np.where(KEPT, 0.5 * np.log(EIGENVALUES / (BETA / 2)), 0.0)
    np.testing.assert_allclose(result["overview"]["kl_mean"].values, expected, atol=1e-9)
    np.testing.assert_allclose(
        result["importance"]["rate_bits"].values, expected / np.log(2), atol=1e-9
    )


def test_distortion_parts(result: Result) -> None:
    """Coding loss beta/2 (1 - sigma^2) a dimension; transform loss the rest of the Wiener error."""
    kept = EIGENVALUES[KEPT]
    coding = (kept - BETA / 2) * BETA / 2 / kept
    transform = ((BETA / 2) ** 2 / kept).sum() + EIGENVALUES[~KEPT].sum()
    overview = result["overview"]
    assert overview["distortion_coding_mean"].values == pytest.approx(coding.sum(), rel=1e-9)
    assert overview["distortion_transform_mean"].values == pytest.approx(transform, rel=1e-9)


def _scaled(vae: VAE, change: Callable[[torch.Tensor], None]) -> VAE:
    weight = next(p for p in vae.module.parameters() if p.shape == (6, 6) and _is_decoder(vae, p))
    change(weight.data)
    return vae


def _is_decoder(vae: VAE, parameter: torch.Tensor) -> bool:
    column = vae.decode(torch.eye(6, dtype=torch.float64)) - vae.decode(
        torch.zeros(6, 6, dtype=torch.float64)
    )
    return torch.allclose(column.T, parameter.detach())


def test_a_scaled_column_shows_and_no_other_moves(result: Result) -> None:
    damaged = analyzed(_scaled(model(), lambda w: w[:, 1].mul_(1.1)))
    sound_norm = result["isometry"]["norm_mean"].values
    residual = damaged["isometry"]["residual_mean"].values
    assert residual[1] / sound_norm[1] == pytest.approx(0.21, abs=1e-6)
    np.testing.assert_allclose(np.delete(residual, 1), 0, atol=1e-6)


def test_a_dropped_column_shows() -> None:
    damaged = analyzed(_scaled(model(), lambda w: w[:, 2].zero_()))
    norm = damaged["isometry"]["norm_mean"].values
    assert norm[2] == pytest.approx(0, abs=1e-12)
    assert damaged["isometry"]["residual_mean"].values[2] == pytest.approx(
        BETA / 2 / EIGENVALUES[2] - 1, abs=1e-6
    )


def test_rotated_columns_lose_orthogonality() -> None:
    """Columns 0 and 1 rotated by 30 degrees: their cosine follows from the lengths."""
    angle = np.pi / 6
    turn = torch.tensor(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=torch.float64
    )

    def rotate(weight: torch.Tensor) -> None:
        weight[:, :2] = weight[:, :2] @ turn

    damaged = analyzed(_scaled(model(), rotate))
    length = torch.tensor(EIGENVALUES[:2] - BETA / 2)
    gram = turn.T @ torch.diag(length) @ turn
    expected = gram[0, 1].abs() / (gram[0, 0] * gram[1, 1]).sqrt()
    assert damaged["isometry"]["cosine"].values[0, 1] == pytest.approx(expected.item(), rel=1e-6)
    gap = -0.5 * np.log(1 - expected.item() ** 2)
    assert damaged["isometry"]["hadamard_gap"].values == pytest.approx(gap, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1000, 4096])
def test_batch_size_changes_nothing(result: Result, batch_size: int) -> None:
    other = analyzed(model(), batch_size=batch_size)
    for group in ("overview", "isometry", "importance"):
        for name, variable in result[group].items():
            np.testing.assert_allclose(
                other[group][name].values, variable.values, rtol=1e-9, atol=1e-9, err_msg=name
            )


def test_float32_agrees_with_float64(result: Result) -> None:
    single = analyzed(model(), dtype="float32")
    np.testing.assert_allclose(
        single["isometry"]["norm_mean"].values,
        result["isometry"]["norm_mean"].values,
        rtol=1e-5,
        atol=1e-5,
    )


def test_finite_differences_agree(result: Result) -> None:
    """On a linear decoder with SSE the second difference has no truncation error at all."""
    other = analyzed(model(), pullback="finite-difference")
    np.testing.assert_allclose(
        other["isometry"]["norm_mean"].values, result["isometry"]["norm_mean"].values, atol=1e-8
    )
    assert "cosine" not in other["isometry"]


def test_a_family_of_metrics_gives_one_norm(result: Result) -> None:
    """The checkpoint declares SSE; asked in MSE, its beta is divided by m and norms stay."""
    vae = model().with_facts(metric="sse", beta=BETA)
    other = analyzed(vae, metric="mse", beta=None)
    assert other.attrs["beta"] == pytest.approx(BETA / 6)
    np.testing.assert_allclose(
        other["isometry"]["norm_mean"].values, result["isometry"]["norm_mean"].values, rtol=1e-12
    )
