"""Find shortest paths of M(z) = J'GJ + (beta/2) I between pairs of latents.

M is what isometric coordinates y flatten: the metric of D pulled back, and that of the prior. A
path is a row of nodes; its energy is that of the piecewise quadratic curve through their images,
(4 E_K - E_(K/2)) / 3 with E_K = K sum_k dx_k' G_mid dx_k + (beta/2) |dz_k|^2, and its length is
taken the same way. Energies are lowered from coarse rows of nodes to fine ones by a quasi-Newton
method (:mod:`isoprobe.theory.relaxation`), all pairs together: one pass of the decoder and one
backward a step, where a step of Gauss-Newton needs all columns of every node's Jacobian. A path
that was lowered at its nodes cuts corners between them, which its length there does not show:
what is told is its length with another node between any two. Where the decoder is so rough that a
start is shorter there than the path it led to, the start is what is told.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import gcd, inf

import torch
from torch import Tensor
from torch.nn.functional import pad

from isoprobe.theory.relaxation import History, Relaxed, relax
from isoprobe.theory.stated import stated

#: relative length that a further step promises, below which a path counts as converged where the
#: steps ran out
CONVERGED = 1e-2


@dataclass(frozen=True)
class Effort:
    """How much time a search takes.

    Attributes:
        levels: segments, each twice the one before, and steps at most.
        tolerance: relative length that a step promises, below which a path is at rest.
        every: every start is followed to its end; else the shortest one alone.
    """

    levels: dict[int, int]
    tolerance: float = 1e-3
    every: bool = False


QUICK = Effort({4: 12, 8: 10, 16: 8})
#: where a path is worth more time
THOROUGH = Effort({4: 60, 8: 60, 16: 60, 32: 60}, tolerance=1e-4, every=True)


@dataclass(frozen=True)
class Surface:
    """A decoder's output as a surface with a metric, seen from its latents ``z (B, n)``, float64.

    Attributes:
        decode: ``z -> x (B, *shape)``, differentiable: the decoder, or the decoder in coordinates
            in which the metric is Euclidean (x itself for SSE, :func:`bce_coordinates` for BCE).
        gram: ``z -> J'GJ (B, n, n)``.
        half_beta: beta / 2, the prior's share of M.
        weigh: ``(x (B, *shape), v (B, *shape)) -> G v`` at x, differentiable in both; None where
            the metric is Euclidean in x.
    """

    decode: Callable[[Tensor], Tensor]
    gram: Callable[[Tensor], Tensor]
    half_beta: float
    weigh: Callable[[Tensor, Tensor], Tensor] | None = None

    def tensor(self, z: Tensor) -> Tensor:
        """M = J'GJ + (beta/2) I, ``(B, n, n)`` in float64."""
        eye = torch.eye(z.shape[-1], dtype=torch.float64, device=z.device)
        return self.gram(z).double() + self.half_beta * eye


@dataclass(frozen=True)
class Geodesics:
    """Shortest paths of P pairs.

    Attributes:
        points: nodes of each path, ``(P, K + 1, n)``, K twice the last level's segments; about
            equally far apart in M but where a start was the shortest.
        length: in square roots of the metric's units, ``(P,)``; no start is shorter.
        error: how far off the length may be, from half as many segments, ``(P,)``.
        remaining: relative length that a further step would have saved, ``(P,)``.
        start: which start led to the path, or is it, ``(P,)``.
        starts: length of each start in as many segments as the path has, ``(S, P)``.
    """

    points: Tensor
    length: Tensor
    error: Tensor
    remaining: Tensor
    start: Tensor
    starts: Tensor

    @property
    def converged(self) -> Tensor:
        """Whether a further step would have saved less than a hundredth, ``(P,)`` bool."""
        return self.remaining <= CONVERGED


def bce_coordinates(logits: Tensor) -> Tensor:
    """Coordinates in which BCE's metric tensor, 1 / (2 x (1 - x)), is Euclidean.

    Args:
        logits: of x, any shape.

    Returns:
        sqrt(2) arcsin sqrt(x), written so that it and its derivative stay finite at x = 0 and 1.

    Examples:
        >>> torch.allclose(bce_coordinates(torch.tensor(0.0)), torch.tensor(2**0.5 * torch.pi / 4))
        True
    """
    return 2**0.5 * (torch.pi / 4 + torch.atan(torch.tanh(logits / 4)))


def straight(a: Tensor, b: Tensor, segments: int = 32) -> Tensor:
    """Straight lines from ``a (P, n)`` to ``b (P, n)``: ``(P, segments + 1, n)``."""
    share = torch.linspace(0, 1, segments + 1, dtype=a.dtype, device=a.device)[:, None]
    return a[:, None] + share * (b - a)[:, None]


