"""Estimate the diagonal of J' G J from a few products a sample, at a cost that n does not change.

Few latents: each sample takes some exact columns, drawn at random and in turn, so that every latent
is seen equally often. Single values are exact, and :mod:`isoprobe.statistics.assisted` makes means
of them.

Many latents, each of which would be seen too seldom: for v = sigma * s with random signs s,
s_j (J' G J v)_j / sigma_j has g_jj as its mean (Bekas, Kokiopoulou and Saad, 2007, for a matrix
that is only known by its products). Scaled by sigma, the terms that must average out are
sigma_j sigma_k g_jk: small where the columns are orthogonal, as an ideal VAE's are, so that their
size measures how far a model is from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.derivatives.exact import products
from isoprobe.statistics.draws import normal, signs

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.derivatives.metric_tensor import OutputMetric
    from isoprobe.derivatives.routes import Route

#: with random signs, one sample in this many gets a second draw, whose difference from the first
#: estimates what lies off the diagonal
OFF_DIAGONAL_EVERY = 8
#: exact columns a sample: with the shared primal pass, five decoder passes
COLUMNS = 4
#: latents up to which columns are drawn, and beyond which signs
COLUMN_LIMIT = 64


@dataclass(frozen=True)
class RandomPullback:
    """Unbiased estimates of the pullback's diagonal.

    Attributes:
        output: decoder output at z, ``(B, *shape)``.
        diagonal: estimates of g_jj, ``(B, n)``; single ones may be negative (signs), or zero where
            nothing was drawn and n / COLUMNS times g_jj elsewhere (columns).
        off_diagonal: unbiased estimates of the sum over k != j of (sigma_j sigma_k g_jk)^2,
            ``(B, n)``, whose mean is zero exactly when the columns are orthogonal.
        drawn: where an exact column lies behind the estimate, ``(B, n)`` bool; None for signs.
    """

    output: Tensor
    diagonal: Tensor
    off_diagonal: Tensor
    drawn: Tensor | None = None


def random_pullback(
    view: OutputMetric,
    z: Tensor,
    std: Tensor,
    index: np.ndarray,
    *,
    seed: int,
    route: Route,
    rows: int | None = None,
) -> RandomPullback:
    """Estimate the diagonal: by columns up to :data:`COLUMN_LIMIT` latents, otherwise by signs.

    Args:
        view: metric and decoder.
        z: latents, ``(B, n)``.
        std: scale of the directions, sigma, positive, ``(B, n)``.
        index: position of each sample in the run, ``(B,)``.
        seed: of the draws.
        route: how the decoder is differentiated forwards.
        rows: tangents pushed at once, by columns; all when None.

    Returns:
        Estimates whose mean over the draws is the diagonal, exactly.
    """
    if z.shape[1] <= COLUMN_LIMIT:
        columns = torch.as_tensor(drawn_columns(seed, index, z.shape[1]), device=z.device)
        return column_pullback(view, z, std, columns, route, rows)
    return _by_signs(view, z, std, index, seed, route)


# --------------------------------------------------------------------------- columns


def drawn_columns(seed: int, index: np.ndarray, n: int) -> np.ndarray:
    """Which columns each sample takes.

    Each run of n samples goes through one random order of the latents, again and again: every
    latent is drawn equally often, and every set of columns is as likely as any other.

    Args:
        seed: of the draws.
        index: position of each sample in the run, ``(B,)``.
        n: number of latents.

    Returns:
        Distinct latents, ``(B, min(COLUMNS, n))``.
    """
    count = min(COLUMNS, n)
    runs, run = np.unique(index // n, return_inverse=True)
    orders = normal(seed, "columns", runs, n).argsort(axis=1)
    places = (index % n * count)[:, None] + np.arange(count)
    chosen: np.ndarray = np.take_along_axis(orders[run], places % n, axis=1)
    return chosen


def column_pullback(
    view: OutputMetric,
    z: Tensor,
    std: Tensor,
    columns: Tensor,
    route: Route,
    rows: int | None = None,
) -> RandomPullback:
    """Exact values at the drawn columns, weighted so that their mean over draws is the diagonal.

    Args:
        view: metric and decoder.
        z: latents, ``(B, n)``.
        std: sigma, ``(B, n)``.
        columns: distinct latents of each sample, ``(B, C)``.
        route: how the decoder is differentiated.
        rows: tangents pushed at once; all when None.

    Returns:
        Estimates, with what lies off the diagonal from pairs of the drawn columns.
    """
    block = max((rows or columns.numel()) // columns.shape[1], 1)
    parts = []
    for start in range(0, len(z), block):
        where = slice(start, start + block)
        parts.append(_columns(view.rows(where), route, z[where], columns[where]))
    output, gram = (torch.cat(pieces) for pieces in zip(*parts, strict=True))
    n, count = z.shape[1], columns.shape[1]
    scale = std.gather(1, columns)
    crossed = (gram * scale[:, :, None] * scale[:, None, :]).square()
    crossed.diagonal(dim1=1, dim2=2).zero_()
    pairs = (n - 1) / max(count - 1, 1)

    def placed(values: Tensor) -> Tensor:
        return torch.zeros_like(z).scatter(1, columns, values * (n / count))

    return RandomPullback(
        output,
        placed(gram.diagonal(dim1=1, dim2=2)),
        placed(crossed.sum(2) * pairs),
        torch.zeros_like(z, dtype=torch.bool).scatter(1, columns, value=True),
    )


def _columns(view: OutputMetric, route: Route, z: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
    """Output and products of the drawn columns, ``(B, C, C)``."""
    directions = z.new_zeros(columns.shape[1], *z.shape)
    directions.scatter_(2, columns.T[:, :, None], 1.0)
    output, tangents = route.push(view.decode, z, directions)
    with torch.no_grad():
        return output, products(tangents, view.action(output, tangents))


# --------------------------------------------------------------------------- signs


def _by_signs(
    view: OutputMetric, z: Tensor, std: Tensor, index: np.ndarray, seed: int, route: Route
) -> RandomPullback:
    """One draw of signs for every sample, a second for every eighth."""
    n = z.shape[1]
    both = torch.as_tensor(signs(seed, "pullback", index, 2 * n), dtype=z.dtype, device=z.device)
    again = torch.as_tensor(index % OFF_DIAGONAL_EVERY == 0, device=z.device)
    drawn = torch.cat([both[:, :n], both[again, n:]])
    numbers = torch.arange(len(z), device=z.device)
    rows = torch.cat([numbers, numbers[again]])
    outputs, diagonals = sign_pullback(view.rows(rows), z[rows], std[rows], drawn, route)
    output, diagonal, repeated = outputs[: len(z)], diagonals[: len(z)], diagonals[len(z) :]
    estimate = torch.zeros_like(z)
    estimate[again] = OFF_DIAGONAL_EVERY * off_diagonal_squares(
        diagonal[again], repeated, std[again]
    )
    return RandomPullback(output, diagonal, estimate)


def sign_pullback(
    view: OutputMetric, z: Tensor, std: Tensor, signs: Tensor, route: Route
) -> tuple[Tensor, Tensor]:
    """Estimate the diagonal with one forward and one backward derivative.

    Args:
        view: metric and decoder.
        z: latents, ``(B, n)``.
        std: scale of the directions, sigma, positive, ``(B, n)``.
        signs: -1 and +1 with equal chance, independent, ``(B, n)``.
        route: how the decoder is differentiated forwards.

    Returns:
        Decoder output ``(B, *shape)``, and estimates ``(B, n)`` whose mean over the signs is the
        diagonal, exactly.
    """
    output, tangents = route.push(view.decode, z, (std * signs)[None])
    with torch.no_grad():
        cotangent = view.action(output, tangents)[0]
    with torch.enable_grad(), route.kernels():
        leaf = z.detach().requires_grad_()
        (product,) = torch.autograd.grad((view.decode(leaf) * cotangent).sum(), leaf)
    return output, signs * product / std


def off_diagonal_squares(first: Tensor, second: Tensor, std: Tensor) -> Tensor:
    """Unbiased estimate of the sum over k != j of (sigma_j sigma_k g_jk)^2.

    Args:
        first: an estimate of the diagonal, ``(B, n)``.
        second: an independent one of the same samples, ``(B, n)``.
        std: sigma, ``(B, n)``.

    Returns:
        ``(B, n)``; its mean is zero exactly when the columns are orthogonal.
    """
    return 0.5 * (std.square() * (first - second)).square()
