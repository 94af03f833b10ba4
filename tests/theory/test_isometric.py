"""Ground truth 2: one-dimensional inverse-CDF VAEs, and the map z -> y and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import isoprobe
from isoprobe.contracts import VAE, Posterior
from isoprobe.theory.isometric import Coordinate, ScaleTable

BETA = 1e-6

# quantile functions of unit-free shapes, their variances, and the excess of the rough estimate
SHAPES = {
    "triangle": (
        lambda u: np.where(u < 0.5, np.sqrt(2 * u), 2 - np.sqrt(2 * (1 - u))),
        1 / 6,
        1.017,
    ),
    "ramp": (np.sqrt, 1 / 18, 1.081),
    "uniform": (lambda u: u, 1 / 12, 1.103),
}


def _filled(shape: str, count: int = 200_000) -> ScaleTable:
    """The ideal VAE of s = F^-1(Phi(z)): sigma^-2 = 1 + (2/beta) (ds/dz)^2 at prior quantiles."""
    quantile = SHAPES[shape][0]
    u = (np.arange(count) + 0.5) / count
    z = norm.ppf(u)
    step = 1e-4
    slope = (quantile(norm.cdf(z + step)) - quantile(norm.cdf(z - step))) / (2 * step)
    sigma = 1 / np.sqrt(1 + 2 / BETA * slope**2)
    table = ScaleTable(1)
    # Var(mu) + E sigma^2 = 1 for the aggregate posterior to be the prior
    shrink = np.sqrt(1 - sigma**2)
    for part in np.array_split(np.arange(count), 13):
        table.update((z * shrink)[part, None], sigma[part, None])
    return table


@pytest.mark.parametrize("shape", SHAPES)
def test_variance_of_y_is_the_variance_of_the_source(shape: str) -> None:
    variance = _filled(shape).curve(0).variance(BETA)
    assert variance == pytest.approx(SHAPES[shape][1], rel=0.01)


@pytest.mark.parametrize("shape", SHAPES)
def test_rough_estimate_is_high_by_the_known_excess(shape: str) -> None:
    table = _filled(shape)
    curve = table.curve(0)
    quantile, variance, excess = SHAPES[shape]
    u = (np.arange(400_000) + 0.5) / 400_000
    z, step = norm.ppf(u), 1e-4
    slope = (quantile(norm.cdf(z + step)) - quantile(norm.cdf(z - step))) / (2 * step)
    rough = (slope**2).mean()
    assert rough / variance == pytest.approx(excess, rel=2e-3)
    assert curve.variance(BETA) < rough


def test_merged_tables_equal_one() -> None:
    generator = np.random.default_rng(0)
    mean, std = generator.normal(size=(500, 3)), generator.gamma(2.0, size=(500, 3))
    whole, left, right = ScaleTable(3), ScaleTable(3), ScaleTable(3)
    whole.update(mean, std)
    left.update(mean[:200], std[:200])
    right.update(mean[200:], std[200:])
    left.merge(right)
    np.testing.assert_allclose(left.sums, whole.sums, rtol=1e-12)


knots = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=12, unique=True).map(sorted)


@settings(deadline=None, max_examples=100)
@given(knots=knots, seed=st.integers(0, 1000))
def test_to_isometric_and_back(knots: list[float], seed: int) -> None:
    generator = np.random.default_rng(seed)
    slopes = generator.uniform(0.01, 50, len(knots))
    coordinate = Coordinate(np.array(knots, dtype=float), slopes)
    z = generator.uniform(-8, 8, 200)
    y = coordinate.to_isometric(z)
    np.testing.assert_allclose(coordinate.from_isometric(y), z, atol=1e-6)
    assert coordinate.to_isometric(np.zeros(1))[0] == pytest.approx(0, abs=1e-12)
    assert (np.diff(coordinate.to_isometric(np.sort(z))) >= 0).all()


def test_constant_scale_is_a_straight_line() -> None:
    coordinate = Coordinate(np.array([-1.0, 0.5, 2.0]), np.full(3, 4.0))
    z = np.linspace(-7, 7, 50)
    np.testing.assert_allclose(coordinate.to_isometric(z), 4 * z, atol=1e-12)


#: standard deviation of D' over the variance of the source, THEORY's ground truth 2
SPREADS = {"triangle": 0.251, "ramp": 0.607, "uniform": 0.645}


def _quantile(shape: str, u: torch.Tensor) -> torch.Tensor:
    if shape == "triangle":
        half = u.clamp(max=0.5)
        other = (1 - u).clamp(max=0.5)
        return torch.where(u < 0.5, (2 * half).sqrt(), 2 - (2 * other).sqrt())
    return u.sqrt() if shape == "ramp" else u


def _distribution(shape: str, s: torch.Tensor) -> torch.Tensor:
    if shape == "triangle":
        return torch.where(s < 1, s**2 / 2, 1 - (2 - s) ** 2 / 2)
    return s**2 if shape == "ramp" else s


def _inverse_cdf_vae(shape: str) -> VAE:
    """Decoder F^-1(Phi(z)); the encoder's sigma is the optimum's at every point."""

    def decode(z: torch.Tensor) -> torch.Tensor:
        return _quantile(shape, torch.special.ndtr(z))

    def encode(x: torch.Tensor) -> Posterior:
        z = torch.special.ndtri(_distribution(shape, x))
        slope = torch.func.jvp(decode, (z,), (torch.ones_like(z),))[1]
        return Posterior(z, 1 / (1 + 2 / BETA * slope**2).sqrt())

    return VAE(decode=decode, encode=encode, input_shape=(1,), latent_shape=(1,))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_whole_run_on_the_inverse_cdf_vae(shape: str) -> None:
    u = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    x = _quantile(shape, u)[:, None]
    result = isoprobe.analyze(
        _inverse_cdf_vae(shape), x, metric="sse", beta=BETA, samples=None,
        analyses=["isometry", "importance"],
    )  # fmt: skip
    variance, excess = SHAPES[shape][1:]
    importance = result["importance"]
    assert importance["exact"].values[0] == pytest.approx(variance, rel=0.01)
    assert importance["rough"].values[0] / variance == pytest.approx(excess, rel=5e-3)
    isometry = result["isometry"]
    assert isometry["pullback_mean"].values[0] / variance == pytest.approx(excess, rel=5e-3)
    assert isometry["pullback_sd"].values[0] / variance == pytest.approx(SPREADS[shape], abs=5e-3)
    # z comes back from x through 1 - Phi, which in the tail keeps about 8 digits
    np.testing.assert_allclose(isometry["residual_mean"].values, 0, atol=1e-7)


def test_latents_are_ranked_by_their_variance_not_by_its_rough_estimate() -> None:
    # the rough estimate is 10 % high for the uniform source and 2 % for the triangle
    size = float(np.sqrt(0.97 * SHAPES["triangle"][1] / SHAPES["uniform"][1]))
    uniform, triangle = _inverse_cdf_vae("uniform"), _inverse_cdf_vae("triangle")

    def decode(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([size * uniform.decode(z[:, :1]), triangle.decode(z[:, 1:])], dim=1)

    def encode(x: torch.Tensor) -> Posterior:
        z = torch.special.ndtri(
            torch.stack([x[:, 0] / size, _distribution("triangle", x[:, 1])], 1)
        )
        slope = torch.func.jvp(decode, (z,), (torch.ones_like(z),))[1]
        return Posterior(z, 1 / (1 + 2 / BETA * slope**2).sqrt())

    generator = torch.Generator().manual_seed(0)
    u = torch.rand(20_000, 2, dtype=torch.float64, generator=generator)
    x = torch.stack([size * u[:, 0], _quantile("triangle", u[:, 1])], dim=1)
    vae = VAE(decode=decode, encode=encode, input_shape=(2,), latent_shape=(2,))
    importance = isoprobe.analyze(
        vae, x, metric="sse", beta=BETA, samples=None, analyses=["importance"]
    )["importance"]
    assert importance["rough"].values[0] > importance["rough"].values[1]
    np.testing.assert_array_equal(importance["order"].values, [1, 0])
