"""The KL term in parts, against codes whose information is known in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from isoprobe.theory.formulas import kl_divergence
from isoprobe.theory.joint_information import gaussian_bound, joint_information
from isoprobe.theory.kl_parts import KLParts, describe, kl_parts, latent_parts
from isoprobe.theory.mixtures import mixture
from tests.theory.codes import LinearCode, atoms, circle


def test_parts_of_a_latent_add_up_to_its_kl() -> None:
    generator = np.random.default_rng(0)
    mean, std = generator.normal(size=(300, 3)), np.exp(generator.normal(size=(300, 3)) - 1)
    parts = latent_parts(mean, std)
    expected = 0.5 * (mean**2 + std**2 - 1) - np.log(std)
    total = parts.information + parts.marginal_kl
    np.testing.assert_allclose(total, expected.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(parts.rows.mean(axis=0).sum(), expected.sum(axis=1).mean())
    assert (parts.information > 0).all()
    assert (parts.marginal_kl > 0).all()


def test_a_gaussian_aggregate_has_its_closed_forms() -> None:
    """Evenly spread quantiles of N(0, tau^2) with one sigma mix to N(0, tau^2 + sigma^2)."""
    from statistics import NormalDist

    count, tau, sigma = 20_000, 1.3, 0.4
    levels = (np.arange(count) + 0.5) / count
    mean = tau * np.array([NormalDist().inv_cdf(level) for level in levels])
    parts = latent_parts(mean[:, None], np.full((count, 1), sigma))
    variance = tau**2 + sigma**2
    assert parts.information[0] == pytest.approx(0.5 * np.log(variance / sigma**2), abs=2e-4)
    assert parts.marginal_kl[0] == pytest.approx(0.5 * (variance - 1 - np.log(variance)), abs=2e-3)


@pytest.mark.parametrize(("target", "size"), [(2.0, 4), (6.0, 10), (19.0, 10)])
def test_linear_codes_lie_within_their_intervals(target: float, size: int) -> None:
    code = LinearCode(target, size)
    parts = kl_parts(*code.draw(2000, seed=1), seed=1)
    for exact, bound in (
        (code.information_sum, parts.information_sum),
        (code.marginal_sum, parts.marginal_sum),
    ):
        assert abs(bound.value - exact) < 4 * bound.se
        assert bound.se < 0.1
    for exact, (low, high) in (
        (code.information, parts.information),
        (code.total_correlation, parts.total_correlation),
    ):
        assert low <= exact <= high


def test_the_bias_of_few_rows_is_foreseen() -> None:
    """KL(q || p) of a standard normal code falls to 0 as 1/N, and its bias says by how much."""
    generator = np.random.default_rng(16)
    excess, foreseen = [], []
    for _ in range(40):
        mean = np.sqrt(1 - 0.1**2) * generator.normal(size=(400, 2))
        parts = latent_parts(mean, np.full_like(mean, 0.1))
        excess.append(parts.marginal_kl.sum())
        foreseen.append(parts.bias.sum())
    assert 0.7 * np.mean(excess) < np.mean(foreseen) < np.mean(excess)
    assert np.mean(foreseen) > 0.03


def test_a_small_code_gets_a_number_and_a_large_one_is_saturated() -> None:
    small, middling, large = (
        kl_parts(*LinearCode(target, size).draw(1000, seed=2))
        for target, size in ((2.0, 4), (6.0, 10), (19.0, 10))
    )
    assert [p.state for p in (small, middling, large)] == ["point", "interval", "saturated"]
    assert small.joint is not None
    assert small.joint.middle == pytest.approx(2.0, abs=0.1)
    low, high = large.information
    assert low == pytest.approx(np.log(1000), abs=0.01)
    assert high > 18.5
    assert "saturated: log N = 6.91" in describe(large)
    assert "saturated" not in describe(middling)
    assert f"I {small.joint.middle:.2f} (" in describe(small)


@pytest.mark.parametrize("count", [1000, 4000])
def test_atoms(count: int) -> None:
    """64 narrow clusters beside two latents of the prior: I = log 64."""
    parts = kl_parts(*atoms(count), seed=3)
    low, high = parts.information
    assert low <= np.log(64) <= high
    assert high - low < 0.1
    # a Gaussian of the same moments holds far more: both kinds of bound are needed
    assert gaussian_bound(*atoms(count)).value > 6


def test_circle() -> None:
    """Rows on a circle of radius sqrt 2 with sigma 0.1: I = 3.0667 nats by quadrature."""
    low, high = kl_parts(*circle(4000), seed=4).information
    assert low <= 3.0667 <= high
    assert high - low < 0.15
    assert gaussian_bound(*circle(4000)).value > 4.5


def test_a_dead_unit_has_nothing() -> None:
    mean, std = np.zeros((50, 2)), np.ones((50, 2))
    parts = kl_parts(mean, std)
    for value in (parts.kl, parts.information_sum, parts.marginal_sum):
        assert value.value == pytest.approx(0, abs=1e-9)
    assert parts.joint is not None
    assert parts.joint.lower.value == pytest.approx(0, abs=1e-12)
    assert not parts.latents.active.any()


def test_equal_rows_tell_nothing_of_which_row() -> None:
    mean, std = np.full((40, 2), 0.7), np.full((40, 2), 0.2)
    parts = kl_parts(mean, std)
    np.testing.assert_allclose(parts.latents.information, 0, atol=1e-9)
    assert parts.joint is not None
    assert parts.joint.lower.value == pytest.approx(0, abs=1e-12)


def test_rows_far_apart_tell_log_n() -> None:
    mean = np.arange(64.0)[:, None] * np.ones(3) * 100
    joint = joint_information(mean, np.full((64, 3), 0.1))
    assert joint.lower.value == pytest.approx(np.log(64), abs=1e-9)
    assert joint.own_share == pytest.approx(1, abs=1e-9)
    assert all(np.isfinite(bound.value) for bound in joint.upper)


def test_duplicated_rows_change_nothing() -> None:
    mean, std = LinearCode(2.0, 4).draw(200, seed=5)
    once, thrice = (
        latent_parts(mean, std),
        latent_parts(np.tile(mean, (3, 1)), np.tile(std, (3, 1))),
    )
    np.testing.assert_allclose(once.information, thrice.information, atol=1e-10)
    np.testing.assert_allclose(once.marginal_kl, thrice.marginal_kl, atol=1e-10)


def test_a_rotation_moves_total_correlation_to_the_marginals() -> None:
    """With one common sigma, I + sum KL_j + TC and I stay; TC and sum KL_j trade."""
    generator = np.random.default_rng(6)
    mean = generator.normal(size=(500, 3)) * [2.0, 1.0, 0.3]
    std = np.full_like(mean, 0.5)
    turn, _ = np.linalg.qr(generator.normal(size=(3, 3)))
    straight, turned = kl_parts(mean, std), kl_parts(mean @ turn, std)
    assert turned.kl.value == pytest.approx(straight.kl.value, rel=1e-12)
    traded = turned.information_sum.value - straight.information_sum.value
    assert abs(traded) > 0.05
    assert straight.marginal_sum.value - turned.marginal_sum.value == pytest.approx(traded)
    assert _lower(turned) == pytest.approx(_lower(straight), abs=0.1)


def test_bounds_are_ordered() -> None:
    for target, size, count in ((2.0, 4, 100), (6.0, 10, 100), (19.0, 10, 300)):
        parts = kl_parts(*LinearCode(target, size).draw(count, seed=7))
        assert parts.joint is not None
        assert parts.joint.lower.value <= np.log(count) + 1e-12
        assert all(parts.joint.lower.value <= bound.value for bound in parts.joint.upper)
        assert parts.information[0] <= parts.information[1]
        assert parts.total_correlation[0] <= parts.total_correlation[1]


def test_the_mixture_weighs_rows_by_one_over_n() -> None:
    """The weights of minibatch sampling sum to 1/N: I would come out log N too large.

    The sum of all parts cannot tell, since I enters it twice with opposite signs.
    """
    mean, std = LinearCode(2.0, 4).draw(500, seed=8)
    draws = mean + std * np.random.default_rng(9).normal(size=mean.shape)
    log_q = (
        -0.5 * ((draws[:, None] - mean) / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)
    ).sum(axis=2)
    own, mixed = np.diag(log_q), np.log(np.exp(log_q).sum(axis=1))
    by_minibatch_weights = (own - (mixed - 2 * np.log(500))).mean()
    right = (own - (mixed - np.log(500))).mean()
    joint = joint_information(mean, std)
    assert by_minibatch_weights - right == pytest.approx(np.log(500))
    assert joint.lower.value == pytest.approx(right, abs=4 * joint.lower.se)


def test_the_left_out_bound_and_the_shares_agree_with_their_definition() -> None:
    mean, std = LinearCode(2.0, 4).draw(60, seed=10)
    joint = joint_information(mean, std, seed=11)
    gap = joint.upper[0].value - joint.lower.value
    # U(a) - L = mean of -log(1 - r) - log(N / (N - 1)), at least r - log(N / (N - 1))
    assert gap >= joint.own_share - np.log(60 / 59)
    assert gap <= 3 * joint.own_share


def test_too_many_latents_for_the_rows_leave_the_joint_out() -> None:
    generator = np.random.default_rng(12)
    parts = kl_parts(generator.normal(size=(60, 7)), np.full((60, 7), 0.3))
    assert parts.joint is None
    assert parts.state == "not estimated"
    assert parts.information == (0.0, parts.information_sum.above)
    assert "not estimated (60 rows)" in describe(parts)


def test_a_posterior_too_narrow_for_the_grid_is_widened_and_counted() -> None:
    mean = np.linspace(-3, 3, 50)
    std = np.full(50, 0.3)
    std[7] = 1e-7
    code = mixture(mean, std)
    assert code.widened == 1
    assert len(code.grid) <= 8192
    assert code.std[7] == pytest.approx(code.step)
    np.testing.assert_array_equal(np.delete(code.std, 7), np.delete(std, 7))
    parts = latent_parts(mean[:, None], std[:, None])
    assert parts.widened[0] == 1
    assert 0 < parts.information[0] < np.log(50)


def test_units_count_as_active_by_the_variance_of_their_mean() -> None:
    mean = np.random.default_rng(13).normal(size=(2000, 3)) * [0.09, 0.11, 1.0]
    np.testing.assert_array_equal(
        latent_parts(mean, np.ones_like(mean)).active, [False, True, True]
    )


def test_rows_drawn_from_the_seed_of_the_draws_are_no_danger() -> None:
    code = LinearCode(2.0, 4)
    joint = joint_information(*code.draw(4000, seed=1), seed=1)
    assert joint.lower.value == pytest.approx(code.information, abs=4 * joint.lower.se)


def test_a_mixture_integrates_to_one() -> None:
    generator = np.random.default_rng(14)
    code = mixture(generator.normal(size=700), np.exp(generator.normal(size=700) - 2))
    assert code.mixed()[0].sum() * code.step == pytest.approx(700, rel=1e-9)
    np.testing.assert_allclose(code.expected(code.grid[None])[:, 0], code.mean, atol=1e-8)
    np.testing.assert_allclose(code.expected(np.ones((1, len(code.grid)))), 1, atol=1e-8)


def test_kl_is_the_formula_of_the_rest() -> None:
    import torch

    generator = np.random.default_rng(15)
    mean, std = generator.normal(size=(30, 2)), np.exp(generator.normal(size=(30, 2)))
    expected = kl_divergence(torch.tensor(mean), torch.tensor(std)).sum(dim=1).mean()
    assert kl_parts(mean, std).kl.value == pytest.approx(float(expected))


def _lower(parts: KLParts) -> float:
    assert parts.joint is not None
    return parts.joint.lower.value
