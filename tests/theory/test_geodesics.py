"""Geodesics against surfaces whose distances are known in closed form."""

from __future__ import annotations

import importlib.util
import json
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.func import jacfwd, vmap

from isoprobe.theory.geodesics import (
    QUICK,
    THOROUGH,
    Effort,
    Surface,
    bce_coordinates,
    geodesics,
    path_length,
    refined,
    straight,
)

TINY = 1e-10
LEVELS = {4: 100, 8: 100, 16: 100, 32: 100}
PATIENT = Effort(LEVELS, 1e-7, every=True)


def surface(decode: Callable[[Tensor], Tensor], half_beta: float = TINY) -> Surface:
    """A decoder with SSE, its Gram by automatic differentiation."""

    def gram(z: Tensor) -> Tensor:
        jacobian = vmap(jacfwd(lambda one: decode(one[None])[0]))(z)
        return jacobian.mT @ jacobian

    return Surface(decode, gram, half_beta)


def solved(on: Surface, *starts: Tensor) -> Tensor:
    found = geodesics(on, starts, PATIENT)
    assert found.converged.all()
    return found.length


def bent(a: Tensor, b: Tensor, size: float, seed: int = 0) -> Tensor:
    """A bad start: a straight line pushed aside by half sine waves."""
    path = straight(a, b)
    generator = torch.Generator().manual_seed(seed)
    push = torch.randn(len(a), 3, a.shape[1], generator=generator, dtype=torch.float64)
    share = torch.linspace(0, 1, path.shape[1], dtype=torch.float64)
    waves = torch.stack([torch.sin(math.pi * k * share) for k in (1, 2, 3)])
    return path + size * torch.einsum("kt,pkn->ptn", waves, push)


# --------------------------------------------------------------------------- closed forms


def sphere(z: Tensor) -> Tensor:
    """Stereographic projection of the plane onto the unit sphere."""
    square = z.square().sum(dim=1, keepdim=True)
    return torch.cat([2 * z, square - 1], dim=1) / (1 + square)


def random_pairs(count: int, size: int, scale: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    both = scale * torch.randn(2, count, size, generator=generator, dtype=torch.float64)
    return both[0], both[1]


@pytest.mark.parametrize("size", [0.0, 0.3])
def test_great_circles(size: float) -> None:
    a, b = random_pairs(12, 2, 0.8)
    cosine = (sphere(a) * sphere(b)).sum(dim=1)
    found = solved(surface(sphere), bent(a, b, size))
    torch.testing.assert_close(found, torch.acos(cosine), rtol=1e-3, atol=0)


def test_the_points_lie_on_the_great_circle_evenly() -> None:
    a, b = random_pairs(4, 2, 0.8)
    found = geodesics(surface(sphere), [bent(a, b, 0.3)], Effort(LEVELS, 1e-9))
    points = sphere(found.points.flatten(0, 1)).unflatten(0, (4, 65))
    normal = torch.linalg.cross(sphere(a), sphere(b), dim=1)
    off = (points * (normal / normal.norm(dim=1, keepdim=True))[:, None]).sum(dim=2)
    assert off.abs().max() < 1e-3
    chords = points.diff(dim=1).norm(dim=2)
    torch.testing.assert_close(
        chords, chords.mean(dim=1, keepdim=True).expand(4, 64), rtol=2e-2, atol=0
    )


def test_a_cylinder() -> None:
    def cylinder(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0].cos(), z[:, 0].sin(), z[:, 1]], dim=1)

    a, b = random_pairs(8, 2, 1.0, seed=1)
    found = solved(surface(cylinder), bent(a, b, 0.5))
    torch.testing.assert_close(found, (a - b).norm(dim=1), rtol=1e-3, atol=0)


