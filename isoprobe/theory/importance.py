"""Rank latents as PCA ranks components: rough importance (Eq. 22), shares, order, states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.theory.either import library
from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.theory.either import Array, Real

#: names of the states, by their code
STATES = ("active", "mixed", "collapsed")
#: a sample leaves a dimension idle when its posterior there is nearly the prior
IDLE_VARIANCE = 0.8
#: shares of idle samples between which a dimension is mixed
MIXED_SHARE = (0.05, 0.95)


@stated("Importance", "Eq. 22")
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


@stated("Importance")
def determined(exact: np.ndarray, error: np.ndarray, variance: float | None) -> np.ndarray:
    """Where an importance can be: no latent holds more than the variance of the data.

    One that is clearly above comes from a sigma that says nothing of the decoder.

    Args:
        exact: Var(y_j), ``(n,)``.
        error: its standard error, ``(n,)``.
        variance: least E D(x, c) - D(x, x) over constants c; None where it is not known.

    Returns:
        ``(n,)`` bool; true where nothing speaks against it.
    """
    import numpy as np

    if variance is None or not variance > 0:
        return np.ones(len(exact), dtype=bool)
    # of what is positive, on a scale of logs: few rows leave a factor open, no power of ten
    relative = np.divide(error, exact, out=np.zeros_like(exact), where=exact > 0)
    known: np.ndarray = ~(exact * np.exp(-2 * np.fmin(relative, 1)) > variance)
    return known


@stated("Importance")
def importance_called_for(pullback_diagonal: Real, variance: Real, beta: float) -> Real:
    """What a decoder makes of a latent's importance, whatever sigma is.

    At an optimum beta / (2 sigma_j^2) = g_jj + beta/2 is the square of dy_j/dz_j (Eq. 16), which
    the decoder knows by itself; beta/2 is left of it around each mean.

    Args:
        pullback_diagonal: E[g_jj], ``(..., n)``, units of the metric.
        variance: Var(mu_j), ``(..., n)``.
        beta: KL weight.

    Returns:
        (E[g_jj] + beta/2) Var(mu_j) + beta/2, in units of the metric; the eigenvalue of a linear
        VAE.

    Examples:
        >>> importance_called_for(3.5, 0.875, beta=1.0)  # sigma^2 = 0.125
        4.0
    """
    called: Real = (pullback_diagonal + beta / 2) * variance + beta / 2
    return called


@stated("Importance")
def shares(variance: Array, active: Array) -> Array:
    """Share of each active latent in their variance.

    A collapsed latent counts nothing: it holds noise of variance beta/2 only.

    Args:
        variance: Var(y_j), ``(n,)``; NaN counts nothing.
        active: which latents count, ``(n,)`` bool.

    Returns:
        ``(n,)``, adding up to 1; all 0 where nothing counts.
    """
    found = library(variance)
    counted = found.where(active, found.nan_to_num(variance), 0.0)
    share: Array = counted / counted.sum() if counted.any() else counted
    return share


@stated("Importance")
def order_of_importance(variance: np.ndarray, active: np.ndarray) -> np.ndarray:
    """Latents in descending importance, active ones first, ``(n,)`` integers."""
    import numpy as np

    return np.lexsort((-variance, ~active))


@stated("Importance")
def cumulative_shares(share: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Share of each latent and of all before it in an order, ``(n,)``."""
    import numpy as np

    total = np.empty_like(share)
    total[order] = np.cumsum(share[order])
    return total


@stated("Importance")
def idle(std: Array) -> Array:
    """Where a sample leaves a latent idle, sigma^2 > :data:`IDLE_VARIANCE`, ``(B, n)`` bool."""
    unused: Array = std**2 > IDLE_VARIANCE
    return unused


@stated("Importance", "Prop. 3")
def states(active: np.ndarray, idle_share: np.ndarray) -> np.ndarray:
    """Codes of the states, places in :data:`STATES` (Prop. 3).

    A latent is collapsed without rate, and mixed where some samples use it and others do not.

    Args:
        active: which latents have a rate, ``(n,)`` bool.
        idle_share: share of the samples that leave it idle, ``(n,)``.

    Returns:
        ``(n,)`` int8.
    """
    import numpy as np

    low, high = MIXED_SHARE
    mixed = (idle_share > low) & (idle_share < high)
    return np.where(active, np.where(mixed, 1, 0), 2).astype(np.int8)
