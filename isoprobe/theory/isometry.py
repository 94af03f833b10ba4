"""Measure isometry: norms, residuals and cosines of the decoder's columns (Eq. 14, 23)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe.theory.either import library, log_determinant
from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    from isoprobe.theory.either import Array, Real


@stated("Isometry", "Eq. 23")
def pullback_diagonal(gram: Array) -> Array:
    """g_jj = J_j' G J_j, what one unit of each latent costs to second order (D'_j in Eq. 23).

    Args:
        gram: J' G J, ``(..., n, n)``.

    Returns:
        ``(..., n)`` in units of the metric.
    """
    diagonal: Array = gram.diagonal(0, -2, -1)
    return diagonal


@stated("Isometry", "Eq. 23")
def decoder_response(std: Real, pullback_diagonal: Real) -> Real:
    """What one sigma of each latent costs, twice: 2 sigma_j^2 g_jj, the norm before beta (Eq. 23).

    Args:
        std: sigma, ``(..., n)``.
        pullback_diagonal: g_jj, ``(..., n)``.

    Returns:
        ``(..., n)`` in units of the metric: beta (1 - sigma_j^2) at an optimum.
    """
    response: Real = 2 * std**2 * pullback_diagonal
    return response


@stated("Isometry", "Eq. 23")
def norm_of(response: Real, beta: Any) -> Real:
    """Norm from the decoder's response (Eq. 23).

    Args:
        response: 2 sigma^2 g_jj or its mean, in units of the metric, ``(..., n)``.
        beta: KL weight, a number of any kind.

    Returns:
        ``(..., n)``, dimensionless.
    """
    norm: Real = response / beta
    return norm


@stated("Stationarity (beyond)")
def stationary_norm(response: Real, beta: float) -> Real:
    """Norm by stationarity, with no expansion, for any network and any distortion.

    Args:
        response: E[sigma_j eps_j dD(x, Dec(mu + sigma eps))/dz_j] in units of the metric.
        beta: KL weight.

    Returns:
        Of the same shape, dimensionless: 1 - sigma^2 at an optimum.
    """
    return norm_of(response, beta)


@stated("Stationarity (beyond)")
def surplus_of_products(shifts: Any, std: Any, gram: Any) -> Any:
    """What draws add to u_k dD/dz_j by chance, to second order: 2 u_k (J'GJ u)_j less its mean.

    Taken away from the mean of u_k dD/dz_j over the same draws, it takes noise away and nothing
    else.

    Args:
        shifts: u, draws from N(0, diag sigma^2), ``(B, draws, n)``.
        std: sigma, ``(B, n)``.
        gram: J'GJ, ``(B, n, n)``.

    Returns:
        Mean over the draws, ``(B, n, n)``, k first, of mean 0.
    """
    return 2 * (shifts.mT @ (shifts @ gram) / shifts.shape[1] - (std**2)[:, :, None] * gram)


@stated("Stationarity (beyond)")
def surplus_of_answers(shifts: Any, std: Any, gram: Any) -> Any:
    """The same for j = k alone: 2 u_j (J'GJ u)_j - 2 sigma_j^2 g_jj.

    Args:
        shifts: u, ``(B, draws, n)``.
        std: sigma, ``(B, n)``.
        gram: J'GJ, ``(B, n, n)``; or its diagonal, ``(B, n)``, which takes away less.

    Returns:
        Mean over the draws, ``(B, n)``, of mean 0.
    """
    if gram.ndim == std.ndim:
        return 2 * ((shifts**2).mean(1) - std**2) * gram
    return 2 * ((shifts * (shifts @ gram)).mean(1) - std**2 * gram.diagonal(0, -2, -1))


@stated("Isometry", "Eq. 23")
def isometry_norm(std: Real, pullback_diagonal: Real, beta: float) -> Real:
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
    norm: Real = norm_of(decoder_response(std, pullback_diagonal), beta)
    return norm


@stated("Isometry")
def residual(norm: Real, variance: Real) -> Real:
    """Return how far a dimension is from stationarity in sigma: norm + sigma^2 - 1.

    Zero at an optimum for used and collapsed dimensions alike, because the KL term sigma^2 that
    the paper drops when it derives its norms is kept here.

    Examples:
        >>> residual(0.75, 0.25)  # a used dimension at its optimum
        0.0
        >>> residual(0.0, 1.0)  # a collapsed one
        0.0
    """
    gap: Real = norm + variance - 1
    return gap


@stated("Isometry")
def unused_variance(variance: Real) -> Real:
    """Return 1 - sigma^2, which the norm equals at an optimum."""
    unused: Real = 1 - variance
    return unused


@stated("Stationarity (beyond)")
def recovered_beta(response: Real, variance: Real) -> Real:
    """Beta at which sigma is stationary: response / (1 - sigma^2), both means over samples.

    Args:
        response: E[2 sigma_j^2 g_jj], or E[sigma_j eps_j dD/dz_j] by stationarity.
        variance: E[sigma_j^2].

    Returns:
        In units of the metric.

    Examples:
        >>> recovered_beta(0.375, 0.25)
        0.5
    """
    beta: Real = response / unused_variance(variance)
    return beta


@stated("Isometry")
def variance_called_for(pullback_diagonal: Real, beta: float) -> Real:
    """Return sigma^2 that a decoder calls for at an optimum: 1 / (1 + 2 g_jj / beta)."""
    variance: Real = 1 / inverse_variance_called_for(pullback_diagonal, beta)
    return variance


@stated("Isometry")
def inverse_variance_called_for(pullback_diagonal: Real, beta: float) -> Real:
    """Return sigma^-2 that a decoder calls for at an optimum: 1 + 2 g_jj / beta.

    Examples:
        >>> inverse_variance_called_for(4.0, beta=1.0)
        9.0
    """
    inverse: Real = 1 + 2 / beta * pullback_diagonal
    return inverse


# ------------------------------------------------------------------ orthogonality


@stated("Isometry", "Eq. 14")
def cosines(gram: Array) -> Array:
    """Cosines between decoder columns in the metric, 0 for j != k at an optimum (Eq. 14).

    Args:
        gram: J' G J, ``(B, n, n)``.

    Returns:
        ``(B, n, n)``; 0 where a column vanishes.
    """
    found = library(gram)
    length = found.sqrt(found.clip(pullback_diagonal(gram), 0, None))
    product = length[..., :, None] * length[..., None, :]
    least = 1e-300 if gram.dtype.itemsize == 8 else 1e-38
    angles: Array = found.clip(gram / found.clip(product, least, None), -1, 1)
    return angles


@stated("Isometry", "Eq. 14")
def mean_absolute_cosine(cosine: Array, active: Array) -> float:
    """Mean absolute cosine over pairs of active columns, 0 without a pair (Eq. 14).

    Args:
        cosine: mean absolute cosine of each pair, ``(n, n)``.
        active: which latents count, ``(n,)`` bool.

    Returns:
        A number from 0 to 1.
    """
    chosen = active_subset(cosine, active)
    count = len(chosen)
    pairs = count * (count - 1)
    return float((chosen.sum() - pullback_diagonal(chosen).sum()) / pairs) if pairs else 0.0


@stated("Isometry", "Eq. 14")
def hadamard_gap(gram: Array) -> Array:
    """Half of sum_j log g_jj - log det g: zero exactly when the columns are orthogonal (Eq. 14).

    Args:
        gram: J' G J, positive definite, ``(B, n, n)``, best in double precision.

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
    gap: Array = -0.5 * log_determinant(cosines(_double(gram)))
    return gap


@stated("Isometry", "Eq. 14")
def orthogonality_defect(square: Array, response: Array) -> Array:
    """Root of E sum_{k != j} (2 sigma_j sigma_k g_jk)^2 over E[2 sigma_j^2 g_jj] (Eq. 14).

    Args:
        square: the sum's mean, ``(n,)``.
        response: 2 sigma_j^2 g_jj's mean, ``(n,)``.

    Returns:
        ``(n,)``, dimensionless; 0 when the columns are orthogonal.
    """
    defect: Array = library(square).sqrt(square) / response
    return defect


def active_subset(gram: Array, active: Array) -> Array:
    """Rows and columns of ``gram (..., n, n)`` where ``active (n,)`` is true: ``(..., k, k)``."""
    subset: Array = gram[..., active, :][..., :, active]
    return subset


def _double(values: Array) -> Array:
    found = library(values)
    wide: Array = found.asarray(values, dtype=found.float64)
    return wide
