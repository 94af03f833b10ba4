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

    Examples:
        >>> import torch
        >>> kl_divergence(torch.zeros(1, 2), torch.ones(1, 2))  # a posterior that is the prior
        tensor([[0., 0.]])
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

    Examples:
        A linear decoder with one column of length 2, trained to its optimum at beta = 1:
        sigma^2 = beta / (beta + 2 * 2^2).

        >>> import numpy as np
        >>> std, g = np.array([1 / 3]), np.array([4.0])
        >>> norm = isometry_norm(std, g, beta=1.0)
        >>> np.allclose(norm, 1 - std**2)
        True
    """
    norm: Sequence = 2 / beta * std**2 * pullback_diagonal
    return norm


def residual(norm: Real, variance: Real) -> Real:
    """Return how far a dimension is from stationarity in sigma: norm + sigma^2 - 1.

    Zero at an optimum for used and collapsed dimensions alike, because the KL term sigma^2 that
    the paper drops after Eq. 10 is kept here.

    Examples:
        >>> residual(0.75, 0.25)  # a used dimension at its optimum
        0.0
        >>> residual(0.0, 1.0)  # a collapsed one
        0.0
    """
    gap: Real = norm + variance - 1
    return gap


def rough_importance(inverse_variance_mean: Real, beta: float) -> Real:
    """Estimate Var(y_j) by mean inverse variances; an upper bound by Poincare's inequality.

    Args:
        inverse_variance_mean: E[sigma_j^-2], ``(..., n)``.
        beta: KL weight.

    Returns:
        (beta/2) E[sigma_j^-2], in units of the metric (Eq. 22).

    Examples:
        >>> rough_importance(100.0, beta=0.5)  # E[sigma^-2] = 100
        25.0
    """
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

    Examples:
        Two columns of equal length at 60 degrees: minus half the log of sin^2.

        >>> import math, torch
        >>> gap = hadamard_gap(torch.tensor([[[1.0, 0.5], [0.5, 1.0]]]))
        >>> math.isclose(float(gap), -0.5 * math.log(0.75))
        True
    """
    # The determinant of the correlation matrix keeps the difference free of cancellation.
    return -0.5 * cosines(gram.double()).logdet()


def active_subset(gram: Tensor, active: Tensor) -> Tensor:
    """Rows and columns of ``gram (B, n, n)`` where ``active (n,)`` is true: ``(B, k, k)``."""
    return gram[..., active, :][..., :, active]
