"""Small formulas against what other libraries, or a sum written out, say of the same numbers."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import special, stats

from isoprobe.theory.differences import gap, paired_gap
from isoprobe.theory.discoveries import added_parts, adjusted_p_values, smallest_p_value, trimmed
from isoprobe.theory.drift import ks_p_value, ks_statistic, mean_shift, normal_p_value
from isoprobe.theory.isometry import surplus_of_answers, surplus_of_products
from isoprobe.theory.relaxation import relax
from isoprobe.theory.scores import Mahalanobis, auroc_error, score_of
from isoprobe_plugins.analyses.isometry import GRAM_LIMIT, Isometry
from isoprobe_plugins.analyses.traversal import _BYTES, _MOST, COLLAPSED, Traversal

CHANCE = np.random.default_rng(20261127)
OURS, THEIRS = CHANCE.normal(1.0, 2.0, 40), CHANCE.normal(1.7, 0.5, 9)
COLUMNS = {
    "score": CHANCE.random(6),
    "score_iwae": CHANCE.random(6),
    "score_rate": CHANCE.random((6, 3)),
    "score_distortion": CHANCE.random(6),
    "score_transform": CHANCE.random(6),
    "mean": CHANCE.normal(size=(6, 3)),
}


def test_a_gap_of_independent_rows_is_welchs_and_that_of_pairs_students() -> None:
    found = gap(OURS, THEIRS)
    se = math.sqrt(OURS.var(ddof=1) / 40 + THEIRS.var(ddof=1) / 9)
    value = THEIRS.mean() - OURS.mean()
    assert found.value == pytest.approx(value, rel=1e-12)
    assert found.se == pytest.approx(se, rel=1e-12)
    half = stats.t.ppf(0.975, 8) * se
    assert (found.low, found.high) == pytest.approx((value - half, value + half), rel=1e-3)
    paired = paired_gap(OURS[:9], THEIRS)
    told = stats.ttest_rel(THEIRS, OURS[:9])
    assert paired.value / paired.se == pytest.approx(told.statistic, rel=1e-12)
    ends = told.confidence_interval(0.95)
    assert (paired.low, paired.high) == pytest.approx((ends.low, ends.high), rel=1e-3)


@pytest.mark.parametrize("kind", [gap, paired_gap])
def test_one_row_has_no_error_and_two_have(kind) -> None:
    one = kind(np.array([1.0]), np.array([3.0]))
    assert one.value == 2
    assert (one.se, one.low, one.high) == (math.inf, -math.inf, math.inf)
    assert np.isfinite(kind(np.array([1.0, 2.0]), np.array([3.0, 5.0])).se)


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    distinct, counts = np.array([0.01, 0.02, 0.2, 0.21, 0.9]), np.array([2, 1, 5, 9, 3])
    every = np.repeat(distinct, counts)
    np.testing.assert_allclose(
        np.repeat(adjusted_p_values(distinct, counts), counts),
        stats.false_discovery_control(every),
        rtol=1e-12,
    )
    assert adjusted_p_values(np.empty(0), np.empty(0, int)).shape == (0,)
    assert smallest_p_value(99) == 0.01


def test_the_highest_scores_are_left_out_by_their_share() -> None:
    ordered = np.arange(10.0)
    assert [len(trimmed(ordered, share)) for share in (0.0, 0.25, 0.3, 0.99)] == [10, 8, 7, 1]
    assert trimmed(ordered, 0.3).max() == 6


def test_parts_add_up_to_their_score_exactly() -> None:
    for parts in (CHANCE.normal(size=7), np.array([1e16, 1.0, -1e-3]), np.array([0.1])):
        score = float(parts.sum()) * (1 + 1e-15)
        found = added_parts(score, parts)
        assert math.fsum(found) == score
        np.testing.assert_allclose(found, parts, rtol=1e-12, atol=4)


def test_drift_of_scores_is_that_of_kolmogorov_and_smirnov() -> None:
    new, old = np.round(OURS, 1), np.round(CHANCE.normal(1.2, 2.0, 75), 1)
    assert ks_statistic(new, old) == pytest.approx(stats.ks_2samp(new, old).statistic, abs=1e-12)
    size = math.sqrt(40 * 75 / 115)
    for statistic in (0.05, 0.1, 0.3, 0.6):
        x = (size + 0.12 + 0.11 / size) * statistic  # Stephens (1970)
        assert ks_p_value(statistic, 40, 75) == pytest.approx(special.kolmogorov(x), abs=1e-9)
    assert ks_p_value(0.01, 40, 75) == 1.0
    assert ks_p_value(0.19 / (size + 0.12 + 0.11 / size), 40, 75) == 1.0


def test_shifts_of_means_are_welchs_and_their_chances_normal() -> None:
    found = mean_shift(
        np.array([1.0, 2.0, 2.0]), np.array([2.0, 0.0, 0.0]), 40,
        np.array([1.7, 2.0, 1.0]), np.array([0.5, 0.0, 0.0]), 9,
    )  # fmt: skip
    told = stats.ttest_ind_from_stats(1.0, 2.0, 40, 1.7, 0.5, 9, equal_var=False)
    assert found[0] == pytest.approx(told.statistic, rel=1e-12)
    assert found[1] == 0 and found[2] == math.inf
    nearly = mean_shift(np.ones(1), np.full(1, 1e-9), 4, np.full(1, 1 + 1.9e-6), np.zeros(1), 4)
    assert nearly == 0  # rounding of the sums of both
    beyond = mean_shift(np.ones(1), np.full(1, 1e-9), 4, np.full(1, 1 + 2.1e-6), np.zeros(1), 4)
    assert beyond < -1000
    shifts = np.array([-2.0, 0.0, 0.3, 4.0])
    np.testing.assert_allclose(normal_p_value(shifts), 2 * stats.norm.sf(abs(shifts)), rtol=1e-12)


def test_the_error_of_the_auroc_is_that_of_its_placements() -> None:
    scores, odd = np.round(CHANCE.normal(size=30), 1), np.arange(30) % 4 == 0
    wins = (scores[odd][:, None] > scores[~odd]) + 0.5 * (scores[odd][:, None] == scores[~odd])
    by_odd, by_normal = wins.mean(axis=1), wins.mean(axis=0)
    expected = by_odd.var(ddof=1) / len(by_odd) + by_normal.var(ddof=1) / len(by_normal)
    assert auroc_error(scores, odd) == pytest.approx(math.sqrt(expected), rel=1e-12)
    assert math.isnan(auroc_error(scores[:6], np.arange(6) == 2))
    assert math.isfinite(auroc_error(scores[:6], np.arange(6) < 2))


def test_each_score_is_made_of_its_columns() -> None:
    place = Mahalanobis.of(CHANCE.normal(size=(50, 3)), np.full((50, 3), 0.5), 0.1)
    expected = {
        "loss": COLUMNS["score"],
        "iwae": COLUMNS["score_iwae"],
        "kl": COLUMNS["score_rate"].sum(axis=1),
        "reconstruction": COLUMNS["score_distortion"] + COLUMNS["score_transform"],
        "mahalanobis": place.distance(COLUMNS["mean"]),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(score_of(name, COLUMNS, place), values, rtol=1e-12)
    alone = {name: values for name, values in COLUMNS.items() if name != "score_transform"}
    np.testing.assert_array_equal(
        score_of("reconstruction", alone, None), COLUMNS["score_distortion"]
    )
    np.testing.assert_array_equal(score_of("mahalanobis", COLUMNS, None), COLUMNS["score"])


def test_what_draws_give_beside_their_mean_has_mean_zero_over_antithetic_axes() -> None:
    """2 u_k (J'GJ u)_j less its mean; for j = k alone, and where only the diagonal is known."""
    chance = torch.Generator().manual_seed(3)
    shifts = torch.randn(2, 5, 3, generator=chance, dtype=torch.float64)
    std = torch.rand(2, 3, generator=chance, dtype=torch.float64)
    root = torch.randn(2, 3, 3, generator=chance, dtype=torch.float64)
    gram = root @ root.mT
    every = surplus_of_products(shifts, std, gram)
    answers = surplus_of_answers(shifts, std, gram)
    torch.testing.assert_close(answers, every.diagonal(0, -2, -1))
    for b in range(2):
        expected = sum(2 * torch.outer(u, gram[b] @ u) for u in shifts[b]) / 5
        expected = expected - 2 * std[b].square()[:, None] * gram[b]
        torch.testing.assert_close(every[b], expected)
    diagonal = gram.diagonal(0, -2, -1)
    torch.testing.assert_close(
        surplus_of_answers(shifts, std, diagonal),
        2 * (shifts.square().mean(1) - std.square()) * diagonal,
    )


def test_what_the_isometry_asks_for_follows_from_method_and_latents() -> None:
    beyond = Isometry._beyond_the_diagonal
    assert beyond("exact", GRAM_LIMIT) == {"gram"}
    assert beyond("exact", GRAM_LIMIT + 1) == beyond("finite-difference", 2) == set()
    assert "gram" not in beyond("probe", 2)


@pytest.mark.parametrize(
    ("inputs", "walked"), [(4, 28), (10**5, _BYTES // (4 * 11 * 10**5)), (10**9, 1)]
)
def test_walks_are_of_the_used_latents_that_fit(inputs: int, walked: int) -> None:
    states = np.zeros(30)
    states[:2] = COLLAPSED
    shelf = {
        "order": SimpleNamespace(values=np.arange(30)),
        "state": SimpleNamespace(values=states),
    }
    traversal = Traversal(steps=11)
    traversal.setup = SimpleNamespace(vae=SimpleNamespace(input_size=inputs))
    found = traversal._walked(SimpleNamespace(results={"importance": shelf}))
    assert found.tolist() == list(range(2, 2 + min(walked, _MOST)))


def test_walks_are_decoded_as_the_sample_held_only_where_a_model_is_told_something() -> None:
    fixed, held = object(), lambda told: ("held", told.tolist())
    for conditional, count, expected in (
        (None, 3, fixed),
        ("a label", 0, fixed),
        ("a label", 3, ("held", [1.0])),
    ):
        traversal = Traversal()
        vae = SimpleNamespace(conditional=conditional, held=held)
        traversal.setup = SimpleNamespace(vae=vae, fixed=fixed)
        traversal.told = SimpleNamespace(count=count, mean=np.ones(1))
        assert traversal._vae() == expected


def test_what_a_step_promises_of_a_quadratic_energy_is_what_it_wins() -> None:
    """A path of least energy in flat space is straight: half the squared length over K."""
    chance = torch.Generator().manual_seed(4)
    paths = torch.randn(3, 6, 2, generator=chance, dtype=torch.float64)
    scale = torch.tensor([0.01, 1.0, 100.0], dtype=torch.float64)

    def energy(rows: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        return 0.5 * scale[rows] * points.diff(dim=1).square().sum((1, 2))

    form = 2 * torch.eye(4, dtype=torch.float64)
    form -= torch.diag(torch.ones(3), 1) + torch.diag(torch.ones(3), -1)
    tensors = scale[:, None, None] * torch.eye(2, dtype=torch.float64)
    before = energy(torch.arange(3), paths)
    least = 0.5 * scale * (paths[:, -1] - paths[:, 0]).square().sum(1) / 5
    found = relax(paths, energy, form, tensors, 1, 1e-9)
    torch.testing.assert_close(found.energy, least)
    torch.testing.assert_close(found.remaining, (before - least) / before)