@stated("Distances (beyond)")
def path_length(surface: Surface, points: Tensor) -> tuple[Tensor, Tensor]:
    """Length of paths, and how far off it may be.

    Chords miss what a path bends between its nodes, by an amount that falls with the square of
    their number; every other node gives a second length, and both together the limit.

    Args:
        surface: decoder and metric.
        points: paths, ``(P, K + 1, n)``, K even.

    Returns:
        (4 L_K - L_(K/2)) / 3 and its distance from L_K, each ``(P,)``.
    """
    with torch.no_grad():
        image = _decoded(surface, points)
        fine = _squares(surface, points, image).sqrt().sum(dim=1)
        coarse = _squares(surface, points[:, ::2], image[:, ::2]).sqrt().sum(dim=1)
    return (4 * fine - coarse) / 3, (fine - coarse).abs() / 3


@stated("Distances (beyond)")
def geodesics(
    surface: Surface,
    starts: Sequence[Tensor],
    effort: Effort = QUICK,
    *,
    block: int | None = None,
) -> Geodesics:
    """Find the shortest paths between the ends of the starts.

    Args:
        surface: decoder and metric.
        starts: one or more guesses with the same ends, each ``(P, K + 1, n)`` with K even and a
            multiple of the first level's segments.
        effort: levels, steps and starts that are followed.
        block: pairs solved together, to bound memory; all when None.

    Returns:
        The shortest path found for each pair; ``converged`` tells where steps ran out.
    """
    stacked = torch.stack(tuple(starts)).double()
    block = block or max(stacked.shape[1], 1)
    parts = [_solved(surface, part, effort) for part in torch.split(stacked, block, dim=1)]
    points, length, error, remaining, start = (
        torch.cat([getattr(part, name) for part in parts])
        for name in ("points", "length", "error", "remaining", "start")
    )
    lengths = torch.cat([part.starts for part in parts], dim=1)
    return Geodesics(points, length, error, remaining, start, lengths)


def equal_steps(surface: Surface, points: Tensor, count: int) -> Tensor:
    """Put so many points on each path, equally far apart along it.

    Args:
        surface: decoder and metric.
        points: paths, ``(P, K + 1, n)``, K at least 2.
        count: points wanted, at least 2: the ends and those between.

    Returns:
        ``(P, count, n)``, between nodes twice as dense as those given.
    """
    fine = refined(points)
    with torch.no_grad():
        segments = _squares(surface, fine, _decoded(surface, fine)).sqrt()
    walked = torch.cat([segments.new_zeros(len(fine), 1), segments.cumsum(dim=1)], dim=1)
    wanted = walked[:, -1:] * torch.linspace(0, 1, count, dtype=walked.dtype)
    at = torch.searchsorted(walked, wanted, right=True).clamp_max(fine.shape[1] - 1)
    left, right = walked.gather(1, at - 1), walked.gather(1, at)
    apart = (right - left).clamp_min(torch.finfo(torch.float64).tiny)
    share = ((wanted - left) / apart)[..., None]
    nodes = at[..., None].expand(-1, -1, fine.shape[2])
    found: Tensor = fine.gather(1, nodes - 1) * (1 - share) + fine.gather(1, nodes) * share
    return found


def _solved(surface: Surface, starts: Tensor, effort: Effort) -> Geodesics:
    """Shortest paths of starts ``(S, P, K + 1, n)``."""
    last = list(effort.levels)[-1]
    starts = torch.stack([_divided(start, 2 * last) for start in starts])
    tries, count = starts.shape[:2]
    lengths, errors = _measured(surface, starts)
    every = torch.arange(tries)[:, None].expand(tries, count)
    chosen = every if effort.every else lengths.argmin(dim=0, keepdim=True)
    found = [_lowered(surface, starts[row, torch.arange(count)], effort) for row in chosen]
    paths = torch.stack([refined(each.points) for each in found])
    remaining = torch.stack([each.remaining / 2 for each in found])
    length, error = _measured(surface, paths)
    # what was lowered on few nodes may be longer between them than a start is
    pairs = (
        (paths, starts),
        (length, lengths),
        (error, errors),
        (remaining, torch.full_like(lengths, inf)),
        (chosen, every),
    )
    best = torch.cat([length, lengths]).argmin(dim=0)
    kept = (torch.cat(pair)[best, torch.arange(count)] for pair in pairs)
    points, length, error, remaining, start = kept
    left = (best >= len(found)).nonzero()[:, 0]
    if len(left):  # one pass that may not move says what a step promises there
        there = _lowered(surface, points[left], Effort({last: 1}, tolerance=inf))
        remaining[left] = there.remaining / 2
    return Geodesics(points, length, error, remaining, start, lengths)


