"""Each formula against the same one written out row by row, or against what another library says.

Inputs are random and away from any optimum, so that no factor is 1 and no term 0 by accident.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    MultivariateNormal,
    Normal,
)

from isoprobe.contracts import Prior
from isoprobe.errors import OptionError
from isoprobe.statistics.jackknife import jackknife
from isoprobe.statistics.moments import Estimate
from isoprobe.theory import covariance, detection, formulas
from isoprobe.theory.conditions import (
    gain_error,
    isometry_eigenvalues,
    mixing,
    round_trip,
    sharpness,
    shift_error,
    turning,
)
from isoprobe.theory.discoveries import added_parts, least_flagged
from isoprobe.theory.drift import ks_p_value
from isoprobe.theory.importance import STATES
from isoprobe.theory.pooling import latent_weights, pooled_ratio, pooled_sums, weighted_median
from isoprobe.theory.prior import MixturePrior, prior_moment, prior_of, prior_terms
from isoprobe.theory.tensors import (
    condition_number,
    gram_eigenvalues,
    log_volume,
    relaxed_distortion,
)

BETA, ROWS, N = 0.7, 5, 3
CHANCE = np.random.default_rng(7)
MEAN, STD = CHANCE.normal(0.4, 1.0, (ROWS, N)), CHANCE.uniform(0.2, 1.3, (ROWS, N))
ROOT = np.tril(CHANCE.normal(size=(ROWS, N, N)), -1) + STD[:, :, None] * np.eye(N)
COLUMNS = CHANCE.normal(size=(ROWS, 6, N))
GRAM = COLUMNS.transpose(0, 2, 1) @ COLUMNS
DRAWS = CHANCE.normal(size=(ROWS, 4, N))
ACTIVE = np.array([True, False, True])
Found = np.ndarray | torch.Tensor | float


def tensor(values: np.ndarray) -> torch.Tensor:
    return torch.tensor(values)


def same(found: Found, expected: object, rtol: float = 1e-12) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=1e-13)


# ------------------------------------------------------------------ conditions and pooling


def test_conditions_beyond_sigma() -> None:
    second, sharp, outer = MEAN[0] ** 2, STD[1] ** -2 - 1, GRAM[0] + DRAWS[0, :3]
    same(sharpness(MEAN, STD, STD**2), (MEAN**2 + STD**2) * (1 / STD**2 - 1))
    wide, called = STD**2 + 0.3, 0.4 * STD
    same(sharpness(MEAN, STD, called, wide), (MEAN**2 + wide) * (1 - called) / STD**2)
    same(gain_error(MEAN[0], sharp, BETA), MEAN[0] / BETA / sharp)
    same(shift_error(MEAN[0], sharp, BETA), MEAN[0] / BETA / sharp)
    shares = mixing(outer, second, sharp, BETA)
    stacked = mixing(np.stack([outer, 2 * outer]), second, sharp, BETA)
    for k in range(N):
        for j in range(N):
            expected = 0.0 if j == k else outer[k, j] / (BETA * second[k] * sharp[j])
            assert shares[k, j] == pytest.approx(expected)
            assert stacked[1, k, j] == pytest.approx(2 * expected)


def test_turns_of_pairs_whose_deviations_differ_little_or_much() -> None:
    deviations = np.array([0.2, 0.5, 0.5, 0.55])
    noise = CHANCE.normal(size=(4, 4))
    found = turning(noise, deviations**2, BETA)
    for k in range(4):
        for j in range(4):
            a, b = deviations[k], deviations[j]
            steep = max(abs(a**2 - b**2) / (a * b), 0.25)
            assert found[k, j] == pytest.approx((noise[k, j] - noise[j, k]) / (BETA * steep))
    assert abs(0.55**2 - 0.5**2) / (0.5 * 0.55) < 0.25 < abs(0.2**2 - 0.5**2) / 0.1


def test_eigenvalues_of_the_scaled_pullback_with_and_without_correlations() -> None:
    for scale, dense in ((STD, STD[:, :, None] * np.eye(N)), (ROOT, ROOT)):
        found = isometry_eigenvalues(tensor(GRAM), tensor(scale), BETA)
        for b in range(ROWS):
            told = np.linalg.eigvalsh(2 / BETA * dense[b].T @ GRAM[b] @ dense[b])
            same(found[b], told[::-1], 1e-9)
    below = isometry_eigenvalues(tensor(-GRAM), tensor(STD), BETA)
    assert below.tolist() == torch.zeros(ROWS, N).tolist()
    same(gram_eigenvalues(tensor(GRAM)), np.linalg.eigvalsh(GRAM), 1e-9)
    assert gram_eigenvalues(tensor(-GRAM)).abs().max() == 0
    three = np.array([1.0, 3.0, 8.0])  # of one tensor
    same(log_volume(three), 0.5 * math.log(24))
    same(condition_number(three), 8)
    same(relaxed_distortion(three), 26 / 3 / 16)


def test_slopes_of_own_samples_are_those_of_a_regression() -> None:
    z, noise = CHANCE.normal(1.0, 1.0, (40, N)), CHANCE.normal(2.0, 1.0, (40, N))
    answers = z @ GRAM[0] + noise
    design = np.hstack([np.ones((40, 1)), z])
    same(round_trip(z, answers), np.linalg.lstsq(design, answers, rcond=None)[0][1:], 1e-9)


def test_the_weighted_median_halves_the_weight() -> None:
    for weights, middle in (
        ([1, 1, 1, 9], 4),
        ([5, 1, 1, 1], 1),
        ([1, 1, 1, 1], 2),
        ([0, 3, 0, 2], 2),
        ([4, 3, 4, 0], 2),
    ):
        order = np.array([2, 0, 3, 1])
        values, heavy = np.arange(1.0, 5.0)[order], np.array(weights, dtype=float)[order]
        assert weighted_median(values, heavy) == middle


@pytest.mark.parametrize("centre", [2.0, -2.0, 0.0])
def test_latents_count_less_from_a_quarter_off_and_nothing_from_a_half(centre: float) -> None:
    scale = abs(centre) or 1.0
    off = np.array([0, 0, 0, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 0.7, -0.4])
    se = scale * np.array([0, 0, 0, 0, 0, 0, 0, 0, 0, np.inf, 0.025])
    se[9] = np.nan
    each = Estimate(centre + scale * off, se, se, se)
    counted = latent_weights(each, np.array([1e3] * 3 + [1.0] * 8))
    same(counted, [1, 1, 1, 1, 1, 0.8, 0.4, 0, 0, 1, 0.6], 1e-9)
    assert latent_weights(each, np.zeros(11)).tolist() == [0] * 11


def test_a_pooled_ratio_is_that_of_the_sums_it_counts() -> None:
    below = CHANCE.uniform(1, 2, (8, 5)) * [1, 1, 1, 1, 0]
    above = below * [1.0, 1.02, 1.01, 3.0, 1.0] + 1e-3 * CHANCE.normal(size=(8, 5))
    top, bottom = pooled_sums(above, below)
    same(
        top, above[:, [0, 1, 2, 4]].sum(axis=1)
    )  # one without a denominator speaks for nobody else
    same(bottom, below[:, [0, 1, 2]].sum(axis=1))
    found, told = pooled_ratio(above, below), jackknife(lambda a, b: a / b, top, bottom)
    assert found is not None
    same((found.value, found.se, found.low), (told.value, told.se, told.low))
    assert pooled_ratio(above[:, :0], below[:, :0]) is None
    assert pooled_ratio(above, 0 * below) is None
    # many without a denominator have no say in what the others agree on
    alone = pooled_sums(
        np.hstack([above[:, :1]] * 4), np.hstack([below[:, :1], *[0 * above[:, :1]] * 3])
    )
    same(alone[1], below[:, 0])


# ------------------------------------------------------------------ a full covariance


def test_posteriors_of_a_full_covariance() -> None:
    root, noise, gram = tensor(ROOT), tensor(DRAWS), tensor(GRAM)
    shifts = (noise @ root.mT).numpy()
    pulled = covariance.pulls(noise, root)
    std = covariance.conditional_std(root)
    surplus = covariance.correlated_surplus(tensor(shifts), gram, root)
    products = covariance.correlated_surplus_of_products(tensor(shifts), gram, root)
    answers = covariance.correlated_surplus_of_answers(tensor(shifts), pulled, gram, std)
    answer = covariance.covariance_answer(products, root)
    parts = covariance.correlated_kl(tensor(MEAN), root)
    for b in range(ROWS):
        sigma = ROOT[b] @ ROOT[b].T
        precision = np.linalg.inv(sigma)
        c = np.diag(precision) ** -0.5
        same(std[b], c)
        same(covariance.marginal_variance(root)[b], np.diag(sigma))
        told = [c**2 * (precision @ u) for u in shifts[b]]
        same(pulled[b], told, 1e-9)
        same(surplus[b], [u @ GRAM[b] @ u - np.trace(GRAM[b] @ sigma) for u in shifts[b]], 1e-9)
        mean = sum(2 * np.outer(u, GRAM[b] @ u) for u in shifts[b]) / 4 - 2 * sigma @ GRAM[b]
        same(products[b], mean, 1e-9)
        whole = sum(2 * p * (GRAM[b] @ u) for p, u in zip(told, shifts[b], strict=True)) / 4
        same(answers[b], whole - 2 * c**2 * np.diag(GRAM[b]), 1e-9)
        # E[u d'] = L E[eps d'], so that L' E[d eps'] is L' E[u d']' L'^-1
        same(answer[b], ROOT[b].T @ mean.T @ np.linalg.inv(ROOT[b].T), 1e-9)
        same(parts[b], 0.5 * (MEAN[b] ** 2 + np.diag(sigma) - 1) - np.log(np.diag(ROOT[b])))
    values = covariance.isometric_eigenvalues(root)
    same(values, [1 - np.linalg.eigvalsh(part.T @ part) for part in ROOT], 1e-9)
    assert bool((values.diff(dim=1) <= 0).all())
    left = covariance.covariance_residual(GRAM, ROOT, BETA)
    same(left, [g / BETA + w - np.eye(N) for g, w in zip(GRAM, ROOT, strict=True)])
    made = covariance.correlated(tensor(MEAN), root)
    same(made.std, std)
    assert made.mean.shape == (ROWS, N) and made.root is root


# ------------------------------------------------------------------ rates, losses, densities


def test_rates_and_losses() -> None:
    kl = formulas.kl_divergence(MEAN, STD)
    same(
        kl,
        [
            [stats_kl(m, s) for m, s in zip(*row, strict=True)]
            for row in zip(MEAN, STD, strict=True)
        ],
    )
    same(formulas.kl_divergence(MEAN, STD, np.log(STD**2)), kl)
    same(formulas.kl_divergence(MEAN, STD, np.log(STD**2) + 1), kl - 0.5)
    same(formulas.rate(kl), [sum(row) for row in kl])
    same(formulas.rate(kl[0]), kl[0].sum())
    same(formulas.bits(kl), kl / math.log(2))
    same(formulas.weighted_rate(kl, BETA), BETA * kl)
    same(
        formulas.objective(MEAN[:, 0], kl, MEAN[:, 1]),
        [m[0] + m[1] + sum(k) for m, k in zip(MEAN, kl, strict=True)],
    )
    same(formulas.objective(MEAN[:, 0], kl), MEAN[:, 0] + kl.sum(axis=1))
    same(formulas.two_points(MEAN, STD), (MEAN + STD) / 2)
    same(formulas.expected_distortion(MEAN, STD, kl), (MEAN + STD) / 2 - kl)
    same(formulas.fixed_distortion(GRAM[:, :, 0]), GRAM[:, :, 0].sum(axis=0) / ROWS)
    same(formulas.excess(MEAN, STD), MEAN - STD)
    assert formulas.loss_ratio(3.0, 4.0) == 0.75 and math.isnan(formulas.loss_ratio(3.0, 0.0))
    same(
        formulas.expected_coding_loss(STD[0] ** 2, ACTIVE, BETA),
        BETA / 2 * (2 - STD[0, 0] ** 2 - STD[0, 2] ** 2),
    )
    same(formulas.mutual_information(kl[0], ACTIVE), kl[0, 0] + kl[0, 2])
    same(formulas.elbo(3.0, 2.0, BETA), -3 / BETA - 2)
    same(formulas.second_moment(MEAN, STD), MEAN**2 + STD**2)
    same(formulas.entropy_rate(STD), -np.log(STD))
    gap = formulas.certificate_gap(kl.mean(axis=0), -np.log(STD).mean(axis=0), ACTIVE)
    same(gap, (MEAN**2 + STD**2 - 1).mean(axis=0)[ACTIVE].sum() / 2)


def stats_kl(mean: float, std: float) -> float:
    nodes, weights = np.polynomial.hermite_e.hermegauss(8)
    z = mean + std * nodes
    logs = stats.norm.logpdf(z, mean, std) - stats.norm.logpdf(z)
    return float(weights @ logs / weights.sum())


def test_what_draws_add_to_the_distortion_by_chance() -> None:
    shifts, diagonal = STD[:, None] * DRAWS, np.diagonal(GRAM, axis1=1, axis2=2)
    by_gram = formulas.surplus_of_gram(tensor(shifts), tensor(STD), tensor(GRAM))
    by_diagonal = formulas.surplus_of_diagonal(tensor(shifts), tensor(STD), tensor(diagonal))
    for b in range(ROWS):
        mean = STD[b] ** 2 @ diagonal[b]
        same(by_gram[b], [u @ GRAM[b] @ u - mean for u in shifts[b]], 1e-9)
        same(by_diagonal[b], [u**2 @ diagonal[b] - mean for u in shifts[b]], 1e-9)


@pytest.mark.parametrize("beta", [0.5, 6.0])
def test_water_filling_is_the_least_rate_at_its_distortion(beta: float) -> None:
    spectrum = np.array([8.0, 2.0, 1.0, 0.25, 0.01])
    rates = formulas.water_filling_rate(spectrum, beta)
    left = formulas.water_filling_distortion(spectrum, beta)
    same(left, [min(v, beta / 2) for v in spectrum])
    same(rates, [0.5 * math.log(v / min(v, beta / 2)) for v in spectrum])
    assert formulas.stays_active(spectrum, beta).tolist() == [v > beta / 2 for v in spectrum]
    assert not formulas.stays_active(np.array([beta / 2]), beta)[0]
    same(formulas.collapse_beta(spectrum), 2 * spectrum)
    both = formulas.water_filling_rate(spectrum, np.array([[beta], [2 * beta]]))
    same(both[1], formulas.water_filling_rate(spectrum, 2 * beta))
    same(formulas.ideal_rate(spectrum, beta), -0.5 * np.log(1 / (1 + 2 * spectrum / beta)))


def test_densities_are_those_of_gaussians() -> None:
    normal = stats.norm.logpdf(MEAN).sum(axis=1)
    same(formulas.log_prior(MEAN), normal)
    # exp(-x'x / beta) is a Gaussian of variance beta / 2
    per = -stats.norm.logpdf(0, scale=math.sqrt(BETA / 2))
    same(formulas.gaussian_log_normaliser(4, BETA), 4 * per)
    rate, loss = np.abs(MEAN[:, 1]), STD[:, 0]
    same(formulas.log_density_by_loss(loss, rate, BETA, 3), -loss / BETA - rate - 3 * per)
    slopes = np.log(math.sqrt(BETA / 2) / STD).sum(axis=1)  # of y in mu
    same(formulas.log_density_by_sigmas(MEAN, STD, BETA), normal - slopes)
    same(formulas.log_density_by_sigmas(MEAN, STD, BETA, rate), rate - slopes)
    same(formulas.log_density_by_sigmas(MEAN[0], STD[0], BETA), normal[0] - slopes[0])
    same(formulas.absolute_log_density(loss, rate, BETA, 1.3), -loss / BETA - rate - 1.3)
    scale = STD[:, 0]
    dense = [0.5 * np.linalg.slogdet(s * np.eye(4))[1] for s in scale]
    same(formulas.log_volume_of_scale(scale, 4), dense)
    same(
        formulas.log_volume_of_diagonal(STD), [0.5 * np.linalg.slogdet(np.diag(s))[1] for s in STD]
    )
    same(formulas.log_volume_of_diagonal(STD[0]), 0.5 * np.log(STD[0]).sum())
    other = GRAM + np.eye(N)
    surface = 0.5 * np.log(np.linalg.det(GRAM) / np.linalg.det(other))
    same(formulas.log_volume_of_surface(GRAM, other), surface, 1e-9)
    assert np.isnan(formulas.log_volume_of_surface(-GRAM, other)).all()
    flat = GRAM * np.array([1.0, 0, 1])
    assert np.isneginf(formulas.log_volume_of_surface(flat, other)).all()
    same(formulas.input_log_density(loss, rate), loss + rate)
    same(formulas.disagreement(loss, rate), loss - rate)
    same(formulas.correlation(loss, rate), stats.pearsonr(loss, rate).statistic)
    assert formulas.correlation(loss[:2], rate[:2]) in (pytest.approx(1), pytest.approx(-1))
    for one, two in ((loss[:1], rate[:1]), (0 * loss, rate), (loss, 0 * rate)):
        assert math.isnan(formulas.correlation(one, two))


# ------------------------------------------------------------------ isometry, then importance


def test_norms_and_residuals() -> None:
    diagonal = np.diagonal(GRAM, axis1=1, axis2=2)
    same(formulas.decoder_response(STD, diagonal), 2 * STD * STD * diagonal)
    same(formulas.isometry_norm(STD, diagonal, BETA), 2 / BETA * STD**2 * diagonal)
    same(formulas.stationary_norm(MEAN, BETA), MEAN / BETA)
    same(formulas.residual(MEAN, STD), MEAN + STD - 1)
    same(formulas.unused_variance(STD), 1 - STD)
    same(formulas.recovered_beta(MEAN, STD), MEAN / (1 - STD))
    called = formulas.variance_called_for(diagonal, BETA)
    same(formulas.isometry_norm(np.sqrt(called), diagonal, BETA), 1 - called)
    same(1 / formulas.inverse_variance_called_for(diagonal, BETA), called)
    lengths = np.sqrt(np.diag(GRAM[0]))
    cosine = np.abs(GRAM[0] / np.outer(lengths, lengths))
    same(formulas.mean_absolute_cosine(cosine, ACTIVE), cosine[0, 2])
    every = formulas.mean_absolute_cosine(cosine, np.ones(N, dtype=bool))
    same(every, (cosine[0, 1] + cosine[0, 2] + cosine[1, 2]) / 3)
    assert formulas.mean_absolute_cosine(cosine, np.arange(N) == 1) == 0
    same(formulas.orthogonality_defect(STD[0], MEAN[0]), np.sqrt(STD[0]) / MEAN[0])


def test_importance_shares_order_and_states() -> None:
    variance = np.array([1.0, np.nan, 5.0, 2.0, 9.0])
    active = np.array([True, True, True, True, False])
    share = formulas.shares(variance, active)
    same(share, [1 / 8, 0, 5 / 8, 2 / 8, 0])
    same(formulas.shares(variance, np.zeros(5, dtype=bool)), np.zeros(5))
    order = formulas.order_of_importance(np.nan_to_num(variance), active)
    assert order.tolist() == [2, 3, 0, 1, 4]
    same(formulas.cumulative_shares(share, order), [1, 1, 5 / 8, 7 / 8, 1])
    same(formulas.rough_importance(variance[2:], BETA), BETA / 2 * variance[2:])
    known = formulas.determined(np.array([3.0, 3.3, 2.0]), np.array([0.4, 0.4, 0]), 2.4)
    assert known.tolist() == [True, False, True]
    for unknown in (None, 0.0, -1.0, math.nan):
        assert formulas.determined(variance, variance, unknown).tolist() == [True] * 5
    assert formulas.determined(np.ones(1), np.zeros(1), 0.5).tolist() == [False]
    idle = np.sqrt([0.79, 0.81, 0.8 + 1e-9])
    assert formulas.idle(idle).tolist() == [False, True, True]
    idle_share = np.array([0.0, 0.05, 0.051, 0.5, 0.949, 0.95, 1.0, 0.5])
    codes = formulas.states(np.arange(8) < 7, idle_share)
    named = [STATES[code] for code in codes]
    assert named == ["active"] * 2 + ["mixed"] * 3 + ["active"] * 2 + ["collapsed"]


# ------------------------------------------------------------------ other priors

SHARES = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
MEANS, STDS = tensor(CHANCE.normal(size=(3, N))), tensor(CHANCE.uniform(0.3, 1.4, (3, N)))


def given(mixed: bool) -> torch.distributions.Distribution:
    if not mixed:
        return Independent(Normal(MEANS[0], STDS[0]), 1)
    return MixtureSameFamily(Categorical(probs=SHARES), Independent(Normal(MEANS, STDS), 1))


@pytest.mark.parametrize("mixed", [False, True])
def test_a_prior_of_torch_is_taken_as_it_is(mixed: bool) -> None:
    theirs, ours = given(mixed), prior_of(given(mixed))
    z = tensor(MEAN)
    same(ours.log_density(z), theirs.log_prob(z))
    same(ours.log_parts(z).sum(1), theirs.log_prob(z))
    assert isinstance(ours, MixturePrior)
    assert ours.words == ("a mixture of 3 Gaussians" if mixed else "a Gaussian")
    assert prior_of(ours) is ours
    weights = SHARES.log() if mixed else torch.zeros(1)
    logs = [w + Normal(MEANS[k], STDS[k]).log_prob(z).sum(1) for k, w in enumerate(weights)]
    shares = torch.stack(logs, 1).softmax(1)
    same(ours.curvature(z), sum(shares[:, k, None] / STDS[k] ** 2 for k in range(shares.shape[1])))
    choice = torch.tensor([0.0, 0.49, 0.51, 0.79, 0.999999], dtype=torch.float64)
    which = [0, 0, 1, 1, 2] if mixed else [0] * 5
    same(ours.draw(z, choice), MEANS[which] + STDS[which] * z)
    # shares that add up to a little less than a draw
    short = MixturePrior(lambda: ((SHARES * 0.999).log(), MEANS, STDS))
    same(short.draw(z[:1], torch.tensor([0.9999])), MEANS[2:] + STDS[2:] * z[:1])
    same(ours.draw(z[:1], torch.ones(1)), MEANS[which[-1:]] + STDS[which[-1:]] * z[:1])


def test_other_priors_are_refused() -> None:
    for wrong in (
        Normal(MEANS[0], STDS[0]),
        Independent(Normal(MEANS, STDS), 1),
        Independent(Normal(MEANS[None], STDS[None]), 1),
        MixtureSameFamily(
            Categorical(probs=SHARES.expand(2, 3)),
            Independent(Normal(MEANS.expand(2, 3, N), STDS), 1),
        ),
        MultivariateNormal(MEANS[0], torch.eye(N, dtype=torch.float64)),
        "standard",
    ):
        with pytest.raises(OptionError, match=f"prior is a {type(wrong).__name__}"):
            prior_of(wrong)


@pytest.mark.parametrize("weighted", [False, True])
def test_what_a_prior_asks_is_what_its_draws_say(weighted: bool) -> None:
    """Draw by draw from the log density alone; with nodes of a quadrature the KL itself."""
    prior = prior_of(given(True))
    mean, std = tensor(MEAN), tensor(STD)
    assert isinstance(prior, Prior)
    if weighted:
        nodes, weights = (tensor(v) for v in np.polynomial.hermite_e.hermegauss(3))
        noise, weights = nodes[:, None].expand(3, N), weights / weights.sum()
    else:
        noise, weights = (
            tensor(DRAWS.transpose(1, 0, 2)),
            torch.full((4,), 0.25, dtype=torch.float64),
        )
    found = prior_terms(prior, mean, std, noise, weights if weighted else None)
    curved = prior.curvature(mean) * std**2
    kl, slope, answer = (torch.zeros_like(mean) for _ in range(3))
    for eps, share in zip(noise, weights, strict=True):
        z = (mean + std * eps).requires_grad_()
        parts = prior.log_parts(z)
        (down,) = torch.autograd.grad(-parts.sum(), z)
        extra = curved * (eps**2 - 1)
        kl += share * (
            Normal(mean, std).log_prob(z.detach()) + 0.5 * eps**2 - 0.5 - parts.detach() - extra / 2
        )
        slope += share * down
        answer += share * (std * eps * down - extra)
    same(found.kl, kl)
    same(found.slope, slope)
    same(found.answer, answer)
    same(prior_moment(MEAN, STD, DRAWS[:, 0]), MEAN * STD + DRAWS[:, 0])


# ------------------------------------------------------------------ scores and decisions


def test_scores_nearer_than_their_tolerance_are_tied() -> None:
    tolerance = detection.tie_tolerance(np.array([-3.0, 1.0]), np.array([[1.0, -2.0], [0, 0]]))
    same(tolerance, [6e-6, 1e-6])
    three = detection.tie_tolerance(np.array([3.0]), np.array([[1.0]]), np.array([-2.0]))
    same(three, [6e-6])
    scores, odd = np.array([1.0, 1.05, 1.2, 0.8, 0.95]), np.array([0, 1, 1, 0, 0], dtype=bool)
    found = detection.detect(scores, odd, 1.0, 0.1)
    assert (found.flagged, found.ties, found.precision, found.recall) == (1, 3, 1.0, 0.5)
    assert found.f1 == pytest.approx(2 / 3)
    nothing = detection.detect(scores, odd, 9.0)
    assert (nothing.precision, nothing.recall, nothing.f1, nothing.flagged) == (0, 0, 0, 0)
    reference = np.array([0.0, 0.5, 1.0])
    same(detection.conformal_p_values(np.array([0.55, 1.2]), reference, 0.1), [0.75, 0.25])
    assert detection.false_alarm_rate(99, 0.05) == pytest.approx(0.05)
    assert detection.false_alarm_rate(100, 0.29) == pytest.approx(30 / 101)


def test_the_least_number_of_rows_that_the_step_up_procedure_flags() -> None:
    for rows in (1, 10, 1000):
        for count in (19, 99, 999):
            for level in (0.05, 0.1, 0.29):
                told = next(
                    k for k in range(1, 10**6) if 1 / (count + 1) <= level * k / rows * (1 + 1e-12)
                )
                assert least_flagged(rows, count, level) == told


def test_what_the_largest_part_cannot_hold_goes_to_the_smallest() -> None:
    for parts, score in (
        ([2.0**53, 1.0, 0.25], 2.0**53 + 1.0),
        ([0.1, -(2.0**53), 3.0], -(2.0**53) + 3.0),
        ([1.0, 2.0, 4.0], 7.0),
    ):
        found = added_parts(score, np.array(parts))
        assert math.fsum(found) == score
        assert (found != parts).sum() <= 2
        assert found.dtype == np.float64


def test_the_chance_of_a_difference_is_one_only_below_where_its_series_fails() -> None:
    """At x = 0.2 the limiting distribution is 1 - 1e-13, and its series still good."""
    for rows, others in ((1, 1), (50, 70), (10**6, 10**6)):
        size = math.sqrt(rows * others / (rows + others))
        factor = size + 0.12 + 0.11 / size
        for x in (0.15, 0.201, 0.25, 0.4, 0.5, 0.7, 1.0, 2.0, 5.0):
            told = stats.kstwobign.sf(x)
            assert ks_p_value(x / factor, rows, others) == pytest.approx(told, abs=1e-12)
