"""Likelihood metrics: G is half the Fisher information, by closed form and by sums alike."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from isoprobe.errors import MetricError
from isoprobe.theory.likelihood import Likelihood
from isoprobe_plugins.metrics.likelihoods import (
    Categorical,
    HeteroscedasticGaussian,
    NegativeBinomial,
    ZeroInflated,
)


class Poisson(Likelihood):
    name = "poisson"
    parameters = ("log rate",)

    def distribution(self, theta: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Poisson(theta[:, 0].exp(), validate_args=False)


class StudentT(Likelihood):
    name = "student-t"
    parameters = ("location", "log scale")

    def distribution(self, theta: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.StudentT(
            4.0, theta[:, 0], theta[:, 1].exp(), validate_args=False
        )


class Exponential(Likelihood):
    name = "exponential"
    parameters = ("log rate",)

    def distribution(self, theta: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Exponential(theta[:, 0].exp(), validate_args=False)


def theta(count: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, count, *shape, generator=generator, dtype=torch.float64)


#: families of torch as their plugins are: what of theta is which parameter
FAMILIES = {
    "bernoulli": (1, lambda t: torch.distributions.Bernoulli(logits=t[0])),
    "binomial": (1, lambda t: torch.distributions.Binomial(255, logits=t[0])),
    "geometric": (1, lambda t: torch.distributions.Geometric(logits=t[0])),
    "laplace": (2, lambda t: torch.distributions.Laplace(t[0], t[1].exp())),
    "cauchy": (2, lambda t: torch.distributions.Cauchy(t[0], t[1].exp())),
    "gumbel": (2, lambda t: torch.distributions.Gumbel(t[0], t[1].exp())),
    "log-normal": (2, lambda t: torch.distributions.LogNormal(t[0], t[1].exp())),
    "gamma": (2, lambda t: torch.distributions.Gamma(t[0].exp(), t[1].exp())),
    "weibull": (2, lambda t: torch.distributions.Weibull(t[0].exp(), t[1].exp() + 0.5)),
    "half-normal": (1, lambda t: torch.distributions.HalfNormal(t[0].exp())),
    "half-cauchy": (1, lambda t: torch.distributions.HalfCauchy(t[0].exp())),
    "beta": (2, lambda t: torch.distributions.Beta(t[0].exp() + 0.5, t[1].exp() + 1)),
    "continuous-bernoulli": (1, lambda t: torch.distributions.ContinuousBernoulli(logits=t[0])),
    "pareto": (1, lambda t: torch.distributions.Pareto(torch.ones_like(t[0]), t[0].exp() + 1.5)),
    "mixture": (3, lambda t: torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(logits=torch.stack([t[0], -t[0]], -1)),
        torch.distributions.Normal(torch.stack([t[1], t[2]], -1), 0.5))),
}  # fmt: skip


def family(name: str) -> tuple[Likelihood, int]:
    """The plugin of a family."""
    count, made = FAMILIES[name]

    class Family(Likelihood):
        parameters = tuple("abc"[:count])

        def distribution(self, theta: Tensor) -> torch.distributions.Distribution:
            return made(theta.movedim(1, 0))

    Family.name = name
    return Family(), count


CASES = {
    "gaussian-heteroscedastic": (HeteroscedasticGaussian(), 2),
    "categorical": (Categorical(), 5),
    "nb": (NegativeBinomial(), 2),
    "zinb": (ZeroInflated(), 3),
}


def matrix(metric: Likelihood, at: Tensor) -> Tensor:
    """G of each input from its action on unit vectors, ``(B, P, P, *shape)``."""
    v = torch.zeros(at.shape[1], *at.shape, dtype=at.dtype)
    for p in range(at.shape[1]):
        v[p, :, p] = 1
    found = metric.tensor_action(at, v) if metric.diagonal is None else metric.diagonal(at) * v
    return found.movedim(0, 2)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("shape", [(4,), (2, 3)])
def test_the_tensor_is_half_the_covariance_of_the_score(name: str, shape: tuple[int, ...]) -> None:
    metric, count = CASES[name]
    at = theta(count, *shape)
    expected = 0.5 * metric.summed_fisher(at)
    torch.testing.assert_close(matrix(metric, at), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["nb", "zinb"])
def test_a_dispersion_that_stays_leaves_the_closed_form(name: str) -> None:
    metric, count = CASES[name]
    at, v = theta(count, 4), theta(count, 4).flip(0)
    v[:, 1] = 0
    expected = 0.5 * torch.einsum("bpqm,bqm->bpm", metric.summed_fisher(at), v)
    moving = [0, *range(2, count)]
    found = metric.tensor_action(at, torch.stack([v, 2 * v]))
    torch.testing.assert_close(found[0][:, moving], expected[:, moving], rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found[1], 2 * found[0])


@pytest.mark.parametrize(
    ("metric", "at", "closed"),
    [
        (Poisson(), theta(1, 3), lambda t: t[:, 0].exp()),
        (Exponential(), theta(1, 3), lambda t: torch.ones_like(t[:, 0])),
        (StudentT(), theta(2, 3), lambda t: 5 / 7 * (-2 * t[:, 1]).exp()),
        (HeteroscedasticGaussian(), theta(2, 3), lambda t: (-t[:, 1]).exp()),
    ],
    ids=["poisson", "exponential", "student-t", "gaussian"],
)
def test_the_sum_over_the_support_is_the_textbooks_information(metric, at, closed) -> None:
    """To 1e-8, for families of whole numbers, of the line and of the half line."""
    found = metric.summed_fisher(at)[:, 0, 0]
    torch.testing.assert_close(found, closed(at), rtol=1e-8, atol=1e-8)


#: Fisher informations of textbooks, of theta
TEXTBOOK = {
    "bernoulli": lambda t: t[0].sigmoid() * (-t[0]).sigmoid(),
    "binomial": lambda t: 255 * t[0].sigmoid() * (-t[0]).sigmoid(),
    "geometric": lambda t: (-t[0]).sigmoid(),
    "laplace": lambda t: (-2 * t[1]).exp(),
    "cauchy": lambda t: 0.5 * (-2 * t[1]).exp(),
    "gumbel": lambda t: (-2 * t[1]).exp(),
    "log-normal": lambda t: (-2 * t[1]).exp(),
    "gamma": lambda t: t[0].exp().square() * torch.special.polygamma(1, t[0].exp()),
    "weibull": lambda t: (t[1].exp() + 0.5).square(),
    "half-normal": lambda t: torch.full_like(t[0], 2.0),
    "half-cauchy": lambda t: torch.full_like(t[0], 0.5),
    "beta": lambda t: t[0].exp().square() * (
        torch.special.polygamma(1, t[0].exp() + 0.5)
        - torch.special.polygamma(1, t[0].exp() + t[1].exp() + 1.5)),
    "pareto": lambda t: (t[0].exp() / (t[0].exp() + 1.5)).square(),
}  # fmt: skip


@pytest.mark.parametrize("name", TEXTBOOK)
def test_families_of_torch_have_the_textbooks_information(name: str) -> None:
    """Of the first parameter, to 1e-8: whole numbers, line, half line and intervals."""
    metric, count = family(name)
    at = theta(count, 3)
    expected = TEXTBOOK[name](at.movedim(1, 0))
    torch.testing.assert_close(metric.fisher(at)[:, 0, 0], expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize(
    "name", [n for n in FAMILIES if n != "laplace"]
)  # whose edge moves with theta
def test_any_family_is_a_metric(name: str) -> None:
    """The divergence grows as its quadratic form does, by sums that know nothing of it."""
    metric, count = family(name)
    one = theta(count, 3)
    near = one + 1e-4 * theta(count, 3).flip(0)
    quadratic = ((near - one) * metric.tensor_action(one, near - one)).flatten(1).sum(1)
    found = metric.summed_divergence(one, near).sum(1)
    torch.testing.assert_close(found, quadratic, rtol=2e-3, atol=1e-13)


class VonMises(Likelihood):
    name = "von-mises"
    parameters = ("angle", "log concentration")

    def distribution(self, theta: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.VonMises(theta[:, 0], theta[:, 1].exp())


def test_a_sum_that_is_not_whole_is_refused() -> None:
    """Torch says that angles lie on the line, where the density repeats for ever."""
    with pytest.raises(MetricError, match="misses 1 by .* give it fisher"):
        VonMises().fisher(theta(2, 3))


@pytest.mark.parametrize("name", CASES)
def test_the_divergence_is_its_sum_over_the_support(name: str) -> None:
    metric, count = CASES[name]
    one, two = theta(count, 4), theta(count, 4) + 0.3 * theta(count, 4).flip(0)
    torch.testing.assert_close(
        metric.divergence(one, two), metric.summed_divergence(one, two).sum(1), rtol=1e-7, atol=1e-9
    )
    if count < 4 and name != "gaussian-heteroscedastic":
        two[:, 1] = one[:, 1]  # the closed form
        expected = metric.summed_divergence(one, two).sum(1)
        torch.testing.assert_close(metric.divergence(one, two), expected, rtol=1e-7, atol=1e-9)
    near = one + 1e-4 * theta(count, 4).flip(0)
    quadratic = ((near - one) * metric.tensor_action(one, near - one)).flatten(1).sum(1)
    torch.testing.assert_close(metric.divergence(one, near), quadratic, rtol=2e-3, atol=1e-14)


def test_counts_agree_with_torch_and_sum_to_one() -> None:
    at = theta(3, 4)
    x = torch.arange(0, 400, dtype=torch.float64)[:, None].expand(400, 4)
    every = at[:1].expand(400, -1, -1)
    plain = NegativeBinomial()
    torch.testing.assert_close(
        plain.log_prob(x, every), plain.distribution(every).log_prob(x), rtol=1e-9, atol=1e-9
    )
    for metric in (plain, ZeroInflated()):
        p = metric.log_prob(x, every).exp()
        torch.testing.assert_close(p.sum(0), torch.ones(4, dtype=torch.float64))
        torch.testing.assert_close((p * x).sum(0), metric.mean_of(at[:1])[0])


def test_the_gaussian_is_torchs_own() -> None:
    at, x = theta(2, 4), theta(1, 4)[:, 0]
    metric = HeteroscedasticGaussian()
    expected = -metric.distribution(at).log_prob(x).sum(1)
    torch.testing.assert_close(metric.distortion(x, at), expected)
    assert metric.log_normaliser(1.0, 4) == 0.0
    assert metric.log_normaliser(2.0, 4) is None
    assert math.isclose(float(metric.own_distortion(x).sum()), 0.0)


def parameters(z: Tensor, count: int) -> Tensor:
    """A decoder of one latent whose parameters all bend with it, ``z (..., 1)``."""
    slopes = torch.linspace(-1.0, 1.5, 3 * count, dtype=z.dtype).reshape(count, 3)
    return 0.4 + 0.6 * torch.tanh(z[..., None] * slopes + 0.2) + 0.3 * slopes * z[..., None]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("beta", [1.0, 0.4])
def test_stationarity_holds_for_each_row_at_its_own_optimum(name: str, beta: float) -> None:
    """E[sigma eps dD/dz] = beta (1 - sigma^2), posteriors optimised under quadrature."""
    import numpy as np

    metric, count = CASES[name]
    nodes, weights = (torch.from_numpy(v) for v in np.polynomial.hermite_e.hermegauss(80))
    weights = weights / weights.sum()
    generator = torch.Generator().manual_seed(1)
    drawn = parameters(torch.randn(6, 1, generator=generator, dtype=torch.float64), count)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        x = metric.distribution(drawn).sample().double()

    def distortions(z: Tensor) -> Tensor:
        """D of rows at nodes, ``(B, K) -> (B, K)``."""
        theta = parameters(z[..., None], count)
        rows = x[:, None].expand(-1, z.shape[1], -1)
        return metric.distortion(rows.flatten(0, 1), theta.flatten(0, 1)).reshape(z.shape)

    mean = torch.zeros(6, 1, dtype=torch.float64, requires_grad=True)
    log_std = torch.full_like(mean, -0.5).requires_grad_()
    search = torch.optim.LBFGS(
        [mean, log_std], max_iter=400, tolerance_grad=1e-13, tolerance_change=1e-16,
        line_search_fn="strong_wolfe", history_size=20,
    )  # fmt: skip

    def loss() -> Tensor:
        search.zero_grad()
        std = log_std.exp()
        rate = 0.5 * (mean.square() + std.square() - 1 - 2 * log_std)
        value = (
            (distortions(mean + std * nodes) * weights).sum(1, keepdim=True) + beta * rate
        ).sum()
        value.backward()
        return value

    search.step(loss)
    std = log_std.detach().exp()
    z = (mean.detach() + std * nodes).requires_grad_()
    (slope,) = torch.autograd.grad(distortions(z).sum(), z)
    answer = (std * nodes * slope * weights).sum(1, keepdim=True) / beta
    residual = answer + std.square() - 1
    assert float(std.min()) < 0.9  # the rows tell something
    assert float(residual.abs().max()) < 1e-6
