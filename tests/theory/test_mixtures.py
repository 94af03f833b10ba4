"""Posteriors on a grid, and bounds of I(x; z), against the whole matrix of densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from isoprobe.theory import joint_information
from isoprobe.theory.joint_information import Bound, Joint, gaussian_bound
from isoprobe.theory.mixtures import log_where_positive, mixture, standard_error
from tests.theory.codes import LinearCode, spread

CHANCE = np.random.default_rng(11)


def same(found: object, expected: object, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=atol)


def test_a_mixture_is_the_sum_of_its_gaussians() -> None:
    mean, std = (part[:, 0] for part in spread(700, 1))
    weights = CHANCE.random((700, 2)) < 0.4
    made = mixture(mean, std)
    dense = stats.norm.pdf(made.grid, mean[:, None], std[:, None])
    assert made.widened == 0 and made.step == 0.5 * std.min()
    same(np.diff(made.grid), made.step)
    assert made.grid[0] == (mean - 7 * std).min()
    beyond = made.grid[-1] - (mean + 7 * std).max()
    assert 0 <= beyond < made.step
    same(made.log_prior, stats.norm.logpdf(made.grid))
    same(made.mixed()[0], dense.sum(axis=0), atol=1e-9)
    same(made.mixed(weights), weights.T.astype(float) @ dense, atol=1e-9)
    functions = np.stack([made.grid, made.grid**2])
    same(made.expected(functions), np.stack([mean, mean**2 + std**2], axis=1), 1e-6, 1e-8)
    total = dense.sum(axis=0)
    same(made.own_share(total), made.step * (dense**2 / total).sum(axis=1), 1e-6)
    assert np.isfinite(made.own_share(np.zeros_like(total))).all()
    sizes = [len(rows) for rows, _, _ in made.windows()]
    assert sum(sizes) == 700 and max(sizes) < 350  # blocks, so that each touches its own window
    for rows, window, _ in made.windows():
        low, high = made.grid[window][[0, -1]]
        assert low <= (mean - 7 * std)[rows].min() + made.step
        assert high >= (mean + 7 * std)[rows].max() - made.step
        assert high - low < np.ptp(made.grid)


def test_a_grid_of_few_points_holds_every_row_widened() -> None:
    mean, std = np.array([-3.0, 0.0, 4.0]), np.array([0.001, 0.5, 0.002])
    made = mixture(mean, std, 101)
    assert made.widened == 2
    assert len(made.grid) <= 101
    same(made.std, [made.step, 0.5, made.step])
    # the widest reach, (4 + 7 s) - (-3.5), in 100 steps at most, 14 of them for what widening adds
    assert made.step == pytest.approx((4 + 7 * 0.002 + 3.5) / (100 - 14))
    assert made.grid[0] <= -3.5 + 1e-12 and made.grid[-1] >= 4 + 7 * made.step - 1e-12
    exactly = mixture(np.array([0.0, 1.0]), np.array([0.25, 0.25]), 37)
    assert (exactly.widened, len(exactly.grid)) == (0, 37)
    assert mixture(np.array([0.0, 1.0]), np.array([0.25, 0.25]), 36).widened == 0
    assert mixture(np.array([0.0, 1.0]), np.array([0.25, 0.25]), 36).step > 0.125
    assert len(mixture(mean, std).grid) > 8000


def test_logs_of_nothing_weigh_nothing_and_one_row_has_no_error() -> None:
    same(log_where_positive(np.array([0.0, 0.5, 2.0])), [0, math.log(0.5), math.log(2)])
    rows = CHANCE.normal(size=(9, 2))
    same(standard_error(rows), stats.sem(rows, axis=0))
    assert np.isnan(standard_error(rows[:1])).all()
    assert np.isfinite(standard_error(rows[:2])).all()


def bounds(
    mean: np.ndarray, std: np.ndarray, seed: int
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """L and (a) by row and their influences from the whole matrix, the shares, and log q."""
    count = len(mean)
    chance = np.random.default_rng((seed, joint_information._STREAM))
    draws = mean + std * chance.standard_normal(mean.shape)
    log_q = stats.norm.logpdf(draws[:, None], mean, std).sum(axis=2)
    own = np.diag(log_q)
    shares = special.softmax(log_q, axis=1)
    lower = own - special.logsumexp(log_q, axis=1) + math.log(count)
    alone = np.where(np.eye(count, dtype=bool), -np.inf, log_q)
    upper = own - special.logsumexp(alone, axis=1) + math.log(count - 1)
    told = []
    for values, part in ((lower, shares), (upper, special.softmax(alone, axis=1))):
        told += [values, values - values.mean() - (part.sum(axis=0) - part.sum(axis=0).mean())]
    return told, np.diag(shares), log_q


@pytest.mark.parametrize("blocks", [1, 9])
def test_bounds_of_the_joint_are_those_of_the_whole_matrix(
    blocks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    mean, std = spread(90, 2, seed=2)
    monkeypatch.setattr(joint_information, "_ELEMENTS", 90 * 90 // blocks)
    parts = [len(rows) for rows, _ in joint_information._log_densities(mean, mean, std)]
    assert parts == [90 // blocks] * blocks
    found = joint_information.joint_information(mean, std, seed=3)
    (lower, lower_moves, upper, upper_moves), shares, _ = bounds(mean, std, 3)
    for bound, values, moves in (
        (found.lower, lower, lower_moves), (found.upper[0], upper, upper_moves),
    ):  # fmt: skip
        same(bound.value, values.mean())
        same(bound.influence, moves, 1e-8)
        same(bound.se, stats.sem(moves))
    same(found.own_share, shares.mean())
    assert [bound.name for bound in found.upper[:2]] == ["own row out", "Gaussian"]
    assert joint_information.joint_information(mean, std).lower.value == pytest.approx(
        bounds(mean, std, 0)[0][0].mean()
    )


def test_rows_are_widened_where_each_has_a_share_of_its_own() -> None:
    for narrow, wide in ((0.75, False), (0.6, True), (0.1, True)):
        mean, std = spread(150, 2, seed=4, narrow=narrow)
        found = joint_information.joint_information(mean, std)
        assert (len(found.upper) == 3) is (found.own_share > 0.05) is wide, found.own_share
    assert 0.05 < joint_information.joint_information(*spread(150, 2, 4, 0.6)).own_share < 0.1


def test_each_width_serves_some_code() -> None:
    """Half of the rows choose the width, the others are evaluated; own rows left out."""
    best = set()
    for latents, scale, narrow in (
        (1, 0.3, 0.005), (1, 1, 0.01), (2, 0.6, 0.1), (3, 0.8, 0.1), (6, 1, 0.1), (12, 1, 0.1),
    ):  # fmt: skip
        mean, std = spread(300, latents, 1, narrow)
        mean, std = scale * mean, scale * std
        found = joint_information.joint_information(mean, std).upper[2]
        chance = np.random.default_rng((0, joint_information._STREAM))
        draws = mean + std * chance.standard_normal(mean.shape)
        order = chance.permutation(300)
        tried = {}
        for width in (0.1, 0.2, 0.3, 0.4, 0.6, 1.0):
            wide = np.sqrt(std**2 + width**2)
            logs = stats.norm.logpdf(draws[:, None], mean, wide).sum(axis=2)
            logs[np.eye(300, dtype=bool)] = -np.inf
            own = stats.norm.logpdf(draws, mean, std).sum(axis=1)
            tried[width] = own - special.logsumexp(logs, axis=1) + math.log(299)
        width = min(tried, key=lambda width: tried[width][order[:150]].mean())
        told = tried[width][order[150:]]
        assert found.name == f"widened by {width:g}"
        same(found.value, told.mean())
        same(found.se, stats.sem(told))
        best.add(width)
    assert len(best) == 6, best


def test_only_so_many_rows_are_widened(monkeypatch: pytest.MonkeyPatch) -> None:
    mean, std = spread(100, 2, seed=5, narrow=0.1)
    monkeypatch.setattr(joint_information, "WIDENED_ROWS", 40)
    order = np.random.default_rng(1).permutation(100)
    draws = mean + std
    own = stats.norm.logpdf(draws, mean, std).sum(axis=1) + math.log(2 * math.pi)
    few = joint_information._widened(draws, own, mean, std, order)
    monkeypatch.undo()
    assert few != joint_information._widened(draws, own, mean, std, order)
    monkeypatch.setattr(joint_information, "WIDENED_ROWS", 41)
    assert few == joint_information._widened(draws, own, mean, std, order)


def test_a_gaussian_of_the_same_moments_and_its_influence() -> None:
    """Its influence is what one row's weight does to the bound, by differences."""
    mean, std = spread(60, 3, seed=6)
    found = gaussian_bound(mean, std)

    def bound(weights: np.ndarray) -> float:
        share = weights / weights.sum()
        centred = mean - share @ mean
        total = centred.T @ (share[:, None] * centred) + np.diag(share @ std**2)
        return float(0.5 * np.linalg.slogdet(total)[1] - share @ np.log(std).sum(axis=1))

    same(found.value, bound(np.ones(60)) + 3 * 4 / (4 * 60))
    step = 1e-4
    for row in (0, 7, 31):
        more = np.ones(60)
        more[row] += step
        less = 2 - more
        slope = 60 * (bound(more) - bound(less)) / (2 * step)
        assert found.influence is not None
        assert found.influence[row] == pytest.approx(slope, rel=1e-5)
    assert found.se == pytest.approx(stats.sem(found.influence))
    assert found.name == "Gaussian"


def test_intervals_of_bounds_hold_their_bias_on_its_side() -> None:
    up, down = Bound("", 3.0, 0.1, None, 0.5), Bound("", 3.0, 0.1, None, -0.5)
    plain = Bound("", 3.0, 0.1)
    assert (up.below, up.above) == pytest.approx((2.3, 3.2))
    assert (down.below, down.above) == pytest.approx((2.8, 3.7))
    assert (plain.below, plain.above) == pytest.approx((2.8, 3.2))
    joint = Joint(Bound("", 1.0, 0.0), (up, Bound("low", 2.0, 0.0)), 0.0)
    assert joint.lowest.name == "low" and joint.middle == 1.5


def test_a_linear_codes_bounds_enclose_its_information() -> None:
    linear = LinearCode(3.0, 3)
    found = joint_information.joint_information(*linear.draw(800, seed=3), seed=1)
    low, high = found.lower.below, min(bound.above for bound in found.upper)
    assert low <= linear.information <= high
