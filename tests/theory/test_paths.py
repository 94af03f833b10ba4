"""The parts of the search for shortest paths, each against the same thing done densely."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from isoprobe.theory import geodesics as paths_of
from isoprobe.theory.geodesics import (
    CONVERGED,
    QUICK,
    THOROUGH,
    Effort,
    Geodesics,
    Surface,
    equal_steps,
    geodesics,
    path_length,
    refined,
    straight,
)
from isoprobe.theory.relaxation import Energy, _advance, _direction, _dot, _with_slope, relax

F64 = torch.float64


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=F64)


def same(found: Tensor, expected: Tensor, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-12)


# --------------------------------------------------------------------------- one step


def dense_direction(
    moves: list[Tensor], changes: list[Tensor], first: Callable[[Tensor], Tensor], slope: Tensor
) -> Tensor:
    """Minus H g with H updated move by move (Nocedal and Wright, 6.17), of one path."""
    size = slope.numel()
    eye = torch.eye(size, dtype=F64)
    start = torch.stack([first(unit.view_as(slope)).flatten() for unit in eye], 1)
    scale = 1.0
    if moves and float((moves[-1] * changes[-1]).sum()) > 0:
        curved = float(changes[-1].flatten() @ start @ changes[-1].flatten())
        if curved > 0:
            scale = min(max(float((moves[-1] * changes[-1]).sum()) / curved, 0.1), 10.0)
    inverse = scale * start
    for move, change in zip(moves, changes, strict=True):
        s, y = move.flatten(), change.flatten()
        if float(s @ y) > 0:
            left = eye - torch.outer(s, y) / (s @ y)
            inverse = left @ inverse @ left.T + torch.outer(s, s) / (s @ y)
    return -(inverse @ slope.flatten()).view_as(slope)


@pytest.mark.parametrize("remembered", [0, 1, 4])
@pytest.mark.parametrize("size", [1.0, 1e-3, 1e3])
def test_a_direction_is_that_of_the_dense_inverse_hessian(remembered: int, size: float) -> None:
    """Of paths that moved well, bent the wrong way, did not move, or hardly did."""
    count, nodes, n = 5, 3, 2
    root = random(nodes * n, nodes * n, seed=1)
    hessian = root @ root.T + torch.eye(nodes * n, dtype=F64)
    history = []
    for step in range(remembered):
        move = random(count, nodes, n, seed=2 + step)
        change = (move.flatten(1) @ hessian).view_as(move) * size
        if step == remembered - 1:
            change[1] *= -1
        change[2], move[2] = 0 * change[2], 0 * move[2]
        move[3], change[3] = 1e-170 * move[3], 1e-170 * change[3]
        history.append((move, change))
    along, across = random(nodes, nodes, seed=9), random(count, n, n, seed=10)
    along, across = along @ along.T, across @ across.mT

    def precondition(rows: Tensor, slopes: Tensor) -> Tensor:
        return along @ slopes @ across[rows]

    rows = torch.tensor([4, 0, 1, 2, 3])
    slope = random(count, nodes, n, seed=11)
    found = _direction(history, precondition, rows, slope)
    for place, row in enumerate(rows.tolist()):
        known = [(m[row], c[row]) for m, c in history if row not in (2, 3)]
        told = dense_direction(
            [m for m, _ in known], [c for _, c in known],
            lambda v, row=row: along @ v @ across[row], slope[place],
        )  # fmt: skip
        same(found[place], told, 1e-6)
    same(_dot(slope, along @ slope), (slope * (along @ slope)).flatten(1).sum(1))


def bowl(curvature: float, trials: list[float]) -> Energy:
    """c x^2 / 2 of the one inner node, with a record of where it was looked at."""

    def energy(rows: Tensor, points: Tensor) -> Tensor:
        trials.extend(points[:, 1, 0].tolist())
        return curvature / 2 * points[:, 1].square().sum(1)

    return energy


def searched(
    energy: Energy, points: Tensor, value: Tensor, slope: Tensor, step: Tensor, passes: int
) -> Tensor:
    """Try a step again and again until each path moves; the shares at the end."""
    rows, share = torch.arange(len(points)), torch.ones(len(points), dtype=F64)
    for turn in range(passes):
        rows = rows[(share[rows] < 1) | (turn == 0)]
        if len(rows):
            _advance(energy, rows, points, value, slope, step, share)
    return share


@pytest.mark.parametrize(
    ("step", "tried"),
    [
        (-1.0, [0.0]),  # just right
        (-1.9, [-0.9]),  # too far, and still lower
        (-8.0, [-7.0, 0.0]),  # the parabola's lowest point is at an eighth
        (-20.0, [-19.0, -1.0, 0.0]),  # at a twentieth, and no more than a tenth at once
        (-2.0, [-1.0, 0.0]),  # as high as before
    ],
)
def test_a_step_is_shortened_by_the_parabola_through_what_is_known(
    step: float, tried: list[float]
) -> None:
    trials: list[float] = []
    points = torch.tensor([[[5.0], [1.0], [7.0]]], dtype=F64)
    energy = bowl(3.0, trials)
    rows = torch.tensor([0])
    value, slope = _with_slope(energy, rows, points)
    trials.clear()
    share = searched(energy, points, value, slope, torch.tensor([[[step]]], dtype=F64), 9)
    assert trials == pytest.approx(tried, abs=1e-12)
    assert share.tolist() == [1.0]
    assert points[0, :, 0].tolist() == pytest.approx([5.0, tried[-1], 7.0])
    assert value.item() == pytest.approx(1.5 * tried[-1] ** 2)
    assert slope.item() == pytest.approx(3 * tried[-1])


def test_a_step_into_what_is_no_number_is_cut_to_a_tenth_and_so_is_one_uphill() -> None:
    trials: list[float] = []

    def energy(rows: Tensor, points: Tensor) -> Tensor:
        trials.extend(points[:, 1, 0].tolist())
        x = points[:, 1, 0]
        return torch.where(x < -3, torch.nan, x.square())

    points = torch.tensor([[[0.0], [1.0], [0.0]], [[0.0], [2.0], [0.0]]], dtype=F64)
    rows = torch.arange(2)
    value, slope = _with_slope(energy, rows, points)
    trials.clear()
    step = torch.tensor([[[-9.0]], [[1.0]]], dtype=F64)
    slope[1] *= -1  # as if it fell where it rises
    share = searched(energy, points, value, slope, step, 10)
    assert share[0] == 1 and 0 < share[1] < 1e-5
    assert trials[:3] == pytest.approx([-8.0, 3.0, 0.1], nan_ok=True)
    assert len(trials) == 2 + 10
    assert points[:, 1, 0].tolist() == pytest.approx([0.1, 2.0])
    assert value.tolist() == pytest.approx([0.01, 4.0])


@pytest.mark.parametrize(("won", "enough"), [(5e-4, True), (5e-6, False)])
def test_a_step_is_taken_that_wins_a_little_of_what_its_share_promises(
    won: float, enough: bool
) -> None:
    """A ten thousandth of it: of a tenth of the step, a hundred thousandth of the whole promise."""

    def energy(rows: Tensor, points: Tensor) -> Tensor:
        x = points[:, 1, 0]
        far = torch.where(x < -3, torch.nan, torch.where(x < 0.5, 1 - 18 * won, 1.0))
        return torch.where(x > 0.5, x, far + 0 * x)

    points = torch.tensor([[[0.0], [1.0], [0.0]]], dtype=F64)
    value, slope = torch.ones(1, dtype=F64), torch.full((1, 1, 1), 2.0, dtype=F64)
    searched(energy, points, value, slope, torch.full_like(slope, -9.0), 9)
    assert (points[0, 1, 0].item() < 0.5) is enough and value.item() < 1


def test_a_quadratic_energy_is_lowered_to_its_least_in_a_few_steps() -> None:
    """With a first guess far off, which only a memory of the steps puts right."""
    root = random(8, 8, seed=3)
    hessian = root @ root.T + 0.5 * torch.eye(8, dtype=F64)
    centre = random(8, seed=4)

    def energy(rows: Tensor, points: Tensor) -> Tensor:
        off = points[:, 1:-1].flatten(1) - centre
        return 1 + rows + 0.5 * ((off @ hessian) * off).sum(1)

    start = random(2, 6, 2, seed=5)
    eye = torch.eye(4, dtype=F64), torch.eye(2, dtype=F64).expand(2, 2, 2)
    found = relax(start, energy, *eye, 60, 1e-12)
    same(found.points[:, 1:-1].flatten(1), centre.expand(2, 8), 1e-4)
    same(found.energy, torch.tensor([1.0, 2.0], dtype=F64))
    assert bool((found.remaining <= 1e-12).all())
    same(found.points[:, [0, -1]], start[:, [0, -1]])
    still = relax(start, energy, *eye, 0, 1e-12)
    same(still.points, start)
    assert bool(still.remaining.isinf().all())
    assert bool((found.energy <= relax(start, energy, *eye, 5, 1e-12).energy).all())
    few = relax(start, energy, *eye, 30, 1e-12)
    assert float((few.energy - torch.tensor([1.0, 2.0])).max()) < 1e-6


def test_a_path_that_no_share_of_a_step_lowers_is_given_up() -> None:
    """Its slope lies: it promises a fall where the energy rises."""
    trials: list[float] = []

    def energy(rows: Tensor, points: Tensor) -> Tensor:
        x = points[:, 1, 0]
        trials.extend(x.tolist())
        return 1 + (x - 1).square().detach() + (x - x.detach())

    points = torch.tensor([[[0.0], [1.0], [0.0]]], dtype=F64)
    found = relax(
        points, energy, torch.ones(1, 1, dtype=F64), torch.ones(1, 1, 1, dtype=F64), 99, 1e-9
    )
    same(found.points, points)
    assert 10 < len(trials) < 40
    assert found.remaining.tolist() == [0.5]


def test_a_path_at_rest_stays_and_one_of_no_energy_promises_nothing() -> None:
    trials: list[float] = []
    points = torch.tensor([[[0.0], [1.0], [0.0]], [[0.0], [0.0], [0.0]]], dtype=F64)
    form, tensors = torch.ones(1, 1, dtype=F64), torch.ones(2, 1, 1, dtype=F64)
    # a step would win the whole energy of the first: promise / 2 is all of it
    for tolerance, x in ((1.01, 1.0), (0.99, 0.0)):
        found = relax(points, bowl(1.0, trials), form, tensors, 5, tolerance)
        assert found.points[:, 1, 0].tolist() == [x, 0.0]
        assert found.remaining.tolist() == [1.0 if x else 0.0, 0.0]
        assert points[0, 1, 0] == 1


# --------------------------------------------------------------------------- energies


def bent(z: Tensor) -> Tensor:
    """A decoder to 2 x 2 outputs."""
    u, v = z[:, 0], z[:, 1]
    return torch.stack([u, v + u**2, torch.sin(u * v), u - v], 1).reshape(-1, 2, 2)


def heavier(x: Tensor, v: Tensor) -> Tensor:
    return v * (1 + x.square())


def gram(z: Tensor) -> Tensor:
    jacobian = torch.func.vmap(torch.func.jacfwd(lambda one: bent(one[None])[0].flatten()))(z)
    weight = 1 + bent(z).flatten(1).square()
    return jacobian.mT @ (weight[:, :, None] * jacobian)


SURFACE = Surface(bent, gram, 0.3, heavier)
EUCLIDEAN = Surface(bent, gram, 0.3)


def squares(surface: Surface, points: Tensor) -> Tensor:
    """Of each segment of one path, one by one."""
    found = []
    for a, b in itertools.pairwise(points):
        x, y = bent(a[None])[0], bent(b[None])[0]
        weight = 1 + ((x + y) / 2).square() if surface.weigh else torch.ones_like(x)
        found.append((weight * (y - x).square()).sum() + 0.3 * (b - a).square().sum())
    return torch.stack(found)


@pytest.mark.parametrize("surface", [SURFACE, EUCLIDEAN], ids=["weighed", "euclidean"])
def test_energies_and_lengths_are_sums_over_segments(surface: Surface) -> None:
    points = random(3, 9, 2, seed=6)
    ends = bent(points[:, [0, -1]].flatten(0, 1)).unflatten(0, (3, 2))
    found = paths_of._energy(surface, ends, torch.arange(3), points)
    length, error = path_length(surface, points)
    for p in range(3):
        fine, coarse = squares(surface, points[p]), squares(surface, points[p, ::2])
        same(found[p], (4 * 8 * fine.sum() - 4 * coarse.sum()) / 3)
        same(length[p], (4 * fine.sqrt().sum() - coarse.sqrt().sum()) / 3)
        same(error[p], (fine.sqrt().sum() - length[p]).abs())
    some = paths_of._energy(surface, ends, torch.tensor([2, 0]), points[[2, 0]])
    same(some, found[[2, 0]])
    eye = torch.eye(2, dtype=F64)
    same(surface.tensor(points[0]), gram(points[0]) + 0.3 * eye)


@pytest.mark.parametrize("last", [4, 6, 8, 32])
def test_the_mean_tensor_of_a_path_is_that_of_its_quarters(last: int) -> None:
    points = random(2, last + 1, 2, seed=7)
    places = {4: [1, 2, 3], 6: [1, 3, 5], 8: [2, 4, 6], 32: [8, 16, 24]}[last]
    found = paths_of._mean_tensor(SURFACE, points)
    for p in range(2):
        same(found[p], SURFACE.tensor(points[p, places]).mean(0))


@pytest.mark.parametrize("segments", [2, 4, 8])
def test_the_form_is_the_second_derivative_of_the_energy(segments: int) -> None:
    flat = Surface(lambda z: z, lambda z: torch.eye(1, dtype=F64).expand(len(z), 1, 1), 0.0)

    def energy(inner: Tensor) -> Tensor:
        whole = torch.cat([torch.zeros(1, dtype=F64), inner, torch.ones(1, dtype=F64)])
        ends = torch.tensor([[[0.0], [1.0]]], dtype=F64)
        return paths_of._energy(flat, ends, torch.tensor([0]), whole[None, :, None])[0]

    told = torch.autograd.functional.hessian(energy, random(segments - 1, seed=8))
    same(paths_of._form(segments), told)


# --------------------------------------------------------------------------- nodes

FLAT = Surface(lambda z: z, lambda z: torch.eye(2, dtype=F64).expand(len(z), 2, 2), 0.5)


def test_nodes_are_put_between_by_cubics_and_at_the_ends_by_quadratics() -> None:
    t, fine = torch.linspace(0, 1, 5, dtype=F64), torch.linspace(0, 1, 9, dtype=F64)
    same(refined((t**2 - t)[None, :, None]), (fine**2 - fine)[None, :, None])
    cubic = refined((t**3)[None, :, None])[0, :, 0]
    same(cubic[2:-2], (fine**3)[2:-2])
    same(cubic[::2], t**3)
    same(straight(t[None], fine[None, :5])[0, 8], 0.75 * t + 0.25 * fine[:5])
    assert straight(t[None], t[None]).shape == (1, 33, 5)
    assert straight(t[None], t[None], 6).shape == (1, 7, 5)


@pytest.mark.parametrize("count", [2, 3, 8])
def test_steps_along_a_line_are_equal_however_its_nodes_lie(count: int) -> None:
    a, b = random(3, 2, seed=9), random(3, 2, seed=10)
    share = torch.linspace(0, 1, 9, dtype=F64) ** 2
    path = a[:, None] + share[:, None] * (b - a)[:, None]
    same(equal_steps(FLAT, path, count), straight(a, b, count - 1))
    still = path[:, :1].expand(-1, 9, -1)  # a path that goes nowhere
    same(equal_steps(FLAT, still, count), still[:, :count])


def test_steps_along_a_curve_lie_on_it_and_are_equal() -> None:
    t = torch.linspace(0, 1, 9, dtype=F64)
    arc = torch.stack([torch.cos(2 * t**1.5), torch.sin(2 * t**1.5)], 1)[None]
    found = equal_steps(FLAT, arc, 6)[0]
    same(found.norm(dim=1), torch.ones(6, dtype=F64), 5e-3)
    same(found.diff(dim=0).norm(dim=1), torch.full((5,), 0.397338661590122, dtype=F64), 1e-2)


# --------------------------------------------------------------------------- the whole search


def test_without_steps_levels_thin_and_refine_what_was_given() -> None:
    """And what is told has another node between any two of the last level."""
    start = random(2, 33, 2, seed=11)
    found = geodesics(EUCLIDEAN, [start], Effort({4: 0}))
    same(found.points, refined(start[:, ::8]))
    assert bool(found.remaining.isinf().all()) and found.start.tolist() == [0, 0]
    finer = geodesics(EUCLIDEAN, [start], Effort({4: 0, 8: 0, 16: 0}))
    same(finer.points, refined(refined(refined(start[:, ::8]))))
    same(geodesics(EUCLIDEAN, [start[:, ::8]], Effort({4: 0})).points, refined(start[:, ::8]))
    same(geodesics(EUCLIDEAN, [start[:, :7]], Effort({2: 0})).points, refined(start[:, :7:3]))
    same(geodesics(EUCLIDEAN, [start[:, :9]], Effort({4: 0})).points, refined(start[:, :9:2]))
    length, error = path_length(EUCLIDEAN, finer.points)
    same(finer.length, length)
    same(finer.error, error)
    assert geodesics(EUCLIDEAN, [start], block=1).points.shape == (2, 1 + 2 * max(QUICK.levels), 2)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("block", [None, 1, 2, 5])
def test_each_pair_follows_its_shortest_start(block: int | None, every: bool) -> None:
    good, bad = straight(*random(2, 3, 2, seed=12), 4), random(3, 5, 2, seed=13)
    bad[:, [0, -1]] = good[:, [0, -1]]
    better = torch.tensor([True, False, True])[:, None, None]
    starts = [torch.where(better, bad, good), torch.where(better, good, bad), bad]
    found = geodesics(FLAT, starts, Effort({4: 0}, every=every), block=block)
    assert found.start.tolist() == [1, 0, 1]
    same(found.points, refined(good))
    same(found.starts, torch.stack([path_length(FLAT, refined(start))[0] for start in starts]))
    whole = geodesics(EUCLIDEAN, starts, block=block)
    same(whole.length, geodesics(EUCLIDEAN, starts, block=None).length, 1e-6)
    none = geodesics(FLAT, [good[:0]], Effort({4: 0}, every=every), block=block)
    assert none.length.shape == (0,)


def test_every_start_is_followed_to_its_end_where_that_is_asked_for() -> None:
    """Past a hill the path that is longer at first, by its zigzag, has the shorter way."""

    def hill(z: Tensor) -> Tensor:
        bump = 4 * (-(z.square().sum(1, keepdim=True)) / 0.3).exp()
        return torch.cat([z, bump], 1)

    def hill_gram(z: Tensor) -> Tensor:
        jacobian = torch.func.vmap(torch.func.jacfwd(lambda one: hill(one[None])[0]))(z)
        return jacobian.mT @ jacobian

    on = Surface(hill, hill_gram, 1e-6)
    share = torch.linspace(0, 1, 33, dtype=F64)
    side = torch.stack([torch.zeros_like(share), torch.sin(torch.pi * share)], 1)
    ends = torch.tensor([[[-1.0, 0.2]], [[1.0, 0.2]]], dtype=F64)
    zigzag = 0.1 * torch.sin(24 * torch.pi * share)[:, None] * torch.tensor([0.0, 1.0])
    line = straight(ends[0], ends[1])
    near, far = line + 1.2 * side + zigzag, line - 1.6 * side
    first = geodesics(on, [near, far], Effort(THOROUGH.levels, 1e-5))
    best = geodesics(on, [near, far], Effort(THOROUGH.levels, 1e-5, every=True))
    assert first.starts[0] > first.starts[1] and first.start.tolist() == [1]
    assert best.start.tolist() == [0] and float(best.length) < float(first.length) - 0.1


def test_curvature_that_is_known_makes_the_next_level_quicker() -> None:
    """Of a quadratic energy along one direction: a step then is Newton's."""
    form, tensors = torch.eye(3, dtype=F64), torch.eye(1, dtype=F64).expand(1, 1, 1)
    hessian = torch.diag(torch.tensor([50.0, 0.5, 2.0], dtype=F64))

    def energy(rows: Tensor, points: Tensor) -> Tensor:
        off = points[:, 1:-1, 0]
        return 1 + 0.5 * ((off @ hessian) * off).sum(1)

    start = torch.tensor([[[0.0], [1.0], [0.0], [0.0], [0.0]]], dtype=F64)
    move = torch.tensor([[[1.0], [0.0], [0.0]]], dtype=F64)
    known = relax(start, energy, form, tensors, 1, 1e-9, [(move, 50 * move)])
    same(known.points, 0 * start)
    assert len(known.history) == 2
    unknown = relax(start, energy, form, tensors, 1, 1e-9)
    same(unknown.points, start)


