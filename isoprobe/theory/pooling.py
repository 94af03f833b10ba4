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


@stated("Stationarity (beyond)")
def balance_trust(answer: np.ndarray, drift: np.ndarray) -> np.ndarray:
    """Tell which latents' sigma and decoder belong together, where latents differ about beta.

    A decoder at its optimum has E[z_j d_j] = E[sigma_j eps_j d_j] + E[mu_j d_j] = 0. A sigma of
    another scale moves the first part alone, so that a latent whose parts do not cancel is the odd
    one, however large its part in the KL.

    Args:
        answer: E[sigma_j eps_j d_j], ``(n,)``, d_j = dD(x, Dec(z))/dz_j at draws.
        drift: E[mu_j d_j], ``(n,)``.

    Returns:
        ``(n,)``, 1 where the parts cancel and 0.1 where one of them stands alone.

    Examples:
        >>> balance_trust(np.array([0.9, 1e-7]), np.array([-0.9, -0.95])).round(2)
        array([1. , 0.1])
    """
    both = np.abs(answer) + np.abs(drift)
    off = np.divide(np.abs(answer + drift), both, out=np.ones_like(both), where=both > 0)
    found: np.ndarray = 1 / (1 + 9 * off**2)
    return found


def pooled_sums(
    above: np.ndarray, below: np.ndarray, trust: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Sum over latents; those whose ratio disagrees with the others' count less.

    Args:
        above: block sums by latent, ``(BLOCKS, k)``.
        below: the same of the denominator.
        trust: how much each has to say of which ratio is the others', ``(k,)``; alike when None.

    Returns:
        Both block sums over latents, ``(BLOCKS,)``: what a figure that takes the pooled ratio
        needs to have an error.
    """
    each = jackknife(lambda a, b: a / b, above, below)
    finite = np.isfinite(each.value)
    weights = np.where(finite, np.abs(below.sum(axis=0)), 0.0)
    weights = weights if trust is None else weights * trust
    safe = Estimate(np.where(finite, each.value, 0.0), each.se, each.low, each.high)
    counted = latent_weights(safe, weights)
    return above @ counted, below @ counted


@stated("Stationarity (beyond)")
def pooled_ratio(
    above: np.ndarray, below: np.ndarray, trust: np.ndarray | None = None
) -> Estimate | None:
    """Ratio of sums over samples and latents; latents that disagree with the others count less.

    Where all agree it is the plain ratio of sums, and the best there is.

    Args:
        above: block sums by latent, ``(BLOCKS, k)``.
        below: the same of the denominator.
        trust: from :func:`balance_trust`, ``(k,)``; alike when None.

    Returns:
        The ratio with its interval; None without latents or without a denominator.
    """
    if above.shape[1] == 0 or not below.any():
        return None
    pooled = jackknife(lambda a, b: a / b, *pooled_sums(above, below, trust))
    return pooled if np.isfinite(pooled.value) else None
