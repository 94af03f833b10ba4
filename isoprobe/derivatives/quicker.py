"""Take all columns of a Jacobian by a shorter way than pushing n tangents through every layer.

Where fewer outputs than latents leave the decoder, its rows come cheaper, by reverse mode. Where
the last layer is linear, x_hat = W h + b, and the metric is a multiple of the identity, products of
columns W t need W' W alone: with R from the QR decomposition of W, they are those of R t, which are
as short as h is. Both are tried on two samples against the route that was found before, which
itself agrees with reverse mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from isoprobe.derivatives.routes import Route, choose_route, named_route
from isoprobe.derivatives.tangents import (
    UnsupportedError,
    last_linear,
    push_folded,
    push_keeping,
    push_stacked,
)

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.derivatives.metric_tensor import OutputMetric
    from isoprobe.derivatives.routes import Decoder

FOLDED, ROWS = "folded", "rows"
#: a hidden layer as wide as this share of the output is not worth the trouble
_SHORTER = 0.9
#: multiplications of a QR decomposition, at most: some ten seconds of a processor
_DECOMPOSED = 1e11
#: directions that a way is tried in
_TRIED = 4


def quickest_route(view: OutputMetric, z: Tensor, name: str | None = None) -> Route:
    """The route to all columns, found by trial.

    Args:
        view: metric and decoder.
        z: latents to try it on, ``(B, n)``; two are enough.
        name: of a route as it was found before, which is not tried again.

    Returns:
        A route; its name ends in ``+folded`` or ``+rows`` where there is a shorter way.
    """
    if name is not None:
        base, _, shorter = name.partition("+")
        found = _shorter(shorter, named_route(base), view, z)
        return found or named_route(base)
    route = choose_route(view.decode, z)
    with torch.no_grad(), route.kernels():
        output = view.decode(z)
        outputs = output[0].numel()
    for shorter in (ROWS,) if outputs < z.shape[1] else (FOLDED,):
        found = _shorter(shorter, route, view, z)
        if found is not None and _same_products(found, route, view, z):
            return found
    return route


def _shorter(kind: str, route: Route, view: OutputMetric, z: Tensor) -> Route | None:
    """The shorter way of a kind; None where there is none."""
    if kind == ROWS:
        return replace(route, name=f"{route.name}+{ROWS}", all_columns=_by_rows, by_rows=True)
    if (
        kind != FOLDED
        or route.method not in {push_stacked, push_keeping}
        or not _isotropic(view, z)
    ):
        return None
    with torch.no_grad(), route.kernels():
        try:
            weight = last_linear(view.decode, z)
        except UnsupportedError:
            return None
    if weight is None:
        return None
    outputs, hidden = weight.shape
    if hidden > _SHORTER * outputs or outputs * hidden**2 > _DECOMPOSED:
        return None
    root = torch.linalg.qr(weight.detach().double(), mode="r").R.to(weight)
    columns = partial(_by_folding, weight, root, route.method is push_keeping)
    name = f"{route.name}+{FOLDED}"
    return replace(route, name=name, all_columns=columns, length=len(root))


def _isotropic(view: OutputMetric, z: Tensor) -> bool:
    """Whether G is a number times the identity."""
    if view.logits or view.metric.scale is None:
        return False
    with torch.no_grad():
        weights = view.weights(view.decode(z))
    return weights is not None and weights[0].numel() == 1


def _by_folding(
    weight: Tensor,
    root: Tensor,
    keeping: bool,
    decode: Decoder,
    z: Tensor,
    directions: Iterator[Tensor],
) -> Iterator[tuple[Tensor, Tensor]]:
    """Columns ``(C, B, h)`` whose products are those of the true ones.

    Yields:
        Output and columns of the next directions.
    """
    for some in directions:
        yield push_folded(decode, z, some, weight, root, keeping=keeping)


def _by_rows(
    decode: Decoder, z: Tensor, directions: Iterator[Tensor]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Columns ``(n, B, *shape)`` from the rows, one backward pass for each output.

    Yields:
        Output and columns, all at once whatever the directions.
    """
    del directions
    with torch.enable_grad():
        leaf = z.detach().requires_grad_()
        output = decode(leaf)
        flat = output.flatten(1)
        last = flat.shape[1] - 1
        rows = [
            torch.autograd.grad(flat[:, i].sum(), leaf, retain_graph=i < last)[0]
            for i in range(last + 1)
        ]
    columns = torch.stack(rows).permute(2, 1, 0)
    yield output.detach(), columns.reshape(z.shape[1], *output.shape)


def _same_products(found: Route, route: Route, view: OutputMetric, z: Tensor) -> bool:
    """Whether products of columns agree with those that the route gives, to rounding."""
    n = z.shape[1]
    generator = torch.Generator().manual_seed(2)
    mixed = torch.randn(_TRIED, n, generator=generator, dtype=torch.float64).to(z)
    try:
        _, expected = route.push(view.decode, z, mixed[:, None])
        columns = [c for _, c in found.columns(view.decode, z, n)]
    except Exception:  # a user's module may fail in any way: the longer way is taken
        return False
    tangents = torch.einsum("kc,cbm->kbm", mixed.double(), torch.cat(columns).flatten(2).double())
    expected = expected.flatten(2).double()
    one, two = (torch.einsum("kbm,lbm->bkl", t, t) for t in (tangents, expected))
    rounding = 1e3 * torch.finfo(z.dtype).eps
    return bool(((one - two).abs() <= rounding * two.abs().amax()).all())
