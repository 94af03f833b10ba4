"""Lower the energy of many paths at once, by limited-memory BFGS preconditioned with their metric.

Each path has its own history, step and end; they share the passes of the decoder. The first guess
of the inverse Hessian is that of a surface whose metric is the path's mean M, where straight lines
are exact: (A x M)^-1 with A the energy's form in the nodes of one coordinate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_MEMORY = 12
#: share of a step below which a path is left where it is
_SHORTEST = 1e-10
#: the smallest number that one can be divided by
_LEAST = torch.finfo(torch.float64).tiny
#: ``(rows, points) -> energy``: of paths ``points (A, K + 1, n)``, which are ``rows (A,)`` of all
Energy = Callable[[Tensor, Tensor], Tensor]
#: steps and the changes of the slope along them, each ``(P, K - 1, n)``, the oldest first
History = Sequence[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Relaxed:
    """Where paths came to rest.

    Attributes:
        points: ``(P, K + 1, n)``, ends as they were.
        energy: ``(P,)``.
        remaining: decrease that a further step promises, relative to the energy, ``(P,)``.
        history: the last steps.
    """

    points: Tensor
    energy: Tensor
    remaining: Tensor
    history: History


def relax(
    paths: Tensor,
    energy: Energy,
    form: Tensor,
    tensors: Tensor,
    passes: int,
    tolerance: float,
    history: History = (),
) -> Relaxed:
    """Lower the energy of each path until a step promises less than ``tolerance`` of it.

    In each pass a path takes a step, or a shorter one where its last went uphill, so that a pass
    asks for the energy of all paths that still move.

    Args:
        paths: ``(P, K + 1, n)``, float64; the first and last nodes stay.
        energy: differentiable in the inner nodes.
        form: the energy's second derivative in the inner nodes where M = 1, ``(K - 1, K - 1)``.
        tensors: M of each path, ``(P, n, n)``, positive definite.
        passes: at most.
        tolerance: relative.
        history: what is known of the energy's curvature.

    Returns:
        The paths, none of higher energy than before.
    """
    points = paths.clone()
    along, across = torch.linalg.inv(form), torch.linalg.inv(tensors)

    def precondition(rows: Tensor, slopes: Tensor) -> Tensor:
        product: Tensor = along @ slopes @ across[rows]
        return product

    rows = torch.arange(len(points), device=points.device)
    value, slope = _with_slope(energy, rows, points)
    step, share = torch.zeros_like(slope), torch.ones_like(value)
    known = list(history)
    remaining = torch.full_like(value, torch.inf)
    for _ in range(passes):
        moved = rows[share[rows] == 1]
        step[moved] = _direction(known, precondition, moved, slope[moved])
        promise = -_dot(step[moved], slope[moved])
        remaining[moved] = promise / 2 / value[moved].clamp_min(_LEAST)
        rows = rows[(remaining[rows] > tolerance) & (share[rows] > _SHORTEST)]
        if not len(rows):
            break
        before = points[:, 1:-1].clone(), slope.clone()
        _advance(energy, rows, points, value, slope, step, share)
        known.append((points[:, 1:-1] - before[0], slope - before[1]))
        del known[:-_MEMORY]
    return Relaxed(points, value, remaining, known)


def _advance(
    energy: Energy,
    rows: Tensor,
    points: Tensor,
    value: Tensor,
    slope: Tensor,
    step: Tensor,
    share: Tensor,
) -> None:
    """Try the share of its step that each of some paths is at, in place.

    Where the energy falls the path moves and its share is 1 again; elsewhere the share is cut.
    """
    part = share[rows]
    promise = -part * _dot(step[rows], slope[rows])
    trial = points[rows]
    trial[:, 1:-1] += part[:, None, None] * step[rows]
    tried, new_slope = _with_slope(energy, rows, trial)
    fallen = tried <= value[rows] - 1e-4 * promise
    # the parabola through both values and the slope says where the lowest point lies
    rise = (tried - value[rows]) / promise + 1
    shorter = part * (0.5 / rise).nan_to_num(0).clamp_min(0.1)
    share[rows] = torch.where(fallen, 1.0, shorter)
    done = rows[fallen]
    points[done], value[done], slope[done] = trial[fallen], tried[fallen], new_slope[fallen]


def _with_slope(energy: Energy, rows: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Energy ``(A,)`` and its slope in the inner nodes, ``(A, K - 1, n)``."""
    with torch.enable_grad():
        inner = points[:, 1:-1].detach().requires_grad_()
        value = energy(rows, torch.cat([points[:, :1], inner, points[:, -1:]], dim=1))
        (slope,) = torch.autograd.grad(value.sum(), inner)
    return value.detach(), slope


def _direction(
    history: History,
    precondition: Callable[[Tensor, Tensor], Tensor],
    rows: Tensor,
    slope: Tensor,
) -> Tensor:
    """Minus the inverse Hessian times the slope, by the two loops of L-BFGS."""
    answer, used = slope, []
    for moves, changes in reversed(history):
        move, change = moves[rows], changes[rows]
        curvature = _dot(move, change)
        # a path that did not move, or bent the wrong way, teaches nothing
        weight = torch.where(curvature > _LEAST, 1 / curvature, 0.0)
        share = weight * _dot(move, answer)
        answer = answer - share[:, None, None] * change
        used.append((move, change, weight, share))
    scale = torch.ones_like(slope[:, 0, 0])
    if used:
        move, change, weight, _ = used[0]
        known = _dot(change, precondition(rows, change))
        scale = torch.where(weight > 0, 1 / (weight * known), 1.0)
        scale = scale.clamp(0.1, 10)
    answer = scale[:, None, None] * precondition(rows, answer)
    for move, change, weight, share in reversed(used):
        answer = answer + (share - weight * _dot(change, answer))[:, None, None] * move
    return -answer


def _dot(left: Tensor, right: Tensor) -> Tensor:
    return (left * right).sum(dim=(1, 2))