def test_moves_between_nodes_keep_what_a_slope_says_of_them() -> None:
    """On twice the nodes a smooth move has the same shape, and its product with a slope is kept."""
    t = torch.linspace(0, 1, 65, dtype=F64)[:, None]
    move = (torch.sin(torch.pi * t))[None, 1:-1]
    fine = torch.linspace(0, 1, 129, dtype=F64)[:, None]
    same(paths_of._between(move), torch.sin(torch.pi * fine)[None, 1:-1], 5e-4)
    change = (t * (1 - t))[None, 1:-1]
    finer = paths_of._between(change) / 2
    same((paths_of._between(move) * finer).sum(), (move * change).sum(), 1e-4)


def test_what_a_step_saves_of_a_length_is_half_of_what_it_saves_of_a_square() -> None:
    """In a plane one step leads to the straight line, so that it saves all there is."""
    start = random(2, 5, 2, seed=14)
    ends = start[:, [0, -1]]
    before = paths_of._energy(FLAT, ends, torch.arange(2), start)
    least = 1.5 * (ends[:, 1] - ends[:, 0]).square().sum(1)
    saved = (before - least) / before / 2
    found = geodesics(FLAT, [start], Effort({4: 1}))
    same(found.remaining, saved)
    same(found.length, least.sqrt())
    for factor, moved in ((0.95, True), (1.05, False)):
        tolerance = float(saved[0]) * factor
        alone = geodesics(FLAT, [start[:1]], Effort({4: 1}, tolerance))
        assert bool((alone.points[:, ::2] != start[:1]).any()) is moved
    nothing = torch.zeros(3)
    remaining = CONVERGED * torch.tensor([0.99, 1.0, 1.01])
    told = Geodesics(nothing, nothing, nothing, remaining, nothing, nothing).converged
    assert told.tolist() == [True, True, False]
    assert CONVERGED == 0.01  # "less than a hundredth"
