"""The error of the exact importance covers its truth; an impossible importance is not shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.contracts import Posterior
from isoprobe.show.summary import to_json, to_text
from isoprobe.statistics.quantiles import student_t95
from isoprobe.theory.formulas import determined
from isoprobe.theory.isometric import ScaleTable
from isoprobe_plugins.architectures.linear import linear_vae

Draw = Callable[[np.random.Generator, int], tuple[np.ndarray, np.ndarray]]


def even(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    return 0.95 * rng.normal(size=count), np.full(count, 0.1)


def restless(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sigma that follows something else than the latent's own mean."""
    return 0.95 * rng.normal(size=count), 0.1 * np.exp(0.5 * rng.normal(size=count))


def wide(rng: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    own, other = rng.normal(size=(2, count))
    return 0.95 * own, 0.5 * np.exp(0.3 * other - 0.2 * own)


def table(mean: np.ndarray, std: np.ndarray) -> ScaleTable:
    found = ScaleTable(1)
    found.update(mean[:, None], std[:, None])
    return found


@pytest.mark.parametrize("draw", [even, restless, wide])
@pytest.mark.parametrize("count", [200, 2000])
def test_intervals_of_the_importance_hold_the_truth(draw: Draw, count: int) -> None:
    rng = np.random.default_rng(0)
    truth = table(*draw(rng, 2_000_000)).variances(0.2)[0]
    tables = [table(*draw(rng, count)) for _ in range(400)]
    values = np.array([t.variances(0.2)[0] for t in tables])
    errors = np.array([t.variance_errors(0.2)[0] for t in tables])
    held = (np.abs(values - truth) <= student_t95(count - 1) * errors).mean()
    assert 0.90 <= held <= 0.98
    assert errors.mean() == pytest.approx(values.std(), rel=0.12)


def test_the_relative_error_of_a_gaussian_latent_is_that_of_a_variance() -> None:
    found = table(*even(np.random.default_rng(1), 100_000))
    relative = found.variance_errors(0.2)[0] / found.variances(0.2)[0]
    assert relative == pytest.approx(np.sqrt(2 / 100_000), rel=0.02)


def test_what_no_latent_can_hold_is_not_determined() -> None:
    exact, error = np.array([1.0, 10.5, 30.0]), np.array([0.1, 1.0, 1.0])
    assert determined(exact, error, 10.0).tolist() == [True, True, False]
    assert determined(exact, error, None).all()
    # eight rows have a relative error of a half, and 1e6 of a variance of 10 is wrong all the same
    assert not determined(np.array([1e6]), np.array([0.5e6]), 10.0).any()


def test_a_latent_with_a_sigma_that_is_far_too_small_is_left_out_of_the_shares() -> None:
    spectrum = torch.diag(torch.tensor([4.0, 1.0, 0.5, 0.1], dtype=torch.float64))
    sound = linear_vae(spectrum, 0.2, latent_size=3)

    def narrow(x: torch.Tensor) -> Posterior:
        posterior = sound.encode(x)
        return Posterior(posterior.mean, posterior.std * torch.tensor([1.0, 1.0, 1e-3]).double())

    x = np.random.default_rng(0).multivariate_normal(np.zeros(4), spectrum.numpy(), 2000)
    options = {"beta": 0.2, "samples": None, "analyses": ["isometry", "rate-distortion"]}
    with isoprobe.analyze(sound, x, **options) as right:
        assert right["importance"]["determined"].values.all()
        assert "n.d." not in to_text(right)
    with isoprobe.analyze(replace(sound, encode=narrow), x, **options) as wrong:
        group = {name: variable.values for name, variable in wrong["importance"].items()}
        assert group["determined"].tolist() == [True, True, False]
        assert group["exact"][2] > 1e4  # the number itself is not clamped
        assert group["called_for"] == pytest.approx([4.0, 1.0, 0.5], rel=0.1)
        assert group["share"][:2] == pytest.approx([0.8, 0.2], abs=0.03)
        assert group["share"][2] == 0
        assert float(wrong["rate-distortion"]["water_filling_rate"].values[2]) == 0
        text = " ".join(to_text(wrong).split())
        assert "the decoder by itself calls for" in text
        assert "n.d." in text and "more variance into one latent than the data has" in text
        assert [row["importance_determined"] for row in to_json(wrong)["latents"]] == [
            True, True, False,
        ]  # fmt: skip
