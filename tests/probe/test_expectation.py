"""E_z D against quadrature: unbiased by draws, close by the fixed set, and (A.6) by two points."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.contracts import Posterior
from isoprobe.errors import OptionError
from isoprobe.probe.fixed import PAIRS, TWO_POINT, fixed_noise
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.registry.lookup import installed
from isoprobe.statistics.quantiles import student_t95
from isoprobe_plugins.architectures.linear import linear_vae
from tests.oracles import small_vae

ROWS = 12
NEEDS = {"distortion", "distortion_coding", "distortion_pairs"}


def inputs() -> torch.Tensor:
    return torch.as_tensor(np.random.default_rng(0).random((ROWS, 9)))


def probed(vae, metric, needs, index=None, **options):
    probe = Probe(vae, installed().metric(metric), needs, ProbeOptions(**options))
    x = inputs()
    index = np.arange(ROWS) if index is None else index
    return probe(index, x[: len(index)])


def quadrature(vae, metric) -> tuple[np.ndarray, np.ndarray]:
    """E_z D(x, Dec z) and E_z D(x_check, Dec z) by a Gauss-Hermite grid over every latent."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(9)
    weights = weights / weights.sum()
    x, found = inputs(), installed().metric(metric)
    with torch.no_grad():
        posterior = vae.encode(x)
        check = vae.decode(posterior.mean)
        whole = coding = 0.0
        for places in itertools.product(range(9), repeat=vae.latent_size):
            e = torch.as_tensor(nodes[list(places)])
            output = vae.decode(posterior.mean + posterior.std * e)
            chance = np.prod(weights[list(places)])
            whole = whole + chance * found.distortion(x, output).numpy()
            coding = coding + chance * found.distortion(check, output).numpy()
        own = found.distortion(check, check).numpy()
    return whole, coding - own


@pytest.mark.parametrize("metric", ["sse", "bce"])
@pytest.mark.parametrize("more", [set(), {"pullback"}, {"gram"}], ids=["plain", "diagonal", "gram"])
def test_means_over_draws_are_without_bias(metric: str, more: set[str]) -> None:
    vae = small_vae(latents=2, sigmoid=True)
    truth = quadrature(vae, metric)
    found = []
    for repeat in range(400):
        batch = probed(vae, metric, NEEDS | more, np.arange(ROWS) + ROWS * repeat, pairs=1)
        found.append([batch.array("distortion"), batch.array("distortion_coding")])
    values = np.array(found)
    error = values.std(0, ddof=1) / np.sqrt(len(values))
    off = (values.mean(0) - np.array(truth)) / error
    assert np.abs(off).max() < 4
    assert error.max() < 0.02 * np.abs(truth[0]).max()


def test_the_gram_as_control_takes_noise_away() -> None:
    """Where sigma is small beside the decoder's bends, as it is after training."""
    rough, spread = small_vae(latents=2, sigmoid=True), {}
    with torch.no_grad():
        near = rough.decode(rough.encode(inputs()).mean)

    def narrow(x: torch.Tensor) -> Posterior:
        posterior = rough.encode(x)
        return Posterior(posterior.mean, 0.1 * posterior.std)

    vae = replace(rough, encode=narrow)
    for name, more in (("plain", set()), ("gram", {"gram"})):
        probe = Probe(vae, installed().metric("bce"), NEEDS | more, ProbeOptions(pairs=200))
        pairs = probe(np.arange(ROWS), near).array("distortion_pairs")
        spread[name] = pairs.std(axis=1).mean()
    assert spread["gram"] < 0.6 * spread["plain"]


