"""The pullback J' G J of the metric through the decoder, by forward derivatives.

Tangents are pushed through an unmodified decoder together (vmapped over a shared primal pass) in
chunks that keep memory bounded, and meet G in its structured form, so that nothing of size m x m
is ever made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.func import jvp, vmap

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.tensors import OutputMetric

METHODS = ("exact", "finite-difference")


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
) -> Pullback:
    """Pullback of the metric by exact forward derivatives.

    Args:
        view: metric and decoder.
        z: latents, ``(B, n)``.
        gram: also give all of J' G J.
        euclidean: also give J' J of the decoded mean.
        chunk: tangents pushed at once; all n when None.

    Returns:
        The pullback at every sample (section 1 and 2 of the theory page).
    """
    n = z.shape[1]
    chunk = chunk or n
    with torch.no_grad():
        if gram or euclidean:
            output, columns = _columns(view.decode, z, chunk)
            matrix = _gram(columns, view.action(output, columns))
            flat = _to_mean(view, output, columns) if euclidean else None
            return Pullback(
                output,
                matrix.diagonal(dim1=1, dim2=2).contiguous(),
                matrix if gram else None,
                _gram(flat, flat) if flat is not None else None,
            )
        output = None
        parts = []
        for start in range(0, n, chunk):
            output, tangents = _push(view.decode, z, start, min(start + chunk, n))
            parts.append(_quadratic(view, output, tangents))
        return Pullback(output, torch.cat(parts, dim=1))


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


def _push(
    decode: Callable[[Tensor], Tensor], z: Tensor, start: int, stop: int
) -> tuple[Tensor, Tensor]:
    """Decoder output ``(B, *shape)`` and columns J_start..J_stop, ``(C, B, *shape)``."""
    basis = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)[start:stop]

    def push(direction: Tensor) -> tuple[Tensor, Tensor]:
        return jvp(decode, (z,), (direction.expand_as(z),))  # type: ignore[no-any-return]

    return vmap(push, out_dims=(None, 0))(basis)  # type: ignore[no-any-return]


def _columns(decode: Callable[[Tensor], Tensor], z: Tensor, chunk: int) -> tuple[Tensor, Tensor]:
    pushed = [
        _push(decode, z, start, min(start + chunk, z.shape[1]))
        for start in range(0, z.shape[1], chunk)
    ]
    return pushed[0][0], torch.cat([tangents for _, tangents in pushed])


def _quadratic(view: OutputMetric, output: Tensor, tangents: Tensor) -> Tensor:
    """v' G v for ``tangents (C, B, *shape)``: ``(B, C)``."""
    weighted = view.action(output, tangents)
    return (tangents * weighted).flatten(2).sum(dim=2).T


def _gram(left: Tensor, right: Tensor) -> Tensor:
    """All products of ``(n, B, *shape)`` columns, symmetric: ``(B, n, n)``."""
    left, right = left.flatten(2).transpose(0, 1), right.flatten(2).transpose(0, 1)
    product = left @ right.mT
    return 0.5 * (product + product.mT)


def _to_mean(view: OutputMetric, output: Tensor, columns: Tensor) -> Tensor:
    """Columns of the decoded mean from columns of the output."""
    if not view.logits:
        return columns
    x = torch.sigmoid(output)
    return columns * (x * (1 - x))