def _measured(surface: Surface, paths: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths and errors of paths ``(S, P, K + 1, n)``, each ``(S, P)``."""
    lengths, errors = zip(*(path_length(surface, each) for each in paths), strict=True)
    return torch.stack(lengths), torch.stack(errors)


def _divided(paths: Tensor, segments: int) -> Tensor:
    """Paths ``(P, K + 1, n)`` in so many segments, through as many of their nodes as these have."""
    had = paths.shape[1] - 1
    paths = paths[:, :: had // gcd(had, segments)]
    while paths.shape[1] <= segments:
        paths = refined(paths)
    return paths


def _lowered(surface: Surface, paths: Tensor, effort: Effort) -> Relaxed:
    """Lower the energy of paths ``(P, K + 1, n)`` from level to level."""
    tensors = _mean_tensor(surface, paths)
    history: History = ()
    for segments, steps in effort.levels.items():
        paths = _divided(paths, segments)
        ends = _decoded(surface, paths[:, [0, -1]]).detach()
        found = relax(
            paths,
            partial(_energy, surface, ends),
            _form(segments).to(paths),
            tensors,
            steps,
            2 * effort.tolerance,  # a length changes by half of what its square does
            history,
        )
        paths = found.points
        # a slope in twice as many nodes is half as large in each
        history = [(_between(step), _between(change) / 2) for step, change in found.history]
    return found


def _between(moves: Tensor) -> Tensor:
    """Moves of the inner nodes ``(P, K - 1, n)`` of a path, of twice as many segments."""
    return refined(pad(moves, (0, 0, 1, 1)))[:, 1:-1]


def _mean_tensor(surface: Surface, paths: Tensor) -> Tensor:
    """Mean of M at the quarters of each path, ``(P, n, n)``."""
    last = paths.shape[1] - 1
    quarters = paths[:, [last // 4, last // 2, last - last // 4]]
    tensors = surface.tensor(quarters.flatten(0, 1))
    mean: Tensor = tensors.view(*quarters.shape[:2], *tensors.shape[1:]).mean(dim=1)
    return mean


def _energy(surface: Surface, ends: Tensor, rows: Tensor, points: Tensor) -> Tensor:
    """Energy of the paths of some rows, ``(P,)``, differentiable in their inner nodes."""
    inner = _decoded(surface, points[:, 1:-1])
    image = torch.cat([ends[rows, :1], inner, ends[rows, 1:]], dim=1)
    fine = _squares(surface, points, image).sum(dim=1)
    coarse = _squares(surface, points[:, ::2], image[:, ::2]).sum(dim=1)
    segments = points.shape[1] - 1
    return segments * (4 * fine - 0.5 * coarse) / 3


def _form(segments: int) -> Tensor:
    """Second derivative of that energy in the inner nodes of one coordinate where M = 1."""
    steps = torch.eye(segments + 1, dtype=torch.float64).diff(dim=0)
    pairs = steps[::2] + steps[1::2]
    whole = 2 * segments * (4 * steps.T @ steps - 0.5 * pairs.T @ pairs) / 3
    return whole[1:-1, 1:-1]


def _squares(surface: Surface, points: Tensor, image: Tensor) -> Tensor:
    """dx' G_mid dx + (beta/2) |dz|^2 of each segment, ``(P, K)`` in float64."""
    moved = image.diff(dim=1)
    weighed = moved
    if surface.weigh is not None:
        middle = 0.5 * (image[:, 1:] + image[:, :-1])
        weighed = surface.weigh(middle.flatten(0, 1), moved.flatten(0, 1)).view_as(moved)
    size = (weighed * moved).flatten(2).sum(dim=2).double()
    return size + surface.half_beta * points.diff(dim=1).square().sum(dim=2)


def _decoded(surface: Surface, points: Tensor) -> Tensor:
    image = surface.decode(points.flatten(0, 1))
    return image.reshape(*points.shape[:2], *image.shape[1:])


def refined(paths: Tensor) -> Tensor:
    """Put a node between any two, by cubic interpolation, quadratic at the ends.

    Args:
        paths: ``(P, K + 1, n)``, K at least 2.

    Returns:
        ``(P, 2 K + 1, n)``.
    """
    bend = paths[:, 2:] - 2 * paths[:, 1:-1] + paths[:, :-2]
    bend = torch.cat([bend[:, :1], bend, bend[:, -1:]], dim=1)
    middle = 0.5 * (paths[:, 1:] + paths[:, :-1]) - (bend[:, 1:] + bend[:, :-1]) / 16
    finer = paths.new_empty(len(paths), 2 * paths.shape[1] - 1, paths.shape[2])
    finer[:, ::2], finer[:, 1::2] = paths, middle
    return finer
