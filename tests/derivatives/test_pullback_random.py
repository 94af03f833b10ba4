"""Estimates of the pullback's diagonal have no bias, and say how far off they may be."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import isoprobe
from isoprobe.contracts import Metric
from isoprobe.derivatives.exact import exact_pullback
from isoprobe.derivatives.metric_tensor import output_metric
from isoprobe.derivatives.routes import choose_route
from isoprobe.derivatives.sampled import (
    COLUMN_LIMIT,
    COLUMNS,
    column_pullback,
    drawn_columns,
    off_diagonal_squares,
    sign_pullback,
)
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.statistics.draws import signs
from isoprobe.statistics.moments import Moments
from isoprobe_plugins.metrics.bce import BinaryCrossEntropy
from isoprobe_plugins.metrics.square import SumSquaredError
from tests.oracles import small_vae

CORNERS = torch.tensor(list(itertools.product((-1.0, 1.0), repeat=4)), dtype=torch.float64)


def rows(count: int) -> torch.Tensor:
    return torch.randn(count, 9, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


@pytest.mark.parametrize("metric", [SumSquaredError(), BinaryCrossEntropy()], ids=["sse", "bce"])
def test_the_mean_over_all_signs_is_the_diagonal(metric: Metric) -> None:
    vae = small_vae(sigmoid=True)
    view = output_metric(metric, vae)
    posterior = vae.encode(rows(1))
    z, std = (t.expand(16, -1) for t in (posterior.mean, posterior.std))
    output, found = sign_pullback(view, z, std, CORNERS, choose_route(view.decode, z[:2]))
    exact = exact_pullback(view, posterior.mean).diagonal[0]
    torch.testing.assert_close(found.mean(0), exact)
    torch.testing.assert_close(output, view.decode(z))


def test_the_mean_is_the_sum_of_squares_off_the_diagonal() -> None:
    vae = small_vae()
    view = output_metric(SumSquaredError(), vae)
    posterior = vae.encode(rows(1))
    z, std = (t.expand(16, -1) for t in (posterior.mean, posterior.std))
    found = sign_pullback(view, z, std, CORNERS, choose_route(view.decode, z[:2]))[1]
    pairs = torch.tensor(list(itertools.product(range(16), repeat=2)))
    estimate = off_diagonal_squares(found[pairs[:, 0]], found[pairs[:, 1]], std[:1]).mean(0)
    gram = exact_pullback(view, posterior.mean, gram=True).gram[0]
    scaled = gram * torch.outer(std[0], std[0])
    expected = scaled.square().sum(1) - scaled.diagonal().square()
    torch.testing.assert_close(estimate, expected)


def test_intervals_cover_the_exact_means() -> None:
    """200 repetitions: means over samples lie within 1.96 standard errors of the truth 95 %."""
    vae = small_vae()
    view = output_metric(SumSquaredError(), vae)
    posterior = vae.encode(rows(100))
    route = choose_route(view.decode, posterior.mean[:2])
    exact = exact_pullback(view, posterior.mean).diagonal
    covered = []
    for seed in range(200):
        drawn = torch.as_tensor(signs(seed, "pullback", np.arange(100), 4))
        found = sign_pullback(view, posterior.mean, posterior.std, drawn, route)[1]
        error = Moments((4,))
        error.update((found - exact).detach().numpy())
        covered.append(np.abs(error.mean) <= 1.96 * error.se)
    assert 0.90 <= np.mean(covered) <= 0.98


MANY = COLUMN_LIMIT + 1


@pytest.mark.parametrize("latents", [9, MANY])
def test_batches_change_nothing(latents: int) -> None:
    vae, x = small_vae(latents=latents), rows(20)
    probe = Probe(
        vae,
        SumSquaredError(),
        {"pullback", "pullback_off_diagonal"},
        ProbeOptions(pullback="probe"),
    )
    whole = probe(np.arange(20), x)
    parts = [probe(np.arange(a, a + 5), x[a : a + 5]) for a in range(0, 20, 5)]
    for name in ("pullback", "pullback_off_diagonal"):
        torch.testing.assert_close(whole[name], torch.cat([part[name] for part in parts]))
    assert ("pullback_drawn" in whole.quantities) == (latents == 9)
    if latents == MANY:
        assert not bool(whole["pullback_off_diagonal"][np.arange(20) % 8 != 0].any())


def test_every_latent_is_drawn_equally_often() -> None:
    for n in (1, 3, 10, 64):
        drawn = drawn_columns(0, np.arange(5 * n), n)
        assert (np.bincount(drawn.ravel()) == 5 * min(n, COLUMNS)).all()
        assert all(len(set(row)) == min(n, COLUMNS) for row in drawn.tolist())
    pairs = drawn_columns(0, np.arange(60_000), 6)[:, :2]
    shares = np.bincount(pairs[:, 0] * 6 + pairs[:, 1], minlength=36).reshape(6, 6) / 60_000
    assert np.abs(shares[~np.eye(6, dtype=bool)] - 1 / 30).max() < 0.005


@pytest.mark.parametrize("metric", [SumSquaredError(), BinaryCrossEntropy()], ids=["sse", "bce"])
def test_the_mean_over_all_columns_is_the_diagonal(metric: Metric) -> None:
    vae = small_vae(sigmoid=True, latents=5)
    view = output_metric(metric, vae)
    sets = torch.tensor(list(itertools.combinations(range(5), 3)))
    posterior = vae.encode(rows(1))
    z, std = (t.expand(len(sets), -1) for t in (posterior.mean, posterior.std))
    found = column_pullback(view, z, std, sets, choose_route(view.decode, z[:2]), rows=7)
    gram = exact_pullback(view, posterior.mean, gram=True).gram[0]
    torch.testing.assert_close(found.diagonal.mean(0), gram.diagonal())
    scaled = (gram * torch.outer(std[0], std[0])).square()
    torch.testing.assert_close(found.off_diagonal.mean(0), scaled.sum(1) - scaled.diagonal())
    torch.testing.assert_close(found.output, view.decode(z))
    assert (found.drawn.sum(1) == 3).all()


@pytest.mark.parametrize(("latents", "method"), [(6, "random columns"), (MANY, "random signs")])
def test_analyze_gives_norms_with_errors_and_a_defect(latents: int, method: str) -> None:
    vae, x = small_vae(latents=latents), rows(4000).numpy()
    common = {"metric": "sse", "beta": 0.1, "analyses": ["isometry"], "device": "cpu"}
    with (
        isoprobe.analyze(vae, x, **common) as exact,
        isoprobe.analyze(vae, x, pullback="probe", **common) as probed,
    ):
        truth, found = exact["isometry"], probed["isometry"]
        off = np.abs(found["norm_mean"].values - truth["norm_mean"].values)
        assert (off < 4 * found["norm_se"].values).all()
        assert (found["norm_se"].values < 0.2 * found["norm_mean"].values).all()
        assert (found["orthogonality_defect"].values > 0).all()
        assert "cosine" not in found
        assert "cosine" in truth
        assert any(method in note for note in probed.attrs["notes"])


def test_many_latents_cost_no_more_than_few() -> None:
    """16,384 latents at once: what is decoded is counted, not timed."""
    n, calls = 16384, []

    class Wide(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool = torch.nn.AvgPool1d(n // 8)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            calls.append(len(z))
            return self.pool(z[:, None].sin())[:, 0]

    view = output_metric(SumSquaredError(), small_vae())
    view = type(view)(SumSquaredError(), Wide(), logits=False)
    z = torch.randn(2, n, generator=torch.Generator().manual_seed(0))
    drawn = torch.as_tensor(signs(0, "pullback", np.arange(2), n), dtype=z.dtype)
    found = sign_pullback(view, z, torch.ones_like(z), drawn, choose_route(view.decode, z))[1]
    assert found.shape == (2, n)
    assert calls[-2:] == [2, 2]
    # v'(J' G J v), with J the means of eight groups
    moved = (drawn * z.cos()).unflatten(1, (8, n // 8)).mean(2)
    torch.testing.assert_close(found.sum(1), moved.square().sum(1))
