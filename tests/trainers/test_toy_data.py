"""Toy data: densities that integrate to 1, cdf and quantile that agree, exact moments."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isoprobe.errors import IsoprobeError
from isoprobe.registry.lookup import installed
from isoprobe_trainers.toy.data import (
    PAPER_VARIANCES,
    SHAPES,
    Normal,
    Ramp,
    ToyRecipe,
    Triangle,
    Uniform,
    generate,
)
from isoprobe_trainers.toy.source import ToySource, parse

ALL_SHAPES = [Triangle, Uniform, Ramp, Normal]
variances = st.floats(0.01, 100)


@pytest.mark.parametrize("shape", ALL_SHAPES)
@given(variance=variances)
def test_moments_by_quadrature_are_those_declared(shape, variance):
    made = shape(variance)
    s = np.linspace(-12, 12, 400_001) * np.sqrt(variance)
    p = np.exp(made.log_density(s))
    step = s[1] - s[0]
    # the uniform's two jumps cost the rectangle rule up to a step's worth each
    assert np.sum(p) * step == pytest.approx(1, abs=1e-4)
    assert np.sum(p * s) * step == pytest.approx(0, abs=2e-4 * np.sqrt(variance))
    assert np.sum(p * s**2) * step == pytest.approx(variance, rel=5e-4)


@pytest.mark.parametrize("shape", ALL_SHAPES)
@given(variance=variances, u=st.floats(1e-6, 1 - 1e-6))
def test_quantile_inverts_the_cdf(shape, variance, u):
    made = shape(variance)
    s = made.quantile(np.array([u]))
    assert made.cdf(s)[0] == pytest.approx(u, abs=1e-9)


@pytest.mark.parametrize("shape", ALL_SHAPES)
def test_the_density_is_the_slope_of_the_cdf(shape):
    made = shape(2.0)
    s = made.quantile(np.linspace(0.03, 0.97, 31))
    slope = (made.cdf(s + 1e-5) - made.cdf(s - 1e-5)) / 2e-5
    np.testing.assert_allclose(np.exp(made.log_density(s)), slope, rtol=1e-4)


@pytest.mark.parametrize("shape", [Triangle, Uniform, Ramp])
def test_nothing_lies_outside_the_support(shape):
    made = shape(1.0)
    assert np.isneginf(made.log_density(np.array([-10.0, 10.0]))).all()
    np.testing.assert_array_equal(made.cdf(np.array([-10.0, 10.0])), [0, 1])


@pytest.mark.parametrize("kind", SHAPES)
def test_directions_are_orthonormal_and_sources_come_back(kind):
    data = generate(ToyRecipe(kind, seed=3, samples=500))
    np.testing.assert_allclose(data.directions @ data.directions.T, np.eye(3), atol=1e-14)
    np.testing.assert_allclose(data.recover_sources(data.x), data.sources, atol=2e-6)
    assert data.x.shape == (500, 16)


@pytest.mark.parametrize("kind", SHAPES)
def test_samples_follow_the_declared_cdf(kind):
    data = generate(ToyRecipe(kind, seed=1, samples=20_000))
    for i, shape in enumerate(data.recipe.shapes):
        uniform = np.sort(shape.cdf(data.sources[:, i]))
        expected = (np.arange(20_000) + 0.5) / 20_000
        # Kolmogorov-Smirnov: beyond 1.95 / sqrt(N) with probability 0.001
        assert np.abs(uniform - expected).max() < 1.95 / np.sqrt(20_000)


def test_the_seed_fixes_every_bit_and_changes_every_row():
    one, again = generate(ToyRecipe(seed=5, samples=50)), generate(ToyRecipe(seed=5, samples=50))
    np.testing.assert_array_equal(one.x, again.x)
    assert not np.isclose(one.x, generate(ToyRecipe(seed=6, samples=50)).x).any(axis=1).all()


def test_fewer_samples_are_a_beginning_and_another_draw_shares_the_plane():
    whole = generate(ToyRecipe(seed=2, samples=100))
    part = generate(ToyRecipe(seed=2, samples=40))
    fresh = generate(ToyRecipe(seed=2, samples=100, draw=1))
    np.testing.assert_array_equal(whole.x[:40], part.x)
    np.testing.assert_array_equal(whole.directions, fresh.directions)
    assert not np.isclose(whole.sources, fresh.sources).any(axis=1).any()


def test_the_log_density_of_x_is_that_of_its_independent_sources():
    data = generate(ToyRecipe("norm", samples=20, variances=(1.0, 4.0)))
    s = data.sources
    expected = -0.5 * (s[:, 0] ** 2 + s[:, 1] ** 2 / 4) - np.log(2 * np.pi * 2)
    np.testing.assert_allclose(data.log_density(), expected, rtol=1e-12)


def test_the_convex_losses_have_scale_one_on_average():
    """The paper chooses a_x so (Section 5.1), which fixes that the sources have mean 0."""
    x = generate(ToyRecipe(samples=50_000)).x.astype(float)
    assert np.mean(2 / 3 + 2 / 21 * (x**2).sum(1)) == pytest.approx(1, abs=0.01)


def test_the_source_opens_specs_through_the_registry():
    dataset = installed().data("toy/ramp:seed=4,samples=30,dim=8", None)
    assert (dataset.name, dataset.shape, len(dataset)) == (
        "toy/ramp:seed=4,samples=30,dim=8",
        (8,),
        30,
    )
    rows = np.array([0, 7, 29])
    data = generate(ToyRecipe("ramp", 4, 30, 8))
    np.testing.assert_array_equal(dataset.read(rows), data.x[rows])
    np.testing.assert_array_equal(dataset.log_density(rows), data.log_density()[rows])


@pytest.mark.parametrize(
    "recipe",
    [
        ToyRecipe(),
        ToyRecipe("norm", 7, 10, 5, (0.5, 1.0, 1 / 3, 2.0), 2),
        ToyRecipe("ramp", samples=3),
    ],
)
def test_a_spec_names_its_recipe(recipe):
    assert parse(recipe.spec()) == recipe


def test_variances_are_read_as_fractions():
    assert parse("toy/mix:variances=1/6+2/3+8/3").variances == PAPER_VARIANCES
    assert parse("toy/mix:variances=0.5+2").variances == (0.5, 2.0)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("toy/mxi", "did you mean 'mix'"),
        ("toy/", "toy/mix, toy/ramp or toy/norm"),
        ("toy/mix:sead=3", "did you mean 'seed'"),
        ("toy/mix:seed=x", "whole number"),
        ("toy/mix:seed=-1", "at least 0"),
        ("toy/mix:samples=0", "at least 1"),
        ("toy/mix:dim=2", "at least 3"),
        ("toy/mix:variances=1+-2", "positive numbers joined by +"),
        ("toy/mix:variances=", "positive numbers joined by +"),
        ("toy/mix:variances=1/0", "positive numbers joined by +"),
    ],
)
def test_a_wrong_spec_is_one_line_with_the_remedy(spec, words):
    with pytest.raises(IsoprobeError, match=r".") as error:
        ToySource().open(spec)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
