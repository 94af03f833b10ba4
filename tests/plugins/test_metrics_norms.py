"""Norms without a square: no metric tensor, yet stationarity, rates and densities."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.derivatives.metric_tensor import hessian_action
from isoprobe.errors import MetricError
from isoprobe.probe.quantities import Probe
from isoprobe_plugins.metrics.norms import L1Norm, L2Norm
from tests.oracles import small_vae

if TYPE_CHECKING:
    from isoprobe.contracts import Metric

METRICS = [L1Norm(), L2Norm()]


def rows(count: int = 64, size: int = 9) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, size))


def test_norms_of_known_vectors() -> None:
    x = torch.tensor([[3.0, -4.0], [0.0, 0.0]], dtype=torch.float64)
    zero = torch.zeros_like(x)
    assert L1Norm().distortion(x, zero).tolist() == [7.0, 0.0]
    assert L2Norm().distortion(x, zero).tolist() == [5.0, 0.0]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_the_subgradient_at_zero_is_zero(metric: Metric) -> None:
    x = torch.tensor([[1.0, 2.0], [1.0, 2.0]], dtype=torch.float64)
    x_hat = torch.tensor([[1.0, 2.0], [1.0, 5.0]], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(metric.distortion(x, x_hat).sum(), x_hat)
    assert gradient.tolist() == [[0.0, 0.0], [0.0, 1.0]]


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_there_is_no_metric_tensor(metric: Metric) -> None:
    with pytest.raises(MetricError, match=f"'{metric.name}' has no second derivative"):
        hessian_action(metric)
    with pytest.raises(MetricError, match="stationarity, rate and score still work"):
        Probe(small_vae(), metric, {"pullback"})


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
@pytest.mark.parametrize("beta", [0.3, 2.0])
def test_log_normaliser_is_the_integral(metric: Metric, beta: float) -> None:
    grid = torch.linspace(-90, 90, 180_001, dtype=torch.float64)[:, None]
    density = torch.exp(-metric.distortion(grid, torch.zeros_like(grid)) / beta)
    integral = torch.trapezoid(density, grid[:, 0])
    assert metric.log_normaliser(beta, 1) == pytest.approx(float(integral.log()), abs=1e-5)


def test_log_normaliser_of_l2_in_the_plane() -> None:
    """Integral of exp(-r / beta) 2 pi r dr = 2 pi beta^2."""
    assert L2Norm().log_normaliser(0.7, 2) == pytest.approx(math.log(2 * math.pi * 0.7**2))


@pytest.mark.parametrize("metric", ["l1", "l2"])
def test_analyze_gives_stationary_norms_and_no_pullback(metric: str) -> None:
    with isoprobe.analyze(small_vae(), rows(), metric=metric, beta=1.0, pairs=8) as result:
        isometry = result["isometry"]
        assert np.isfinite(isometry["stationary_norm_mean"].values).all()
        assert "norm_mean" not in isometry and "cosine" not in isometry
        assert "pullback" not in result["samples"]
        assert np.isfinite(result["overview"]["kl_mean"].values).all()
        assert np.isfinite(result.attrs["beta_recovered"])


def test_the_stationary_norm_under_l1_is_the_derivative_in_sigma() -> None:
    """E[sigma_j eps_j dD/dz_j] = sigma_j dE[D]/dsigma_j, here by central differences."""
    vae, x = small_vae(), torch.as_tensor(rows(1))
    metric = L1Norm()
    posterior = vae.encode(x)
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(200_000, 4, generator=generator, dtype=torch.float64)
    noise = torch.cat([noise, -noise])

    def expected_distortion(std: torch.Tensor) -> float:
        with torch.no_grad():
            decoded = vae.decode(posterior.mean + std * noise)
            return float(metric.distortion(x.expand(len(decoded), -1), decoded).mean())

    step, slopes = 1e-3, []
    for j in range(4):
        change = torch.zeros(1, 4, dtype=torch.float64)
        change[0, j] = step
        rise = expected_distortion(posterior.std * (1 + change))
        fall = expected_distortion(posterior.std * (1 - change))
        slopes.append((rise - fall) / (2 * step))
    repeated = np.repeat(rows(1), 20_000, axis=0)
    with isoprobe.analyze(vae, repeated, metric=metric, beta=1.0, samples=None) as result:
        found = result["isometry"]["stationary_norm_mean"].values
        error = result["isometry"]["stationary_norm_se"].values
    assert (np.abs(found - slopes) < 5 * error + 2e-3).all()
    assert (np.abs(slopes) > 20 * error).any()
