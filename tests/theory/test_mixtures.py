"""Posteriors on a grid, and bounds of I(x; z), against the whole matrix of densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from isoprobe.theory import joint_information
from isoprobe.theory import kl_parts as parts_of
from isoprobe.theory.joint_information import Bound, Joint, gaussian_bound
from isoprobe.theory.kl_parts import KLParts, LatentParts, kl_parts
from isoprobe.theory.mixtures import log_where_positive, mixture, standard_error
from tests.theory.codes import LinearCode, same, spread

CHANCE = np.random.default_rng(11)


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


# ------------------------------------------------------------------ the KL term in parts


def made(joint: Joint | None, whole: Bound, rows: np.ndarray | None = None) -> KLParts:
    """Parts of which the joint alone matters."""
    nothing = np.zeros(1)
    told = np.zeros((4, 2)) if rows is None else np.stack([rows, rows], axis=1)
    latents = LatentParts(*[nothing] * 4, told, nothing, nothing.astype(int), nothing > 0)
    return KLParts(latents, whole, whole, whole, joint)


def test_parts_of_latents_are_those_of_dense_integrals() -> None:
    mean, std = spread(150, 2, seed=9)
    parts = kl_parts(mean, std, seed=3)
    rows = np.zeros((150, 2))
    for j in range(2):
        z = np.linspace(-8, 8, 16_001)
        density = stats.norm.pdf(z, mean[:, j, None], std[:, j, None])
        mixed = density.mean(axis=0)
        logs = np.log(np.maximum(mixed, 1e-300)) - stats.norm.logpdf(z)
        cross = np.trapezoid(density * logs, z)
        kl = 0.5 * (mean[:, j] ** 2 + std[:, j] ** 2 - 1) - np.log(std[:, j])
        own = np.trapezoid(density**2 / np.maximum(150 * mixed, 1e-300), z)
        same(parts.latents.information[j], (kl - cross).mean(), 1e-5)
        same(parts.latents.marginal_kl[j], cross.mean(), 1e-5)
        same(parts.latents.information_se[j], stats.sem(kl - cross), 1e-5)
        same(parts.latents.marginal_kl_se[j], stats.sem(cross), 1e-5)
        same(parts.latents.bias[j], 0.5 * (own.mean() - 1 / 150), 1e-5)
        rows += np.stack([kl - cross, cross], axis=1)
    same(parts.latents.rows, rows, 1e-4, 1e-6)
    for bound, values, bias in (
        (parts.kl, rows.sum(axis=1), 0),
        (parts.information_sum, rows[:, 0], -2 * parts.latents.bias.sum()),
        (parts.marginal_sum, rows[:, 1], 2 * parts.latents.bias.sum()),
    ):
        same((bound.value, bound.se, bound.bias), (values.mean(), stats.sem(values), bias), 1e-4)
        assert bound.influence is not None
        same(bound.influence, values - values.mean(), 1e-4, 1e-5)
    assert parts.joint is not None
    same(parts.joint.lower.value, bounds(mean, std, 3)[0][0].mean())


def test_the_joint_is_estimated_of_few_latents_and_many_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten rows for each of 512 latents at most."""
    joint, whole = Joint(Bound("", 2.0, 0.25), (), 0.02), Bound("", 5.0, 0.1)
    monkeypatch.setattr(parts_of, "joint_information", lambda mean, std, seed: joint)
    monkeypatch.setattr(parts_of, "latent_parts", lambda mean, std: made(None, whole).latents)
    for rows, latents, known in (
        (20, 2, True), (19, 2, False), (10, 1, True), (9, 1, False), (5120, 512, True),
        (5119, 512, False), (5130, 513, False),
    ):  # fmt: skip
        nothing = np.zeros((rows, latents))
        assert (kl_parts(nothing, nothing).joint is not None) is known, (rows, latents)


def test_intervals_of_information_and_total_correlation() -> None:
    whole = Bound("", 5.0, 0.1, None, -0.2)
    upper = (Bound("", 4.0, 0.2), Bound("", 3.0, 0.1))
    joint = Joint(Bound("", 2.0, 0.25), upper, 0.02)
    parts = made(joint, whole)
    assert parts.information == pytest.approx((1.5, 3.2))
    # what is left of the sum, its bias with it: from 5 - 3 to 5 - 2
    assert parts.total_correlation == pytest.approx(
        (2 - 2 * np.hypot(0.1, 0.1), 3 + 0.2 + 2 * np.hypot(0.1, 0.25))
    )
    below = made(Joint(Bound("", -1.0, 0.0), (Bound("", -0.5, 0.1),), 0.02), whole)
    assert below.information == (0.0, 0.0)
    crossed = made(Joint(Bound("", 2.0, 0.0), (Bound("", 0.5, 0.1),), 0.02), whole)
    assert crossed.information == (2.0, 2.0)
    less = made(Joint(Bound("", 7.0, 0.0), (Bound("", 8.0, 0.0),), 0.02), whole)
    assert less.total_correlation == (0.0, 0.0)
    none = made(None, whole)
    assert none.information == none.total_correlation == (0.0, pytest.approx(5.4))
    rows = CHANCE.normal(size=4)
    moves = CHANCE.normal(size=4)
    moves -= moves.mean()
    both = made(Joint(Bound("", 2.0, 0.1, moves), upper, 0.02), whole, rows)
    error = stats.sem(rows - moves)
    assert both.total_correlation[1] == pytest.approx(3 + 0.2 + 2 * error)
    for share, state in (
        (0.05, "point"),
        (0.051, "interval"),
        (0.5, "interval"),
        (0.51, "saturated"),
    ):
        assert made(Joint(Bound("", 2.0, 0.1), upper, share), whole).state == state
    assert none.state == "not estimated"
