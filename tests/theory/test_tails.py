"""Weighted draws and the shape of their tail against the definitions, term by term."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from isoprobe.theory.weighted import (
    bound_gap,
    effective_draws,
    fit_pareto,
    log_weights,
    tail_shape,
)
from tests.theory.codes import same, spread

CHANCE = np.random.default_rng(11)


def test_log_weights_are_those_of_their_definition() -> None:
    mean, std = spread(5, 3)
    noise, distortion = CHANCE.normal(size=(5, 4, 3)), CHANCE.random((5, 4))
    z = mean[:, None] + std[:, None] * noise
    log_q = stats.norm.logpdf(z, mean[:, None], std[:, None]).sum(axis=2)
    for prior, told in (
        (None, stats.norm.logpdf(z).sum(axis=2)), (np.cos(z).sum(axis=2), np.cos(z).sum(axis=2))
    ):  # fmt: skip
        found = log_weights(distortion, noise, mean, std, 0.7, prior)
        same(found, -distortion / 0.7 + told - log_q)


def test_the_bound_of_weighted_draws_and_what_they_are_worth() -> None:
    weights = 3 * CHANCE.normal(size=(6, 50)) + 1e4
    same(
        bound_gap(weights),
        special.logsumexp(weights, axis=1) - math.log(50) - weights.mean(axis=1), 1e-8,
    )  # fmt: skip
    w = np.exp(weights - 1e4)
    same(effective_draws(weights), w.sum(axis=1) ** 2 / (w**2).sum(axis=1))


@pytest.mark.parametrize("draws", [25, 36, 100, 225, 400, 1000])
def test_the_shape_of_the_tail_is_that_of_the_largest_draws(draws: int) -> None:
    """A fifth of the draws, 3 sqrt K at most, beyond the next one; ten of shape 1/2 beside."""
    weights = np.random.default_rng(draws).normal(size=(3, draws)) * [[0.5], [2.0], [8.0]]
    tail = min(draws // 5, int(3 * math.sqrt(draws)))
    for row, found in zip(np.sort(weights, axis=1), tail_shape(weights), strict=True):
        w = np.exp(row - row[-1])
        shape = zhang_stephens(w[-tail:] - w[-tail - 1])[0]
        assert found == pytest.approx((tail * shape + 5) / (tail + 10), rel=1e-9)


def zhang_stephens(values: np.ndarray) -> tuple[float, float]:
    """Profile posterior mean over their grid, as Zhang and Stephens (2009) print it."""
    n = len(values)
    m = 30 + int(math.sqrt(n))
    quarter = np.sort(values)[int(n / 4 + 0.5) - 1]
    theta = [
        1 / max(values) + (1 - math.sqrt(m / (i - 0.5))) / (3 * quarter) for i in range(1, m + 1)
    ]
    k = [-np.mean([math.log1p(-t * v) for v in values]) for t in theta]
    profile = [n * (math.log(t / one) + one - 1) for t, one in zip(theta, k, strict=True)]
    share = [1 / sum(math.exp(other - mine) for other in profile) for mine in profile]
    middle = sum(t * s for t, s in zip(theta, share, strict=True))
    found = -float(np.mean(np.log1p(-middle * values)))
    return -found, found / middle


@pytest.mark.parametrize("count", [5, 6, 7, 8, 9, 10, 24, 100])
def test_the_fit_of_a_tail_is_that_of_zhang_and_stephens(count: int) -> None:
    values = np.sort(stats.genpareto.rvs(0.4, scale=2.0, size=count, random_state=count))
    same(fit_pareto(values), zhang_stephens(values), 1e-8)


def test_tails_that_tell_nothing() -> None:
    assert fit_pareto(np.empty(0)) == (0, 0)
    assert fit_pareto(np.array([1.0, 2.0, 3.0, 4.0])) == (0, 2.5)
    assert fit_pareto(np.array([1e-320, 1e-318, 1e-318, 1e-317, 1.0])) == (math.inf, 0)
    same(tail_shape(np.zeros((1, 40))), 0)
    same(tail_shape(np.r_[np.zeros(39), 0.9e-6][None]), 0)
    # one weight beyond all others: no shape is found, and the prior's half stands for ten draws
    same(tail_shape(np.r_[np.zeros(39), 1.0][None]), 5 / 18)
    same(tail_shape(np.r_[np.zeros(39), 1.1e-6][None]), 5 / 18)
