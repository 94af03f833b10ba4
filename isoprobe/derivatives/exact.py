"""Compute the pullback J' G J of the metric through the decoder, by forward derivatives.

Tangents are pushed through an unmodified decoder together, over a shared primal pass, in blocks of
samples and chunks of directions that keep memory bounded, and meet G in its structured form, so
that nothing of size m x m is ever made.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from isoprobe.derivatives.routes import Route, choose_route
from isoprobe.errors import MetricError

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.derivatives.metric_tensor import OutputMetric

METHODS = ("exact", "probe", "finite-difference")


@dataclass(frozen=True)
class Pullback:
    """The pullback at each sample.

    Attributes:
        output: decoder output at z, ``(B, *shape)``.
        diagonal: g_jj, ``(B, n)``, in units of the metric.
        gram: g_jk = J_j' G J_k, ``(B, n, n)``, where asked.
        euclidean: J_j' J_k in input space, ``(B, n, n)``, where asked.
    """

    output: Tensor
    diagonal: Tensor
    gram: Tensor | None = None
    euclidean: Tensor | None = None


def exact_pullback(
    view: OutputMetric,
    z: Tensor,
    *,
    gram: bool = False,
    euclidean: bool = False,
    chunk: int | None = None,
    block: int | None = None,
    route: Route | None = None,
) -> Pullback:
    """Pullback of the metric by exact forward derivatives.

    Args:
        view: metric and decoder.
        z: latents, ``(B, n)``.
        gram: also give all of J' G J.
        euclidean: also give J' J of the decoded mean.
        chunk: tangents of one sample pushed at once; all n when None.
        block: samples pushed at once; all B when None.
        route: how the decoder is differentiated; found by trial when None.

    Returns:
        The pullback at every sample (section 1 and 2 of the theory page).

    Raises:
        CheckpointError: when no route differentiates the decoder.
    """
    route = route or choose_route(view.rows(slice(2)).decode, z[:2])
    chunk = chunk or z.shape[1]
    with torch.no_grad():
        if gram or euclidean:
            parts = [
                _whole(part, route, at, chunk, gram, euclidean)
                for part, at in _split(view, z, block)
            ]
        else:
            parts = [_diagonal(part, route, at, chunk) for part, at in _split(view, z, block)]
        return parts[0] if len(parts) == 1 else _joined(parts)


def _split(
    view: OutputMetric, z: Tensor, block: int | None
) -> Iterator[tuple[OutputMetric, Tensor]]:
    """Blocks of samples, each with the decoder for them.

    Yields:
        The next block.
    """
    step = block or max(len(z), 1)
    for start in range(0, max(len(z), 1), step):
        where = slice(start, start + step)
        yield view.rows(where), z[where]


def _joined(parts: list[Pullback]) -> Pullback:
    def cat(name: str) -> Tensor | None:
        pieces = [getattr(part, name) for part in parts]
        return None if pieces[0] is None else torch.cat(pieces)

    output, diagonal = (torch.cat([getattr(p, n) for p in parts]) for n in ("output", "diagonal"))
    return Pullback(output, diagonal, cat("gram"), cat("euclidean"))


def _diagonal(view: OutputMetric, route: Route, z: Tensor, chunk: int) -> Pullback:
    quadratic = []
    for output, tangents in route.columns(view.decode, z, chunk):
        quadratic.append(squared_norms(view, output, tangents))
    return Pullback(output, torch.cat(quadratic, dim=1) if len(quadratic) > 1 else quadratic[0])


def _whole(
    view: OutputMetric, route: Route, z: Tensor, chunk: int, gram: bool, euclidean: bool
) -> Pullback:
    pushed = list(route.columns(view.decode, z, chunk))
    output = pushed[0][0]
    columns = torch.cat([tangents for _, tangents in pushed]) if len(pushed) > 1 else pushed[0][1]
    if route.length is None:
        matrix = products(columns, view.action(output, columns))
    else:
        matrix = products(columns, columns) * isotropic(view, output)[:, :, None]
    flat = _to_mean(view, output, columns) if euclidean else None
    return Pullback(
        output,
        matrix.diagonal(dim1=1, dim2=2).contiguous(),
        matrix if gram else None,
        products(flat, flat) if flat is not None else None,
    )


def finite_difference_pullback(view: OutputMetric, z: Tensor, epsilon: float = 1e-2) -> Pullback:
    """Diagonal of the pullback from D alone, for black boxes and for comparison.

    The symmetric second difference of D(x_check, Dec(z + eps e_j)), with D(x_check, x_check)
    subtracted: it is not zero for BCE (Eq. 23 leaves this out).

    Args:
        view: metric and decoder.
        z: latents, ``(B, n)``.
        epsilon: step in units of z.

    Returns:
        The diagonal; its error is O(epsilon^2) plus rounding over epsilon^2.
    """
    with torch.no_grad():
        output = view.decode(z)
        x_check = view.mean(output)
        base = view.distortion(x_check, output)
        columns = []
        for j in range(z.shape[1]):
            step = torch.zeros_like(z)
            step[:, j] = epsilon
            above = view.distortion(x_check, view.decode(z + step))
            below = view.distortion(x_check, view.decode(z - step))
            columns.append(((above - base) + (below - base)) / (2 * epsilon**2))
        return Pullback(output, torch.stack(columns, dim=1))


def isotropic(view: OutputMetric, output: Tensor) -> Tensor:
    """a_x of a metric with G = a_x I.

    Returns:
        ``(B, 1)``.

    Raises:
        MetricError: for a metric of another form.
    """
    weights = view.weights(output)
    if weights is None or weights[0].numel() != 1:
        raise MetricError(f"metric '{view.metric.name}' is no multiple of the identity")
    return weights.reshape(-1, 1)


def squared_norms(view: OutputMetric, output: Tensor, tangents: Tensor) -> Tensor:
    """v' G v for ``tangents (C, B, *shape)``: ``(B, C)``."""
    flat = tangents.flatten(2)
    weights = view.weights(output)
    if weights is None:
        return _dot(flat, view.action(output, tangents).flatten(2))
    weights = weights.flatten(1)
    if weights.shape[1] == 1:
        return _dot(flat, flat) * weights
    return _dot(flat * weights, flat)


def _dot(left: Tensor, right: Tensor) -> Tensor:
    """Products of ``(C, B, m)`` over the last axis, ``(B, C)``."""
    product: Tensor = torch.linalg.vecdot(left, right)
    return product.T


def products(left: Tensor, right: Tensor) -> Tensor:
    """All products of ``(C, B, *shape)`` columns, symmetric: ``(B, C, C)``."""
    left, right = left.flatten(2).transpose(0, 1), right.flatten(2).transpose(0, 1)
    product = left @ right.mT
    return 0.5 * (product + product.mT)


def _to_mean(view: OutputMetric, output: Tensor, columns: Tensor) -> Tensor:
    """Columns of the decoded mean from columns of the output."""
    if not view.logits:
        return columns
    x = torch.sigmoid(output)
    return columns * (x * (1 - x))
