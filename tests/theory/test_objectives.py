"""Objectives that hold rates at a target, on linear models whose optimum water-filling tells."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from tests.theory.test_hard_models import (
    EIGENVALUES,
    Plain,
    analyzed,
    codes,
    covariance,
    exact_moments,
    minimise,
)


def rates_at(beta: float) -> np.ndarray:
    """Rates of the six directions by reverse water-filling, nats."""
    found: np.ndarray = 0.5 * np.log(np.maximum(EIGENVALUES / (beta / 2), 1))
    return found


def remarks(result: object) -> str:
    group = result["diagnosis"]  # type: ignore[index]
    if "remark" not in group:
        return ""
    found = [str(v) for v in (*group["remark"].values, *group["remark_evidence"].values)]
    return " ".join(found)


def linear() -> tuple[Plain, torch.Tensor]:
    """Return an untrained linear VAE and rows of exact moments."""
    torch.manual_seed(0)
    module = Plain(nn.Identity(), nn.Linear(6, 4), nn.Linear(4, 6), 4).double()
    return module, torch.as_tensor(exact_moments(covariance(), 32))


def test_capacity_recovers_the_weight_that_balances_and_does_not_blame_the_training() -> None:
    gamma, capacity = 20.0, 3.0
    module, x = linear()

    def loss() -> torch.Tensor:
        distortion, rate = module.parts(x, (4,))
        return distortion + gamma * ((rate.sum() - capacity).square() + 1e-2).sqrt()

    minimise(module, loss, 2500)
    reached = module.rates(x, (4,)).sum()
    grid = np.linspace(0.01, 8, 20000)
    each = np.array([rates_at(b).sum() for b in grid])
    beta = float(grid[np.argmin(np.abs(each - reached))])
    vae = module.vae((6,), (4,), gamma).with_facts(beta=None, capacity=capacity)
    with analyzed(vae) as result:
        assert float(result["conditions"]["beta"].values) == pytest.approx(beta, rel=0.05)
        assert result.attrs["beta_source"] == "recovered"
        assert codes(result) == []
        assert "constraint" in remarks(result)
        assert f"gamma |KL - {capacity:g}|" in remarks(result)


def test_free_bits_recover_beta_from_the_latents_above_the_floor() -> None:
    beta, floor = 1.0, 0.45
    module, x = linear()

    def loss() -> torch.Tensor:
        distortion, rate = module.parts(x, (4,))
        return distortion + beta * rate.clamp_min(floor).sum()

    minimise(module, loss, 4000)
    rate = module.rates(x, (4,))
    held = rate < 1.1 * floor
    assert held.any()
    assert (~held).any()
    vae = module.vae((6,), (4,), beta).with_facts(free_bits=floor)
    with analyzed(vae) as result:
        assert float(result["conditions"]["beta"].values) == pytest.approx(beta, rel=0.03)
        assert codes(result) == []
        assert "constraint" in remarks(result)
        label = result["diagnosis"]["label"].values
        assert not any(str(word) == "collapsed" for word in label[held])
        # what is held there has a smaller weight of its own, the slope of its distortion
        each = result["conditions"]["beta_each"].values[held]
    assert each.max() < 0.8 * beta
