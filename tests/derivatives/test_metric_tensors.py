"""G of every built-in metric against half the dense Hessian, by closed form and as derived."""

from __future__ import annotations

import pytest
import torch

from isoprobe.contracts import Metric
from isoprobe.derivatives.metric_tensor import hessian_action, output_metric
from isoprobe.errors import MetricError, OptionError
from isoprobe_plugins.metrics.bce import BinaryCrossEntropy
from isoprobe_plugins.metrics.convex import DownwardConvex, UpwardConvex
from isoprobe_plugins.metrics.square import Gaussian, MeanSquaredError, SumSquaredError
from tests.oracles import dense_tensor, small_vae

METRICS = [
    SumSquaredError(),
    MeanSquaredError(),
    Gaussian(sigma2=0.3),
    BinaryCrossEntropy(),
    DownwardConvex(),
    UpwardConvex(),
]


def _samples(count: int = 3, size: int = 7) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(count, size, generator=generator, dtype=torch.float64) * 0.9 + 0.05


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_closed_form_equals_half_the_hessian(metric: Metric) -> None:
    x = _samples()
    v = torch.randn_like(x)
    view = output_metric(metric, small_vae(size=7))
    expected = (dense_tensor(metric, x) @ v[..., None])[..., 0]
    torch.testing.assert_close(view.action(x, v), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_derived_action_equals_closed_form(metric: Metric) -> None:
    x = _samples()
    v = torch.randn_like(x)
    view = output_metric(metric, small_vae(size=7))
    torch.testing.assert_close(
        hessian_action(metric)(x, v), view.action(x, v), rtol=1e-10, atol=1e-12
    )


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_second_order_expansion(metric: Metric) -> None:
    """D(x, x + d) - D(x, x) = d' G d up to third order, and D is least at x."""
    x = _samples()
    d = torch.randn_like(x)
    view = output_metric(metric, small_vae(size=7))
    quadratic = (d * view.action(x, d)).sum(1)
    steps = []
    for size in (1e-3, 1e-4):
        excess = metric.distortion(x, x + size * d) - metric.distortion(x, x)
        steps.append((excess / size**2 - quadratic).abs().max().item())
    assert (quadratic > 0).all()
    assert steps[1] < 0.02 * float(quadratic.max())
    assert steps[1] < 0.2 * steps[0] + 1e-6 * float(quadratic.max())


def test_bce_in_logits_equals_bce_in_means() -> None:
    metric, x = BinaryCrossEntropy(), _samples()
    logits = torch.linspace(-6, 6, x.numel(), dtype=torch.float64).reshape(x.shape)
    from_mean = metric.distortion(x, torch.sigmoid(logits))
    torch.testing.assert_close(metric.logits_distortion(x, logits), from_mean)
    mean = torch.sigmoid(logits)
    slope = mean * (1 - mean)
    torch.testing.assert_close(metric.logits_diagonal(logits), metric.diagonal(mean) * slope**2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bce_in_logits_stays_finite_at_200(dtype: torch.dtype) -> None:
    metric = BinaryCrossEntropy()
    logits = torch.tensor([[-200.0, 200.0, -80.0, 80.0]], dtype=dtype)
    for x in (torch.zeros(1, 4, dtype=dtype), torch.ones(1, 4, dtype=dtype)):
        assert metric.logits_distortion(x, logits).isfinite().all()
    diagonal = metric.logits_diagonal(logits)
    assert diagonal.isfinite().all() and (diagonal >= 0).all()
    # x (1 - x) / 2 at a logit of +-80 is exp(-80) / 2, not zero.
    expected = torch.full((2,), 0.5, dtype=dtype) * torch.exp(torch.tensor(-80.0, dtype=dtype))
    torch.testing.assert_close(diagonal[0, 2:], expected, rtol=1e-5, atol=0)


def test_gaussian_is_a_normalised_likelihood() -> None:
    metric, x = Gaussian(sigma2=0.3), _samples()
    x_hat = x.flip(0)
    normal = torch.distributions.Normal(x_hat, 0.3**0.5)
    torch.testing.assert_close(metric.distortion(x, x_hat), -normal.log_prob(x).sum(1))
    assert metric.log_normaliser(1.0, 7) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("metric", METRICS[:3], ids=lambda m: m.name)
@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_log_normaliser_is_the_integral(metric: Metric, beta: float) -> None:
    """One input dimension at a time: the integral over x of exp(-D/beta) by quadrature."""
    grid = torch.linspace(-60, 60, 200_001, dtype=torch.float64)[:, None]
    density = torch.exp(-metric.distortion(grid, torch.zeros_like(grid)) / beta)
    integral = torch.trapezoid(density, grid[:, 0])
    assert torch.log(integral).item() == pytest.approx(metric.log_normaliser(beta, 1), abs=1e-9)


def test_family_units_turn_one_square_into_another() -> None:
    x, x_hat = _samples(), _samples().flip(0)
    sums = []
    for metric in METRICS[:3]:
        excess = metric.distortion(x, x_hat) - metric.distortion(x, x)
        sums.append(excess * metric.family_units(7))
    torch.testing.assert_close(sums[0], sums[1])
    torch.testing.assert_close(sums[0], sums[2])


class _L1(Metric):
    name = "l1-here"
    smooth = False

    def distortion(self, x: torch.Tensor, x_hat: torch.Tensor) -> torch.Tensor:
        return (x - x_hat).abs().sum(1)


def test_a_metric_without_second_derivative_is_refused_with_the_reason() -> None:
    with pytest.raises(MetricError, match="no second derivative"):
        hessian_action(_L1())


def test_gaussian_refuses_a_variance_of_zero() -> None:
    with pytest.raises(OptionError, match="sigma2 > 0"):
        Gaussian(sigma2=0.0)
