"""Means of what only some samples show: unbiased, sharper with a fit, honest about their errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.statistics.assisted import AssistedMeans
from isoprobe_plugins.architectures.linear import linear_vae

ITEMS, ROWS, SHARE = 2, 400, 0.25
OWN = np.array([[0, 1], [0, 2]])


def world(seed: int, rows: int, noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Covariates (1, a, b), and a value of each item that is nearly linear in its own; mean 1."""
    generator = np.random.default_rng(seed)
    covariates = np.hstack([np.ones((rows, 1)), generator.normal(size=(rows, ITEMS))])
    bent = 0.3 * (covariates[:, 1:] ** 2 - 1)
    values = 1 + covariates[:, 1:] + bent + noise * generator.normal(size=(rows, ITEMS))
    return covariates, values[:, :, None]


def seen_rows(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng([seed, 1]).random((rows, ITEMS)) < SHARE


def test_everything_seen_gives_the_plain_mean() -> None:
    covariates, values = world(0, ROWS, 0.5)
    means = AssistedMeans(ITEMS, 3, OWN, 1)
    means.update(covariates, np.ones((ROWS, ITEMS), dtype=bool), values)
    found, error = means.means()
    np.testing.assert_allclose(found, values.mean(axis=0))
    np.testing.assert_allclose(error, values.std(axis=0) / np.sqrt(ROWS), rtol=0.02)
    np.testing.assert_allclose(means.sd(), values.std(axis=0, ddof=1))


def test_what_is_linear_in_the_covariates_is_found_from_a_few() -> None:
    covariates, _ = world(0, ROWS, 0)
    values = (covariates @ np.array([[2.0, 2.0], [3.0, 0.0], [0.0, -1.0]]))[:, :, None]
    means = AssistedMeans(ITEMS, 3, OWN, 1)
    means.update(
        covariates, seen_rows(0, ROWS), np.where(seen_rows(0, ROWS)[:, :, None], values, np.nan)
    )
    sampled = np.abs(values[seen_rows(0, ROWS)[:, 0], 0].mean() - values[:, 0].mean())
    assert abs(means.means()[0][0, 0] - values[:, 0].mean()) < 0.05 * sampled


def test_intervals_cover_the_mean_of_the_population() -> None:
    """400 repetitions of 200 rows, a quarter of them seen, for a fit that is not quite right."""
    covered, sharper = [], []
    for seed in range(400):
        covariates, values = world(seed, 200, 0.3)
        seen = seen_rows(seed, 200)
        means = AssistedMeans(ITEMS, 3, OWN, 1)
        means.update(covariates, seen, values)
        found, error = means.means()
        covered.append(np.abs(found - 1) < 1.96 * error)
        sharper.append(error[0, 0] / (values[seen[:, 0], 0].std() / np.sqrt(seen[:, 0].sum())))
    assert 0.90 <= np.mean(covered) <= 0.98
    assert np.mean(sharper) < 0.8


@pytest.mark.parametrize("rows", [0, 1, 3, 8])
def test_few_samples_get_a_smaller_fit_and_none_gives_nan(rows: int) -> None:
    covariates, values = world(0, 50, 0.5)
    seen = np.zeros((50, ITEMS), dtype=bool)
    seen[:rows] = True
    means = AssistedMeans(ITEMS, 3, OWN, 1)
    means.update(covariates, seen, values)
    found, error = means.means()
    assert np.isfinite(found).all() == np.isfinite(error).all() == (rows > 1)
    if rows == 3:
        np.testing.assert_allclose(found, values[:rows].mean(axis=0))


def test_a_covariate_that_never_varies_takes_no_part() -> None:
    covariates, values = world(0, ROWS, 0.5)
    covariates[:, 2] = 7.0
    means = AssistedMeans(ITEMS, 3, OWN, 1)
    means.update(covariates, seen_rows(0, ROWS), values)
    assert np.abs(means.means()[0] - 1).max() < 0.3


def test_parts_merge_to_the_whole() -> None:
    covariates, values = world(0, ROWS, 0.5)
    seen = seen_rows(0, ROWS)
    whole, left, right = (AssistedMeans(ITEMS, 3, OWN, 1) for _ in range(3))
    whole.update(covariates, seen, values)
    for part, rows in ((left, slice(0, 150)), (right, slice(150, None))):
        part.update(covariates[rows], seen[rows], values[rows])
    restored = AssistedMeans(ITEMS, 3, OWN, 1)
    restored.restore(left.state())
    restored.merge(right)
    np.testing.assert_allclose(restored.means(), whole.means(), rtol=1e-10)
    np.testing.assert_allclose(left.sd() > 0, True)
    with pytest.raises(TypeError, match="cannot merge"):
        whole.merge(object())  # type: ignore[arg-type]


def test_a_norm_that_never_varies_has_an_error_of_0() -> None:
    """Every sample of a linear VAE has the same norms, which leaves rounding alone in the fit."""
    covariance = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5, 0.3], dtype=torch.float64))
    for seed in range(5):
        x = np.random.default_rng(seed).multivariate_normal(np.zeros(5), covariance.numpy(), 1000)
        with isoprobe.analyze(
            linear_vae(covariance, 0.1, 5),
            x,
            metric="sse",
            pullback="probe",
            analyses=["isometry"],
        ) as result:
            error = result["isometry"]["norm_se"].values
        np.testing.assert_allclose(error, 0, atol=1e-8)
