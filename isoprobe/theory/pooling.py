"""Pool what latents say of beta, so that a few odd ones do not move it."""

from __future__ import annotations

import numpy as np

from isoprobe.statistics.jackknife import jackknife
from isoprobe.statistics.moments import Estimate
from isoprobe.theory.stated import stated

#: relative deviation from the median, beyond its error, up to which a latent counts in full, and
#: from which on it does not count; sound weights of others stay within 0.15
FULL, NONE = 0.25, 0.5


def weighted_median(values: np.ndarray, weights: np.ndarray) -> float:
    """Find the value at which half of the weight is reached.

    Args:
        values: ``(k,)``.
        weights: of each, not negative, ``(k,)``.

    Returns:
        One of the values.

    Examples:
        >>> weighted_median(np.array([1.0, 2.0, 50.0]), np.array([1.0, 1.0, 1.0]))
        2.0
    """
    order = np.argsort(values)
    share = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(share, share[-1] / 2)])


def latent_weights(each: Estimate, weights: np.ndarray) -> np.ndarray:
    """How far each latent counts in a pooled ratio: 1 unless it stands clear of the others.

    Args:
        each: the ratio of every latent, ``(n,)``.
        weights: how much each has to say, ``(n,)``, not negative.

    Returns:
        ``(n,)`` between 0 and 1.
    """
    if not (weights > 0).any():
        return np.zeros_like(weights)
    centre = weighted_median(each.value, weights)
    scale = abs(centre) or 1.0
    error = np.where(np.isfinite(each.se), each.se, np.inf)
    excess = np.maximum(np.abs(each.value - centre) - 2 * error, 0) / scale
    counted: np.ndarray = np.clip((NONE - excess) / (NONE - FULL), 0, 1)
    return counted


def pooled_sums(above: np.ndarray, below: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum over latents; those whose ratio disagrees with the others' count less.

    Args:
        above: block sums by latent, ``(BLOCKS, k)``.
        below: the same of the denominator.

    Returns:
        Both block sums over latents, ``(BLOCKS,)``: what a figure that takes the pooled ratio
        needs to have an error.
    """
    each = jackknife(lambda a, b: a / b, above, below)
    finite = np.isfinite(each.value)
    weights = np.where(finite, np.abs(below.sum(axis=0)), 0.0)
    safe = Estimate(np.where(finite, each.value, 0.0), each.se, each.low, each.high)
    counted = latent_weights(safe, weights)
    return above @ counted, below @ counted


@stated("Stationarity (beyond)")
def pooled_ratio(above: np.ndarray, below: np.ndarray) -> Estimate | None:
    """Ratio of sums over samples and latents; latents that disagree with the others count less.

    Where all agree it is the plain ratio of sums, and the best there is.

    Args:
        above: block sums by latent, ``(BLOCKS, k)``.
        below: the same of the denominator.

    Returns:
        The ratio with its interval; None without latents or without a denominator.
    """
    if above.shape[1] == 0 or not below.any():
        return None
    pooled = jackknife(lambda a, b: a / b, *pooled_sums(above, below))
    return pooled if np.isfinite(pooled.value) else None