def test_a_swiss_roll() -> None:
    """Its spiral has arc length (t sqrt(1 + t^2) + asinh t) / 2 and unrolls to a plane."""

    def roll(z: Tensor) -> Tensor:
        t, height = z[:, 0], z[:, 1]
        return torch.stack([t * t.cos(), t * t.sin(), height], dim=1)

    def arc(t: Tensor) -> Tensor:
        return 0.5 * (t * (1 + t**2).sqrt() + torch.asinh(t))

    generator = torch.Generator().manual_seed(2)
    t = 1.5 * math.pi * (1 + 2 * torch.rand(2, 8, generator=generator, dtype=torch.float64))
    height = 20 * torch.rand(2, 8, generator=generator, dtype=torch.float64)
    ends = torch.stack([t, height], dim=2)
    expected = ((arc(t[1]) - arc(t[0])) ** 2 + (height[1] - height[0]) ** 2).sqrt()
    found = solved(surface(roll), bent(ends[0], ends[1], 0.3))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def saddle(z: Tensor) -> Tensor:
    """A surface that no closed form covers, ``(..., 2)`` to ``(..., 3)``."""
    u, v = z[..., 0], z[..., 1]
    return torch.stack([u, v, 0.5 * torch.sin(2 * u) * v], dim=-1)


@pytest.mark.skipif(importlib.util.find_spec("geomstats") is None, reason="geomstats is not here")
def test_a_second_opinion_where_no_closed_form_is() -> None:
    """geomstats shoots along the geodesic equation; we lower an energy: the same lengths."""
    a, b = random_pairs(3, 2, 0.8)
    found = solved(surface(saddle), straight(a, b))
    told = subprocess.run(
        [sys.executable, "-m", "tests.theory.second_opinion"],
        input=json.dumps(torch.stack([a, b], dim=1).tolist()),
        capture_output=True,
        text=True,
        check=True,
    )
    expected = torch.tensor(json.loads(told.stdout), dtype=torch.float64)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    assert (found > 1.01 * (a - b).norm(dim=1)).all()  # the surface is not a plane


def test_a_metric_that_is_euclidean_nowhere() -> None:
    """The hyperbolic half plane, through its tensor alone: arcosh(1 + |d|^2 / 2 y y')."""

    def decode(z: Tensor) -> Tensor:
        return torch.stack([z[:, 0], z[:, 1].exp()], dim=1)

    def weigh(x: Tensor, v: Tensor) -> Tensor:
        return v / x[:, 1:] ** 2

    def gram(z: Tensor) -> Tensor:
        return torch.diag_embed(torch.stack([(-2 * z[:, 1]).exp(), torch.ones_like(z[:, 1])], 1))

    a, b = random_pairs(10, 2, 0.5, seed=3)
    x, y = decode(a), decode(b)
    expected = torch.acosh(1 + (x - y).square().sum(dim=1) / (2 * x[:, 1] * y[:, 1]))
    found = solved(Surface(decode, gram, TINY, weigh), bent(a, b, 0.2))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


def test_the_prior_alone_leaves_straight_lines() -> None:
    a, b = random_pairs(3, 4, 1.0)
    flat = surface(lambda z: 0 * z, half_beta=2.0)
    torch.testing.assert_close(solved(flat, bent(a, b, 0.5)), 2**0.5 * (a - b).norm(dim=1))


