"""Isometric coordinates and traversals as a run stores them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.errors import OptionError
from isoprobe.results.reader import Result
from isoprobe.theory.isometric import read_map
from tests.oracles import small_vae
from tests.theory.test_linear_vae import BETA, EIGENVALUES, KEPT, analyzed, model


@pytest.fixture(scope="module")
def result() -> Result:
    return analyzed(model(), analyses=["traversal:latents=3,steps=5", "coordinates"])


def test_y_of_the_linear_vae_is_a_scaled_mean(result: Result) -> None:
    rows = result.samples(names=["mean", "y"])
    slope = np.sqrt(EIGENVALUES[KEPT])
    np.testing.assert_allclose(rows["y"][:, KEPT], rows["mean"][:, KEPT] * slope, rtol=1e-9)
    variance = result["importance"]["exact"].values
    np.testing.assert_allclose(variance[KEPT], EIGENVALUES[KEPT], rtol=1e-6)
    means = EIGENVALUES[KEPT] - BETA / 2
    of_means = result["coordinates"]["variance_of_mean"].values[KEPT]
    np.testing.assert_allclose(of_means, means, rtol=1e-6)


def test_round_trip_through_the_stored_map() -> None:
    vae = small_vae(size=6, latents=3)
    x = np.random.default_rng(0).normal(size=(400, 6))
    result = isoprobe.analyze(vae, x, metric="sse", beta=0.1, analyses=["coordinates"])
    rows, stored = result.samples(names=["mean", "y"]), read_map(result)
    np.testing.assert_allclose(stored.to_isometric(rows["mean"]), rows["y"], atol=1e-12)
    np.testing.assert_allclose(stored.from_isometric(rows["y"]), rows["mean"], atol=1e-5)


def test_traversal_decodes_what_it_says(result: Result) -> None:
    group, vae = result["traversal"], model()
    np.testing.assert_array_equal(group["latents"].values, [0, 1, 2])
    z = torch.zeros(5, 6, dtype=torch.float64)
    z[:, 1] = torch.as_tensor(group["z"].values[1])
    np.testing.assert_allclose(group["images"].values[1], vae.decode(z).detach().numpy(), atol=1e-6)
    np.testing.assert_array_equal(group["z"].values[:, [0, -1]], [[-2, 2]] * 3)


def test_equal_steps_in_y_are_equal(result: Result) -> None:
    group = result["traversal"]
    steps = np.diff(group["y_equal_y"].values, axis=1)
    np.testing.assert_allclose(steps, steps[:, :1] * np.ones((1, 4)), rtol=1e-9)
    back = read_map(result)
    for rank, latent in enumerate(group["latents"].values):
        found = back.coordinates[latent].to_isometric(group["z_equal_y"].values[rank])
        np.testing.assert_allclose(found, group["y_equal_y"].values[rank], atol=1e-9)


def test_traversal_around_a_sample_starts_from_its_mean() -> None:
    vae = small_vae(size=6, latents=3)
    x = np.random.default_rng(0).normal(size=(50, 6))
    result = isoprobe.analyze(
        vae, x, metric="sse", beta=0.1, batch_size=7, analyses=["traversal:at=20"]
    )
    np.testing.assert_allclose(
        result["traversal"]["base"].values, result.samples(20, 21, ["mean"])["mean"][0]
    )


@pytest.mark.parametrize("options", ["latents=0", "low=2", "at=-1", "at=99"])
def test_impossible_traversals_are_refused(options: str) -> None:
    vae = small_vae(size=6, latents=3)
    x = np.random.default_rng(0).normal(size=(50, 6))
    with pytest.raises(OptionError, match="traversal"):
        isoprobe.analyze(vae, x, metric="sse", beta=0.1, analyses=[f"traversal:{options}"])


def test_distance_in_y_is_distance_in_the_metric() -> None:
    """On a trained toy model, between each sample and its nearest neighbour in y."""
    path = Path(__file__).parents[2] / "examples" / "toy_mix.safetensors"
    result = isoprobe.analyze(path, samples=2000, analyses=["coordinates"])
    rows = result.samples(names=["mean", "y"])
    y = torch.as_tensor(rows["y"])
    apart = torch.cdist(y, y).fill_diagonal_(torch.inf)
    nearest = apart.argmin(dim=1)
    with torch.no_grad():
        x_check = isoprobe.load(path).decode(torch.as_tensor(rows["mean"]))
    in_metric = (x_check - x_check[nearest]).norm(dim=1)
    ratio = apart.min(dim=1).values / in_metric
    assert ratio.median().item() == pytest.approx(1, abs=0.05)
