"""Say what an optimum of L_x demands beyond sigma: of the decoder, the encoder, and the axes.

A decoder whose first layer is dense can absorb Dec((I + t A) z + t b), an encoder with a linear
mean head mu -> (I + t B) mu + t c. At an optimum the derivatives of the mean objective in t vanish,
with d_j = dD(x, Dec(z))/dz_j at draws z of the posterior:

* decoder scale ``E[z_k d_j] = 0`` and shift ``E[d_j] = 0``;
* encoder scale ``E[mu_k d_j] = -beta E[mu_j mu_k]`` and shift ``E[d_j] = -beta E[mu_j]``.

Each is divided here by the curvature of the objective in the same direction, so that it reads as
the relative amount by which something is too large: 0.1 is a tenth.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    from torch import Tensor

    Real = TypeVar("Real", Tensor, np.ndarray)


#: deviations that differ by less than about a tenth leave a turn undetermined
LEAST_STEEP = 0.25
_HEADING = "Conditions beyond sigma (beyond)"


@stated(_HEADING)
def sharpness(mean: Real, std: Real, called_for: Real, variance: Real | None = None) -> Real:
    """Curvature of E D in a latent's gain, over beta: E[z_j^2] (1 - P_j) / sigma_j^2.

    Args:
        mean: mu, ``(..., n)``.
        std: sigma, ``(..., n)``.
        called_for: P_j, sigma_j^2 under N(0, I), ``(..., n)``.
        variance: of each latent, ``(..., n)``, where it is not sigma_j^2.

    Returns:
        ``(..., n)``, dimensionless; 0 where the posterior is as wide as the prior.
    """
    square = std**2
    wide = square if variance is None else variance
    curvature: Real = (mean**2 + wide) * (1 - called_for) / square
    return curvature


@stated(_HEADING)
def gain_error(answer: np.ndarray, curvature: np.ndarray, beta: float) -> np.ndarray:
    """Relative amount by which the decoder's response to each latent is too strong.

    Args:
        answer: E[z_j d_j], ``(..., n)``, units of the metric.
        curvature: E of :func:`sharpness`, ``(..., n)``.
        beta: KL weight.

    Returns:
        ``(..., n)``; 0 at an optimum, to first order 0.1 for a decoder a tenth too strong.

    Examples:
        >>> gain_error(np.array([0.5]), np.array([5.0]), beta=1.0)
        array([0.1])
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        error: np.ndarray = answer / (beta * curvature)
    return error


@stated(_HEADING)
def shift_error(slope: np.ndarray, curvature: np.ndarray, beta: float) -> np.ndarray:
    """Distance by which the decoder is shifted along each latent, in units of z.

    Args:
        slope: E[d_j], ``(..., n)``, units of the metric.
        curvature: E[1 / sigma_j^2 - 1], ``(..., n)``.
        beta: KL weight.

    Returns:
        ``(..., n)``; 0 at an optimum.
    """
    return gain_error(slope, curvature, beta)


@stated(_HEADING)
def mixing(outer: np.ndarray, second: np.ndarray, sharp: np.ndarray, beta: float) -> np.ndarray:
    """Share of latent j's decoder column that latent k should have, or should not.

    Args:
        outer: E[z_k d_j], ``(..., n, n)``, k before j, units of the metric.
        second: E[z_k^2], ``(..., n)``.
        sharp: E[1 / sigma_j^2 - 1], ``(..., n)``.
        beta: KL weight.

    Returns:
        ``(..., n, n)`` with a zero diagonal; 0 at an optimum.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        share: np.ndarray = outer / (beta * second[..., :, None] * sharp[..., None, :])
    share[..., np.arange(share.shape[-1]), np.arange(share.shape[-1])] = 0.0
    return share


@stated(_HEADING)
def turning(noise: np.ndarray, variance: np.ndarray, beta: float) -> np.ndarray:
    """How far pairs of latents are turned in their plane, read as a cosine between their columns.

    Turning decoder and encoder together, (A z, A' mu), changes only which directions the noise
    goes: at an optimum E[sigma_k eps_k d_j] = E[sigma_j eps_j d_k]. Their difference is divided by
    |sigma_j^2 - sigma_k^2| / (sigma_j sigma_k), to which it is proportional for a linear model; a
    pair of equal deviations can be turned at no cost, and reads 0.

    Args:
        noise: E[sigma_k eps_k d_j], ``(..., n, n)``, k before j, units of the metric.
        variance: E[sigma_j^2], ``(n,)``.
        beta: KL weight.

    Returns:
        ``(..., n, n)``, antisymmetric; 0 at an optimum.
    """
    ratio = variance[:, None] / variance[None, :]
    steep = np.abs(np.sqrt(ratio) - 1 / np.sqrt(ratio))
    swap = np.swapaxes(noise, -1, -2)
    turned: np.ndarray = (noise - swap) / beta / np.maximum(steep, LEAST_STEEP)
    return turned


@stated(_HEADING)
def isometry_eigenvalues(gram: Tensor, std: Tensor, beta: float) -> Tensor:
    """Eigenvalues of (2/beta) S^(1/2) J'GJ S^(1/2), S = diag sigma^2.

    They equal 1 - sigma_j^2 where the embedding is isometric; the diagonal alone holds the norms
    (Eq. 23), and the trace of both agrees.

    Args:
        gram: J'GJ, ``(B, n, n)``.
        std: sigma, ``(B, n)``; or L of a full covariance, ``(B, n, n)``, of which the eigenvalues
            of (2/beta) L'J'GJL are taken.
        beta: KL weight.

    Returns:
        ``(B, n)``, descending.
    """
    import torch

    if std.ndim == gram.ndim:
        scaled = 2 / beta * std.mT @ gram @ std
    else:
        scaled = 2 / beta * std[:, :, None] * gram * std[:, None, :]
    values: Tensor = torch.linalg.eigvalsh(scaled.double())
    return values.flip(1).clamp_min(0)


@stated(_HEADING)
def round_trip(z: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Slopes of the encoder's mean of decoded draws of the prior on those draws.

    A linear VAE at its optimum gives 1 - sigma_j^2 on the diagonal and 0 elsewhere; a decoder that
    belongs to another encoder gives neither.

    Args:
        z: draws of the prior, ``(B, n)``.
        mean: mu(Dec(z)), ``(B, n)``.

    Returns:
        ``(n, n)``, decoder's latent before encoder's.

    Examples:
        >>> z = np.random.default_rng(0).normal(size=(100, 2))
        >>> slopes = round_trip(z, z[:, ::-1] / 2)  # two latents exchanged, half as strong
        >>> np.abs(np.round(slopes, 3))
        array([[0. , 0.5],
               [0.5, 0. ]])
    """
    # what centred draws say of a constant is nothing, so that the answers need not be centred
    slopes: np.ndarray = np.linalg.lstsq(z - z.mean(axis=0), mean, rcond=None)[0]
    return slopes
