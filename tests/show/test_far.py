"""Distances of the same pairs agree between models that differ in their coordinates alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.contracts import VAE, Posterior
from isoprobe.results.reader import Result
from isoprobe.show.compare import compare
from isoprobe.show.report import compared_page
from tests.theory.test_linear_vae import BETA, EIGENVALUES, covariance, exact_moments, model


def analysed(vae: VAE, **options: object) -> Result:
    return isoprobe.analyze(
        vae, exact_moments(covariance(), 400), metric="sse", beta=BETA, samples=None,
        analyses=("coordinates", f"geometry:pairs={options.pop('pairs', 12)}"), **options,
    )  # fmt: skip


def turned() -> VAE:
    """The linear VAE with its first two latents turned by 60 degrees: |dz| is kept, |dy| is not."""
    plain = model()
    angle = torch.tensor(torch.pi / 3, dtype=torch.float64)
    turn = torch.eye(len(EIGENVALUES), dtype=torch.float64)
    turn[:2, :2] = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).view(2, 2)

    def encode(x: torch.Tensor) -> Posterior:
        assert plain.encode is not None
        found = plain.encode(x)
        return Posterior(found.mean @ turn.T, found.std)

    return VAE(
        lambda z: plain.decode(z @ turn), encode, plain.input_shape, plain.latent_shape,
        module=plain.module,
    )  # fmt: skip


@pytest.fixture(scope="module")
def results() -> Iterator[list[Result]]:
    with ExitStack() as stack:
        yield [stack.enter_context(analysed(vae)) for vae in (model(), turned())]


def test_the_shortest_paths_of_a_turned_model_are_the_same(results: list[Result]) -> None:
    found = compare(results).distances
    assert found is not None
    assert found.pairs == 12
    d, y, z = (
        np.array(found.correlations[kind]) for kind in ("geodesic", "distance_y", "distance_z")
    )
    np.testing.assert_allclose(d, 1, atol=1e-8)
    np.testing.assert_allclose(z, 1, atol=1e-6)
    assert y[0, 1] < 0.999
    np.testing.assert_allclose(np.diag(y), 1)
    expected = [result["geometry"]["distance_y"].values for result in results]
    assert y[0, 1] == pytest.approx(np.corrcoef(*expected)[0, 1])


def test_they_are_shown_as_text_and_page(results: list[Result]) -> None:
    compared = compare(results)
    assert "correlation of distances over 12 pairs" in compared.to_text()
    assert "shortest path d 1.00" in compared.to_text()
    assert "Distances between the same 12 pairs" in compared_page(results, compared)


def test_other_pairs_are_not_compared(results: list[Result]) -> None:
    with analysed(model(), seed=1) as other:
        found = compare([results[0], other]).distances
        assert found is not None
        assert not found.correlations
        assert "have measured other pairs" in compare([results[0], other]).to_text(300)


def test_without_the_analysis_there_is_nothing(results: list[Result]) -> None:
    with isoprobe.analyze(
        model(), exact_moments(covariance(), 400), metric="sse", beta=BETA, samples=None
    ) as bare:
        assert compare([results[0], bare]).distances is None