@pytest.mark.parametrize("steps", [1, 100])
def test_a_linear_decoder_needs_one_step(steps: int) -> None:
    matrix = torch.randn(6, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    on = surface(lambda z: z @ matrix.T, half_beta=0.1)
    a, b = random_pairs(5, 3, 1.0)
    tensor = matrix.T @ matrix + 0.1 * torch.eye(3, dtype=torch.float64)
    expected = ((b - a) @ tensor * (b - a)).sum(dim=1).sqrt()
    found = geodesics(on, [bent(a, b, 1.0)], Effort({4: steps, 8: steps, 16: 1, 32: 1}))
    torch.testing.assert_close(found.length, expected, rtol=1e-6, atol=0)


# --------------------------------------------------------------------------- beta and y

BETA = 0.01
EIGENVALUES = torch.tensor([4.0, 2.0, 1.0, 0.5, 0.3], dtype=torch.float64)


def isometry(decoder: Tensor, std: Tensor) -> Tensor:
    """|dy| / d of random pairs, y_j = sqrt(beta/2) z_j / sigma_j."""
    a, b = random_pairs(6, 5, 1.0, seed=5)
    found = solved(surface(lambda z: z @ decoder.T, BETA / 2), straight(a, b))
    return math.sqrt(BETA / 2) * ((a - b) / std).norm(dim=1) / found


def optimum() -> tuple[Tensor, Tensor]:
    """Decoder and sigma of a linear VAE at its optimum."""
    basis, _ = torch.linalg.qr(
        torch.randn(7, 5, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    )
    return basis * (EIGENVALUES - BETA / 2).sqrt(), (BETA / 2 / EIGENVALUES).sqrt()


def test_the_linear_vae_is_isometric_at_any_distance() -> None:
    torch.testing.assert_close(
        isometry(*optimum()), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-6
    )


def test_a_rotated_linear_vae_has_the_ratio_of_its_diagonal() -> None:
    decoder, _ = optimum()
    turn, _ = torch.linalg.qr(
        torch.randn(5, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    )
    turned = decoder @ turn
    tensor = turned.T @ turned + BETA / 2 * torch.eye(5, dtype=torch.float64)
    std = (BETA / 2 / tensor.diagonal()).sqrt()  # stationary in sigma all the same
    a, b = random_pairs(6, 5, 1.0, seed=5)
    delta = a - b
    expected = (delta.square() @ tensor.diagonal()).sqrt() / (
        (delta @ tensor * delta).sum(dim=1)
    ).sqrt()
    ratio = isometry(turned, std)
    torch.testing.assert_close(ratio, expected, rtol=1e-6, atol=0)
    assert (ratio - 1).abs().max() > 0.1


def test_a_doubled_column_has_the_ratio_of_its_lengths() -> None:
    decoder, std = optimum()
    doubled = decoder * torch.tensor([2.0, 1, 1, 1, 1], dtype=torch.float64)
    a, b = random_pairs(6, 5, 1.0, seed=5)
    squares = (a - b).square()
    tensor = EIGENVALUES.clone()
    tensor[0] = 4 * (EIGENVALUES[0] - BETA / 2) + BETA / 2
    expected = ((squares @ EIGENVALUES) / (squares @ tensor)).sqrt()
    torch.testing.assert_close(isometry(doubled, std), expected, rtol=1e-6, atol=0)
    assert expected.max() < 0.99


# --------------------------------------------------------------------------- the parts


def test_the_better_start_is_kept() -> None:
    """Two ways round a cylinder: the angle itself is the latent, so each start stays on its way."""

    def ring(z: Tensor) -> Tensor:
        distance = z.norm(dim=1, keepdim=True)
        bump = 4 * (-(distance**2) / 0.3).exp()  # a hill at the origin, to be passed on one side
        return torch.cat([z, bump], dim=1)

    a = torch.tensor([[-1.0, 0.2]], dtype=torch.float64)
    b = torch.tensor([[1.0, 0.2]], dtype=torch.float64)
    share = torch.linspace(0, 1, 33, dtype=torch.float64)
    side = torch.stack([torch.zeros(33, dtype=torch.float64), torch.sin(math.pi * share)], dim=1)
    short, long = straight(a, b) + 1.2 * side, straight(a, b) - 1.6 * side
    alone = geodesics(surface(ring), [long], PATIENT)
    both = geodesics(surface(ring), [long, short], PATIENT)
    assert both.start.tolist() == [1]
    assert both.length < alone.length - 0.1


def test_blocks_of_pairs_change_nothing() -> None:
    a, b = random_pairs(5, 2, 0.8)
    whole = geodesics(surface(sphere), [straight(a, b)])
    parts = geodesics(surface(sphere), [straight(a, b)], block=2)
    torch.testing.assert_close(whole.length, parts.length, rtol=1e-9, atol=0)


def test_what_did_not_converge_says_so() -> None:
    a, b = random_pairs(5, 2, 0.8)
    found = geodesics(surface(sphere), [bent(a, b, 2.0)], Effort({4: 0, 8: 0}))
    assert not found.converged.any()
    found = geodesics(surface(sphere), [bent(a, b, 2.0)], Effort({4: 1, 8: 1}))
    assert not found.converged.all()


def test_equal_ends_have_no_distance() -> None:
    a, _ = random_pairs(2, 2, 0.8)
    found = geodesics(surface(sphere), [straight(a, a)])
    torch.testing.assert_close(found.length, torch.zeros(2, dtype=torch.float64))
    assert found.converged.all()


def test_no_geodesic_is_longer_than_its_start() -> None:
    a, b = random_pairs(10, 2, 1.0, seed=8)
    start = bent(a, b, 0.3)
    found = geodesics(surface(sphere), [start])
    assert (found.length <= path_length(surface(sphere), start)[0]).all()


@pytest.mark.parametrize(("effort", "segments"), [(QUICK, 32), (THOROUGH, 64)])
@pytest.mark.parametrize("scale", [1.0, 2.0, 3.0])
def test_nor_where_the_decoder_is_rough(scale: float, effort: Effort, segments: int) -> None:
    """Sines of a ReLU network: nodes that are far apart see nothing of what lies between."""
    generator = torch.Generator().manual_seed(0)
    layers = [
        2
        * (2 * torch.rand(o, i + 1, generator=generator, dtype=torch.float64) - 1)
        * (scale / i) ** 0.5
        for i, o in ((4, 64), (64, 64), (64, 30))
    ]

    def decode(z: Tensor) -> Tensor:
        for layer in layers:
            z = torch.nn.functional.linear(z, layer[:, 1:], layer[:, 0]).relu()
        return torch.sin(z)

    on = surface(decode, 0.05)
    a, b = random_pairs(60, 4, 1.0, seed=9)
    lines = straight(a, b), bent(a, b, 0.1)
    found = geodesics(on, lines, effort)
    assert (found.length <= found.starts).all()
    torch.testing.assert_close(found.starts[0], path_length(on, straight(a, b, segments))[0])
    length, error = path_length(on, found.points)
    torch.testing.assert_close((found.length, found.error), (length, error))


def test_a_start_that_is_shorter_than_what_it_led_to_is_told() -> None:
    """Waves at y = 0 that nodes of four segments step over: round them is the shorter way."""

    def waves(z: Tensor) -> Tensor:
        height = (-z[:, 1].square() / 0.02).exp() * torch.sin(4 * math.pi * z[:, 0])
        return torch.stack([z[:, 0], z[:, 1], height], dim=1)

    on = surface(waves)
    a = torch.tensor([[0.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    b = a + torch.tensor([1.0, 0.0], dtype=torch.float64)
    share = torch.linspace(0, 1, 9, dtype=torch.float64)
    aside = torch.stack([0 * share, 0.5 * torch.sin(math.pi * share)], dim=1)
    line, start = straight(a, b, 8), straight(a, b, 8) + aside
    found = geodesics(on, [line, start], Effort({4: 50}))
    torch.testing.assert_close(found.points[0], start[0])
    assert found.length[0] == found.starts[1, 0] < found.starts[0, 0]
    assert found.start.tolist() == [1, 0]
    assert found.converged.tolist() == [False, True]


def test_lengths_converge_beyond_their_chords() -> None:
    """Half a great circle of 8 segments: the chords are 0.6 % short, their limit 0.01 %."""
    angle = torch.linspace(-1, 1, 9, dtype=torch.float64) * math.pi / 4
    path = torch.stack([angle.tan(), torch.zeros_like(angle)], dim=1)[None]
    length, error = path_length(surface(sphere), path)
    chords = sphere(path[0]).diff(dim=0).norm(dim=1).sum()
    assert abs(float(chords) / math.pi - 1) > 5e-3
    assert float(length[0]) == pytest.approx(math.pi, rel=1e-4)
    assert float(error[0]) == pytest.approx(math.pi - float(chords), rel=0.05)


def test_refining_a_cubic_leaves_it_what_it_is() -> None:
    share = torch.linspace(0, 1, 9, dtype=torch.float64)
    cubic = torch.stack([share**3 - share, share**2], dim=1)[None]
    fine = torch.linspace(0, 1, 17, dtype=torch.float64)
    expected = torch.stack([fine**3 - fine, fine**2], dim=1)[None]
    torch.testing.assert_close(refined(cubic)[:, 2:-2], expected[:, 2:-2], rtol=0, atol=1e-12)


def test_bce_coordinates_are_euclidean_for_bce() -> None:
    """Their derivative squared is BCE's tensor in logits, x (1 - x) / 2, even where x saturates."""
    logits = torch.linspace(-200, 200, 401, dtype=torch.float32).requires_grad_()
    value = bce_coordinates(logits)
    (slope,) = torch.autograd.grad(value.sum(), logits)
    x = torch.sigmoid(logits)
    torch.testing.assert_close(slope**2, x * (1 - x) / 2)
    assert value.isfinite().all()
    middle = logits.detach().double().clamp(-20, 20)
    direct = 2**0.5 * torch.asin(torch.sigmoid(middle).sqrt())
    torch.testing.assert_close(bce_coordinates(middle), direct, rtol=0, atol=1e-7)
