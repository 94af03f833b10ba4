"""Weighted draws where the truth is known: exact posteriors, Gaussians too narrow, Pareto tails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import genpareto

import isoprobe
from isoprobe.contracts import Posterior
from isoprobe.errors import OptionError
from isoprobe.probe.weighted import weighted_draws
from isoprobe.registry.lookup import installed
from isoprobe.theory.weighted import bound_gap, effective_draws, fit_pareto, tail_shape
from isoprobe_plugins.architectures.linear import linear_vae

BETA = 0.2
SPECTRUM = torch.diag(torch.tensor([4.0, 1.0, 0.5, 0.1], dtype=torch.float64))


def rows(count: int = 64) -> torch.Tensor:
    drawn = np.random.default_rng(0).multivariate_normal(np.zeros(4), SPECTRUM.numpy(), count)
    return torch.as_tensor(drawn)


def scaled(factor: float):
    """The linear VAE with every sigma off by a factor."""
    from dataclasses import replace

    vae = linear_vae(SPECTRUM, BETA, latent_size=3)

    def encode(x: torch.Tensor) -> Posterior:
        posterior = vae.encode(x)
        return Posterior(posterior.mean, factor * posterior.std)

    return replace(vae, encode=encode)


def test_an_exact_posterior_leaves_no_gap() -> None:
    weights = weighted_draws(scaled(1.0), installed().metric("sse"), rows(), BETA, 50)
    np.testing.assert_allclose(bound_gap(weights), 0, atol=1e-9)
    np.testing.assert_allclose(effective_draws(weights), 50, rtol=1e-9)
    np.testing.assert_array_equal(tail_shape(weights), 0)


def test_many_draws_close_the_gap_to_the_posterior() -> None:
    """KL of N(0, r^2 s^2) from N(0, s^2), three latents."""
    factor = 0.9
    weights = weighted_draws(scaled(factor), installed().metric("sse"), rows(40), BETA, 4000)
    divergence = 3 * (factor**2 - 1 - 2 * np.log(factor)) / 2
    gap = bound_gap(weights)
    error = gap.std(ddof=1) / np.sqrt(len(gap))
    assert abs(gap.mean() - divergence) < 4 * error
    assert error < 0.1 * divergence


def test_the_elbo_of_the_draws_is_the_elbo() -> None:
    vae, x = scaled(1.3), rows(200)
    weights = weighted_draws(vae, installed().metric("sse"), x, BETA, 400)
    with isoprobe.analyze(vae, x.numpy(), beta=BETA, metric="sse") as result:
        found = result.samples(names=["distortion", "kl"])
    expected = -found["distortion"] / BETA - found["kl"]
    error = weights.std(axis=1, ddof=1) / 20
    assert np.abs((weights.mean(axis=1) - expected) / error).max() < 5


@pytest.mark.parametrize("shape", [-0.3, 0.0001, 0.3, 0.7, 1.1])
def test_the_fit_finds_what_scipy_draws_and_fits(shape: float) -> None:
    values = np.sort(genpareto.rvs(shape, scale=2.5, size=5000, random_state=0))
    found, scale = fit_pareto(values)
    theirs, _, their_scale = genpareto.fit(values, floc=0)
    assert found == pytest.approx(shape, abs=0.06)
    assert (found, scale) == (pytest.approx(theirs, abs=0.02), pytest.approx(their_scale, rel=0.03))


@pytest.mark.parametrize("factor", [0.5, 0.7])
def test_a_posterior_that_is_too_narrow_shows_in_the_tail(factor: float) -> None:
    """One latent narrower by r has weights with a tail of shape 1 - r^2."""
    noise = np.random.default_rng(0).normal(size=(20, 200_000))
    weights = noise**2 * (1 - factor**2) / 2
    # logarithms in the tail slow it down: a few hundredths at this number
    assert tail_shape(weights).mean() == pytest.approx(1 - factor**2, abs=0.12)


def test_wide_posteriors_have_no_tail() -> None:
    noise = np.random.default_rng(0).normal(size=(20, 5000))
    assert tail_shape(-(noise**2)).max() < 0.3


def test_the_analysis_says_what_the_bound_is_worth() -> None:
    options = {"beta": BETA, "metric": "sse", "analyses": ["density:rows=64"]}
    with isoprobe.analyze(scaled(1.0), rows(300).numpy(), **options) as good:
        group = {name: v.values for name, v in good["density"].items()}
        assert float(group["iwae_gap"]) == pytest.approx(0, abs=1e-9)
        assert str(group["iwae_claim"]).startswith("near log p(x)")
        assert "a lower bound" in str(group["absolute"])
    with isoprobe.analyze(scaled(0.2), rows(300).numpy(), **options) as bad:
        group = {name: v.values for name, v in bad["density"].items()}
        assert float(group["iwae_gap"]) > 1
        assert str(group["iwae_claim"]).startswith("no claim on log p(x)")
    options |= {"expectation": "two-point"}
    with isoprobe.analyze(scaled(1.0), rows(300).numpy(), **options) as corners:
        assert "no bound" in str(corners["density"]["absolute"].values)
    with isoprobe.analyze(
        scaled(1.0), rows(300).numpy(), **options | {"analyses": ["density:draws=0"]}
    ) as without:
        assert "iwae_gap" not in without["density"]


def test_too_few_draws_are_refused() -> None:
    with pytest.raises(OptionError, match="at least 25"):
        isoprobe.analyze(scaled(1.0), rows().numpy(), analyses=["density:draws=5"])
