"""Counts: likelihoods that sum to one, and half the Fisher information as metric tensor."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from isoprobe.contracts import VAE, Metric, Posterior
from isoprobe.derivatives.metric_tensor import hessian_action, output_metric
from isoprobe.errors import DataError, OptionError
from isoprobe.registry.lookup import installed
from isoprobe_plugins.metrics.counts import LEAST_MEAN, NegativeBinomial, Poisson
from tests.oracles import dense_tensor, small_vae

METRICS = [Poisson(), NegativeBinomial(), NegativeBinomial(dispersion=0.2), NegativeBinomial(50.0)]
RATES = torch.tensor([[0.05, 0.7, 1.0], [3.2, 12.0, 40.0]], dtype=torch.float64)


def counts_up_to(last: int) -> Tensor:
    return torch.arange(last + 1, dtype=torch.float64)[:, None]


def distribution(metric: Metric, rate: Tensor) -> torch.distributions.Distribution:
    if isinstance(metric, NegativeBinomial):
        r = torch.tensor(metric.dispersion, dtype=rate.dtype)
        return torch.distributions.NegativeBinomial(r, probs=rate / (rate + r))
    return torch.distributions.Poisson(rate)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.spec())
def test_distortion_is_the_negative_log_likelihood(metric: Metric) -> None:
    x = torch.tensor([[0.0, 1.0, 4.0], [2.0, 15.0, 33.0]], dtype=torch.float64)
    expected = -distribution(metric, RATES).log_prob(x).sum(1)
    torch.testing.assert_close(metric.distortion(x, RATES), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.spec())
@pytest.mark.parametrize("rate", [0.05, 1.0, 12.0])
def test_g_is_half_the_fisher_information(metric: Metric, rate: float) -> None:
    """Fisher information as the expected square of the score, summed over counts."""
    x = counts_up_to(2000)
    mean = torch.full_like(x, rate).requires_grad_()
    value = metric.distortion(x, mean)
    (score,) = torch.autograd.grad(value.sum(), mean)
    probability = torch.exp(-value.detach())
    assert float(probability.sum()) == pytest.approx(1, abs=1e-9)
    fisher = (probability * score[:, 0] ** 2).sum()
    found = metric.diagonal(torch.tensor([[rate]], dtype=torch.float64))
    assert float(found) == pytest.approx(float(fisher) / 2, rel=1e-8)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.spec())
def test_g_is_half_the_hessian(metric: Metric) -> None:
    v = torch.randn(RATES.shape, dtype=RATES.dtype, generator=torch.Generator().manual_seed(0))
    view = output_metric(metric, small_vae(size=3))
    expected = (dense_tensor(metric, RATES) @ v[..., None])[..., 0]
    torch.testing.assert_close(view.action(RATES, v), expected, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(hessian_action(metric)(RATES, v), expected, rtol=1e-9, atol=1e-12)


def test_the_negative_binomial_tends_to_the_poisson() -> None:
    x = torch.tensor([[0.0, 3.0, 30.0], [1.0, 5.0, 44.0]], dtype=torch.float64)
    wide = NegativeBinomial(dispersion=1e7)
    torch.testing.assert_close(
        wide.distortion(x, RATES), Poisson().distortion(x, RATES), rtol=1e-4, atol=0
    )
    torch.testing.assert_close(wide.diagonal(RATES), Poisson().diagonal(RATES), rtol=1e-5, atol=0)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.spec())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_mean_of_zero_stays_finite(metric: Metric, dtype: torch.dtype) -> None:
    x = torch.tensor([[0.0, 5.0]], dtype=dtype)
    zero = torch.zeros(1, 2, dtype=dtype, requires_grad=True)
    value = metric.distortion(x, zero)
    (gradient,) = torch.autograd.grad(value.sum(), zero)
    assert value.isfinite().all() and gradient.isfinite().all()
    assert metric.diagonal(zero.detach()).isfinite().all()
    assert float(metric.diagonal(zero.detach())[0, 0]) == pytest.approx(0.5 / LEAST_MEAN, rel=1e-5)


@pytest.mark.parametrize("dispersion", ["0", "-1", "inf"])
def test_a_dispersion_that_cannot_be_is_refused(dispersion: str) -> None:
    with pytest.raises(OptionError, match="dispersion > 0"):
        installed().metric(f"negative-binomial:dispersion={dispersion}")


def test_counts_below_zero_are_refused_by_row() -> None:
    """The range is open above, which must not let anything through below."""
    import isoprobe

    rows = torch.ones(20, 3)
    rows[7, 1] = -0.5
    with pytest.raises(DataError, match=r"'poisson' needs values in \[0, inf\].*row 7 .*-0.5"):
        isoprobe.analyze(rates_vae(), rows, metric="poisson")


def rates_vae() -> VAE:
    """A model of three counts: rates exp(z W + b), a posterior of fixed width."""
    decoder = torch.nn.Linear(2, 3)
    encoder = torch.nn.Linear(3, 2)
    with torch.no_grad():
        decoder.weight.copy_(torch.tensor([[0.5, 0.1], [0.2, -0.3], [-0.4, 0.6]]))
        decoder.bias.fill_(1.0)
        encoder.weight.fill_(0.1)
        encoder.bias.zero_()
    module = torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder})

    def encode(x: Tensor) -> Posterior:
        mean = encoder(x)
        return Posterior(mean, torch.full_like(mean, 0.2))

    return VAE(lambda z: decoder(z).exp(), encode, (3,), (2,), module=module)


def test_a_model_of_counts_is_analysed() -> None:
    import isoprobe

    rows = torch.poisson(torch.full((300, 3), 3.0), generator=torch.Generator().manual_seed(0))
    with isoprobe.analyze(rates_vae(), rows, metric="negative-binomial:dispersion=4") as result:
        assert result.attrs["metric"] == "negative-binomial:dispersion=4.0"
        pullback = result.samples(names=["pullback", "mean"])
        weight = torch.tensor([[0.5, 0.1], [0.2, -0.3], [-0.4, 0.6]]).double().numpy()
        rate = torch.exp(torch.as_tensor(pullback["mean"] @ weight.T + 1.0)).numpy()
        # g_jj = sum_i G_i (rate_i W_ij)^2 with G_i = r / (2 rate_i (r + rate_i))
        expected = (4 / (2 * rate * (4 + rate)))[:, :, None] * (rate[:, :, None] * weight) ** 2
        torch.testing.assert_close(
            torch.as_tensor(pullback["pullback"]),
            torch.as_tensor(expected.sum(1)),
            rtol=1e-4,
            atol=0,
            check_dtype=False,
        )
