"""The formulas, each against another way to the same number."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.distributions import Normal, kl_divergence

from isoprobe.theory import formulas

BETA = 0.7
GENERATOR = torch.Generator().manual_seed(0)
#: pullback of a linear decoder of latents that hardly, moderately and strongly matter
G = torch.tensor([[0.0, 0.01, 0.3], [2.0, 50.0, 1e6]], dtype=torch.float64)
#: the deviation that minimises sigma^2 g + beta KL for a mean of unit variance
OPTIMAL = (BETA / 2 / (G + BETA / 2)).sqrt()


def grams(count: int = 5, rows: int = 7, columns: int = 4) -> torch.Tensor:
    j = torch.randn(count, rows, columns, generator=GENERATOR, dtype=torch.float64)
    return j.mT @ j


def test_kl_is_that_of_the_normal_distributions() -> None:
    mean = torch.tensor([[0.0, 1.5, -3.0], [0.2, 0.0, 7.0]], dtype=torch.float64)
    std = torch.tensor([[1.0, 0.3, 2.0], [1e-8, 40.0, 1.0]], dtype=torch.float64)
    expected = kl_divergence(Normal(mean, std), Normal(0.0, 1.0))
    torch.testing.assert_close(formulas.kl_divergence(mean, std), expected, rtol=1e-14, atol=1e-14)


def test_the_optimal_deviation_is_the_optimum() -> None:
    """What the tests below rest on, by the derivative of the loss itself."""
    std = OPTIMAL.clone().requires_grad_()
    loss = std.square() * G + BETA * formulas.kl_divergence(torch.zeros_like(G), std)
    (slope,) = torch.autograd.grad(loss.sum(), std)
    torch.testing.assert_close(slope / BETA * std.detach(), torch.zeros_like(G))


def test_the_norm_is_one_less_the_variance_at_an_optimum() -> None:
    norm = formulas.isometry_norm(OPTIMAL, G, BETA)
    torch.testing.assert_close(norm, 1 - OPTIMAL**2)
    assert isinstance(formulas.isometry_norm(OPTIMAL.numpy(), G.numpy(), BETA), np.ndarray)


def test_the_residual_vanishes_at_an_optimum_and_nowhere_else() -> None:
    norm = formulas.isometry_norm(OPTIMAL, G, BETA)
    torch.testing.assert_close(formulas.residual(norm, OPTIMAL**2), torch.zeros_like(G))
    wider = 1.1 * OPTIMAL
    assert (formulas.residual(formulas.isometry_norm(wider, G, BETA), wider**2) > 0).all()
    assert formulas.residual(0.75, 0.5) == 0.25


def test_rough_importance_of_a_linear_model() -> None:
    """Var(y) = g + beta/2 where the mean has variance 1 - sigma^2, an equality for Gaussians."""
    found = formulas.rough_importance(OPTIMAL**-2, BETA)
    torch.testing.assert_close(found, G + BETA / 2)


def test_nats_are_turned_into_bits() -> None:
    assert math.isclose(formulas.NATS_TO_BITS * math.log(8), 3)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cosines_are_those_of_the_columns(scale, dtype) -> None:
    j = torch.randn(5, 7, 4, generator=GENERATOR, dtype=torch.float64) * scale
    columns = j / j.norm(dim=1, keepdim=True)
    gram = (j.mT @ j).to(dtype)
    found = formulas.cosines(gram)
    tolerance = 1e-13 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(found.double(), columns.mT @ columns, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("dtype", "tiny"), [(torch.float64, 1e-290), (torch.float32, 1e-34)])
def test_cosines_of_columns_near_the_smallest_numbers(dtype, tiny) -> None:
    gram = torch.tensor([[[4.0, 2.0], [2.0, 4.0]]], dtype=dtype) * tiny
    expected = torch.tensor([[[1.0, 0.5], [0.5, 1.0]]], dtype=dtype)
    torch.testing.assert_close(formulas.cosines(gram), expected)


def test_the_cosine_with_a_column_that_vanishes_is_zero() -> None:
    for dtype in (torch.float32, torch.float64):
        gram = torch.tensor([[[4.0, 0.0], [0.0, 0.0]]], dtype=dtype)
        assert formulas.cosines(gram).tolist() == [[[1.0, 0.0], [0.0, 0.0]]]
        below = torch.tensor([[[4.0, 0.0], [0.0, -1e-9]]], dtype=dtype)  # by rounding
        assert formulas.cosines(below).isfinite().all()


def test_cosines_beyond_one_by_rounding_are_one() -> None:
    gram = torch.tensor([[[1.0, 1.1], [-1.1, 1.0]]], dtype=torch.float64)
    assert formulas.cosines(gram).tolist() == [[[1.0, 1.0], [-1.0, 1.0]]]


def test_cosines_of_a_single_gram_and_of_stacks() -> None:
    stack = grams(6).reshape(2, 3, 4, 4)
    torch.testing.assert_close(formulas.cosines(stack)[1, 2], formulas.cosines(stack[1, 2]))


def test_hadamards_gap_is_the_difference_of_the_logarithms() -> None:
    gram = grams()
    expected = 0.5 * (gram.diagonal(dim1=1, dim2=2).log().sum(1) - torch.linalg.slogdet(gram)[1])
    torch.testing.assert_close(formulas.hadamard_gap(gram), expected)
    assert formulas.hadamard_gap(gram.float()).dtype == torch.float64


def test_hadamards_gap_is_zero_where_columns_are_orthogonal() -> None:
    gram = torch.diag_embed(torch.tensor([[1e-9, 1.0, 1e9]], dtype=torch.float64))
    assert formulas.hadamard_gap(gram).abs().item() < 1e-15


def test_the_active_subset_keeps_rows_and_columns() -> None:
    gram = torch.arange(32.0).reshape(2, 4, 4)
    active = torch.tensor([True, False, True, False])
    assert formulas.active_subset(gram, active).tolist() == [
        [[0.0, 2.0], [8.0, 10.0]],
        [[16.0, 18.0], [24.0, 26.0]],
    ]
