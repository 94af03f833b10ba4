"""Give log densities of samples, in the metric's space and in input space (Eq. 19-21, 52, 57).

Each takes active latents alone. The paper prints the exponent of beta/2 in Eq. 52 and 55 with the
wrong sign; here it is p(y) = (beta/2)^(-n/2) p(mu) prod sigma_j.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isoprobe.theory.either import library, log_determinant
from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.theory.either import Array, Real


@stated("Density")
def gaussian_log_normaliser(size: float, beta: float) -> float:
    """Log of the integral of exp(-x'x / beta) over ``size`` dimensions: (size/2) log(pi beta)."""
    return size / 2 * math.log(math.pi * beta)


@stated("Density")
def log_prior(mean: Array) -> Array:
    """Log p(mu) under N(0, I), ``(B, n) -> (B,)``, nats."""
    density: Array = -0.5 * (mean**2).sum(-1) - mean.shape[-1] / 2 * math.log(2 * math.pi)
    return density


@stated("Density", "Eq. 57")
def log_density_by_loss(distortion: Array, rate: Array, beta: float, active: int) -> Array:
    """Log p(y) from L_x, at its optimum for the sample (Eq. 57).

    Eq. 57 says L_x = -beta log p(y) + (n beta / 2) (1 - log(pi e beta)), which solved for the
    density is -L_x / beta - (n/2) log(pi beta).

    Args:
        distortion: E_z D(x, x_hat) - D(x, x), ``(B,)``.
        rate: KL summed over latents, ``(B,)``, nats.
        beta: KL weight.
        active: n, the number of active latents.

    Returns:
        ``(B,)`` in nats, relative to the metric's volume.
    """
    density: Array = -distortion / beta - rate - gaussian_log_normaliser(active, beta)
    return density


@stated("Density", "Eq. 19, 52")
def log_density_by_sigmas(
    mean: Array, std: Array, beta: float, prior: Array | None = None
) -> Array:
    """Log p(y) from the prior and the deviations (Eq. 19, 52).

    Args:
        mean: mu of active latents, ``(B, n)``.
        std: sigma of active latents, ``(B, n)``.
        beta: KL weight.
        prior: log p(mu), ``(B,)``, where it is not N(0, I).

    Returns:
        ``(B,)`` in nats, relative to the metric's volume.
    """
    shrunk = library(std).log(std).sum(-1) - mean.shape[-1] / 2 * math.log(beta / 2)
    density: Array = (log_prior(mean) if prior is None else prior) + shrunk
    return density


@stated("Density", "Eq. 21")
def log_volume_of_scale(scale: Array, active: int) -> Array:
    """Log of metric volume over input volume where G = a_x I: (n/2) log a_x (Eq. 21).

    Args:
        scale: a_x, ``(B,)``.
        active: n, the number of active latents.

    Returns:
        ``(B,)`` in nats.
    """
    volume: Array = 0.5 * active * library(scale).log(scale)
    return volume


@stated("Density", "Eq. 20")
def log_volume_of_diagonal(diagonal: Array) -> Array:
    """Log of metric volume over input volume where n = m: (1/2) log det G of a diagonal G (Eq. 20).

    Args:
        diagonal: of G, ``(B, m)``.

    Returns:
        ``(B,)`` in nats.
    """
    volume: Array = 0.5 * library(diagonal).log(diagonal).sum(-1)
    return volume


@stated("Density", "Eq. 20, 21")
def log_volume_of_surface(gram: Array, euclidean_gram: Array) -> Array:
    """Log of metric volume over input volume on the decoder's surface, for any G and m >= n.

    (1/2) log det(J' G J) - (1/2) log det(J' J) over active latents, which is Eq. 20 for m = n and
    Eq. 21 for G = a_x I.

    Args:
        gram: J' G J, ``(B, n, n)``.
        euclidean_gram: J' J, ``(B, n, n)``.

    Returns:
        ``(B,)`` in nats.
    """
    volume: Array = 0.5 * (log_determinant(gram) - log_determinant(euclidean_gram))
    return volume


@stated("Density", "Eq. 20, 21")
def input_log_density(metric_density: Real, log_volume: Real) -> Real:
    """Log p(x) from the metric's density and volume (Eq. 20, 21)."""
    density: Real = metric_density + log_volume
    return density


@stated("Density")
def absolute_log_density(
    distortion: Array, rate: Array, beta: float, log_normaliser: float
) -> Array:
    """Evidence lower bound of log p(x) with the decoder as the density exp(-D/beta) / Z.

    Args:
        distortion: E_z D(x, x_hat), ``(B,)``.
        rate: KL summed over latents, ``(B,)``, nats.
        beta: KL weight.
        log_normaliser: log Z.

    Returns:
        ``(B,)`` in nats.
    """
    density: Array = -(distortion / beta + rate) - log_normaliser
    return density


@stated("Density")
def disagreement(by_loss: Array, by_sigmas: Array) -> Array:
    """How far the two estimates of log p(y) lie apart, ``(B,)``, nats; 0 at an ideal optimum."""
    gap: Array = by_loss - by_sigmas
    return gap


@stated("Density")
def correlation(by_loss: np.ndarray, by_sigmas: np.ndarray) -> float:
    """Correlation of the two estimates over samples; NaN where one does not vary."""
    import numpy as np

    varied = len(by_loss) > 1 and by_loss.std() > 0 and by_sigmas.std() > 0
    return float(np.corrcoef(by_loss, by_sigmas)[0, 1]) if varied else float("nan")
