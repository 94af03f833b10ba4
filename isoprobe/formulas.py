"""The paper's formulas, and the exact finite-rate ones, on tensors or arrays alike.

Equation numbers are those of Nakagawa, Kato and Suzuki (2021). In every formula beta is the KL
weight in the units of the metric, L_x = E D + beta sum_j KL_j (Eq. 3), and g_jj the diagonal of
the pullback J' G J at the posterior mean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    Real = TypeVar("Real", Tensor, np.ndarray, float)
    Sequence = TypeVar("Sequence", Tensor, np.ndarray)

NATS_TO_BITS = 1 / math.log(2)


def kl_divergence(mean: Tensor, std: Tensor) -> Tensor:
    """KL of each posterior dimension from the prior N(0, 1).

    Args:
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``.

    Returns:
        ``(B, n)`` in nats (Eq. 2).
    """
    variance = std.square()
    return 0.5 * (mean.square() + variance - variance.log() - 1)


def isometry_norm(std: Sequence, pullback_diagonal: Sequence, beta: float) -> Sequence:
    """Squared norm of the implicit isometric basis vectors.

    Args:
        std: sigma, ``(..., n)``.
        pullback_diagonal: g_jj, ``(..., n)``.
        beta: KL weight.

    Returns:
        ``(..., n)``, dimensionless (Eq. 23): 1 - sigma^2 at an optimum.
    """
    norm: Sequence = 2 / beta * std**2 * pullback_diagonal
    return norm


def residual(norm: Real, variance: Real) -> Real:
    """Return how far a dimension is from stationarity in sigma: norm + sigma^2 - 1.

    Zero at an optimum for used and collapsed dimensions alike, because the KL term sigma^2 that
    the paper drops after Eq. 10 is kept here.
    """
    gap: Real = norm + variance - 1
    return gap


def rough_importance(inverse_variance_mean: Real, beta: float) -> Real:
    """Var(y_j) as (beta/2) E[sigma_j^-2] (Eq. 22); an upper bound by Poincare's inequality."""
    return beta / 2 * inverse_variance_mean


def cosines(gram: Tensor) -> Tensor:
    """Cosines between decoder columns in the metric (Lemma 4).

    Args:
        gram: J' G J, ``(B, n, n)``.

    Returns:
        ``(B, n, n)``; 0 where a column vanishes.
    """
    length = gram.diagonal(dim1=-2, dim2=-1).clamp_min(0).sqrt()
    product = length[..., :, None] * length[..., None, :]
    return (gram / product.clamp_min(1e-300 if gram.dtype.itemsize == 8 else 1e-38)).clamp(-1, 1)


def hadamard_gap(gram: Tensor) -> Tensor:
    """Half of sum_j log g_jj - log det g: zero exactly when the columns are orthogonal.

    Args:
        gram: J' G J, positive definite, ``(B, n, n)``.

    Returns:
        ``(B,)`` in nats, >= 0 by Hadamard's inequality.
    """
    # The determinant of the correlation matrix keeps the difference free of cancellation.
    return -0.5 * cosines(gram.double()).logdet()


def active_subset(gram: Tensor, active: Tensor) -> Tensor:
    """Rows and columns of ``gram (B, n, n)`` where ``active (n,)`` is true: ``(B, k, k)``."""
    return gram[..., active, :][..., :, active]