def test_a_linear_decoder_needs_no_draws() -> None:
    """D is a quadratic form of z, so that the control leaves nothing to chance."""
    spectrum = torch.diag(torch.tensor([4.0, 1.0, 0.5, 0.1], dtype=torch.float64))
    vae, beta = linear_vae(spectrum, 0.2, latent_size=3), 0.2
    x = np.random.default_rng(0).multivariate_normal(np.zeros(4), spectrum.numpy(), 50)
    with isoprobe.analyze(vae, x, beta=beta) as result:
        rows = result.samples(names=["distortion", "distortion_transform"])
    kept = np.array([4.0, 1.0, 0.5])
    added = ((kept - beta / 2) * beta / 2 / kept).sum()
    np.testing.assert_allclose(rows["distortion"], rows["distortion_transform"] + added, rtol=1e-9)


def test_two_points_are_those_of_the_paper() -> None:
    vae, x = small_vae(latents=2, sigmoid=True), inputs()
    batch = probed(vae, "bce", NEEDS | {"distortion_fixed"}, expectation=TWO_POINT)
    metric, posterior = installed().metric("bce"), vae.encode(x)
    points = [vae.decode(posterior.mean + sign * posterior.std) for sign in (1, -1)]
    check = vae.decode(posterior.mean)
    whole = sum(metric.distortion(x, p) for p in points).detach().numpy() / 2
    coding = sum(metric.distortion(check, p) for p in points) / 2 - metric.distortion(check, check)
    np.testing.assert_allclose(batch.array("distortion"), whole, rtol=1e-12)
    np.testing.assert_allclose(batch.array("distortion_fixed"), whole, rtol=1e-12)
    np.testing.assert_allclose(batch.array("distortion_coding"), coding.detach(), rtol=1e-9)


def test_another_expectation_is_refused_in_a_line() -> None:
    with pytest.raises(OptionError, match="gaussian or two-point; found 'corners'"):
        probed(small_vae(), "sse", NEEDS, expectation="corners")


@pytest.mark.parametrize("latents", [1, 3, PAIRS, 40])
def test_the_fixed_set_has_the_moments_of_a_gaussian(latents: int) -> None:
    noise = fixed_noise(latents).numpy()
    np.testing.assert_allclose(noise.mean(0), 0, atol=1e-15)
    np.testing.assert_allclose((noise**2).mean(0), 1, rtol=1e-12)
    if latents <= PAIRS:
        np.testing.assert_allclose(noise.T @ noise / len(noise), np.eye(latents), atol=1e-12)
    np.testing.assert_array_equal(noise[0::2], -noise[1::2])


def test_the_fixed_set_comes_nearer_to_the_truth_than_two_points() -> None:
    off = {"gaussian": [], TWO_POINT: []}
    for seed in range(8):
        vae = small_vae(latents=3, sigmoid=True, seed=seed)
        truth = quadrature(vae, "bce")[0]
        for expectation, errors in off.items():
            found = probed(vae, "bce", {"distortion_fixed"}, expectation=expectation)
            errors.append(found.array("distortion_fixed") - truth)
    size = {name: np.sqrt(np.mean(np.square(errors))) for name, errors in off.items()}
    assert size["gaussian"] < 0.5 * size[TWO_POINT]


def test_intervals_of_the_mean_distortion_hold_the_truth() -> None:
    """1,000 data sets of 20 rows, the truth over infinitely many rows in closed form."""
    spectrum = torch.diag(torch.tensor([4.0, 1.0, 0.5, 0.1], dtype=torch.float64))
    vae, beta, rows = linear_vae(spectrum, 0.2, latent_size=3), 0.2, 20
    x = torch.as_tensor(
        np.random.default_rng(1).multivariate_normal(np.zeros(4), spectrum.numpy(), 1000 * rows)
    )
    probe = Probe(vae, installed().metric("sse"), {"distortion"}, ProbeOptions(pairs=1))
    found = probe(np.arange(len(x)), x).array("distortion").reshape(1000, rows)
    half = student_t95(rows - 1) * found.std(1, ddof=1) / np.sqrt(rows)
    truth = 3 * beta / 2 + 0.1
    held = (np.abs(found.mean(1) - truth) <= half).mean()
    assert 0.92 <= held <= 0.98
