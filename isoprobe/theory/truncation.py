"""Say what it costs to keep only the k most important latents, and how many a share of D needs."""

from __future__ import annotations

import numpy as np

from isoprobe.theory.stated import stated


@stated("Truncation (beyond)")
def truncation_costs(importance: np.ndarray, beta: float) -> np.ndarray:
    """D(x_check, x_k) by each latent that is dropped: held at its mean instead of at mu_j.

    Args:
        importance: Var(y_j), eigenvalues lambda_j of a linear VAE, ``(n,)``, in units of the
            metric.
        beta: KL weight.

    Returns:
        (lambda_j - beta/2)^2 / lambda_j, ``(n,)``: the decoder's column has squared length
        lambda_j - beta/2, and mu_j has variance 1 - (beta/2) / lambda_j. Exact for a linear VAE
        with SSE; 0 for latents at or below beta/2, which are idle.

    Examples:
        >>> truncation_costs(np.array([4.0, 1.0, 0.3]), beta=1.0)
        array([3.0625, 0.25  , 0.    ])
    """
    importance = np.asarray(importance, dtype=float)
    gain = (importance - beta / 2).clip(0)
    costs: np.ndarray = np.divide(gain**2, importance, out=np.zeros_like(gain), where=gain > 0)
    return costs


@stated("Truncation (beyond)")
def data_costs(importance: np.ndarray, beta: float) -> np.ndarray:
    """What each dropped latent adds to D(x, x_k), the distance from the data.

    Args:
        importance: Var(y_j), ``(n,)``, in units of the metric.
        beta: KL weight.

    Returns:
        lambda_j - (beta/2)^2 / lambda_j, ``(n,)``: with it the data keep (beta/2)^2 / lambda_j of
        the transform loss (Lemma 3), without it all of lambda_j. More than
        :func:`truncation_costs` by 2 (beta/2) (lambda_j - beta/2) / lambda_j, since x_check lies
        short of x in each latent. 0 for idle latents.

    Examples:
        >>> data_costs(np.array([4.0, 1.0, 0.3]), beta=1.0)
        array([3.9375, 0.75  , 0.    ])
    """
    importance = np.asarray(importance, dtype=float)
    used = importance > beta / 2
    rest = np.divide((beta / 2) ** 2, importance, out=np.zeros_like(importance), where=used)
    return np.where(used, importance - rest, 0.0)


def curve(costs: np.ndarray, whole: float = 0.0) -> np.ndarray:
    """Distortion with the k first latents kept.

    Args:
        costs: of each latent, in the order in which they are kept, ``(n,)``.
        whole: distortion with all of them.

    Returns:
        ``(n + 1,)`` for k = 0 ... n.

    Examples:
        >>> curve(np.array([3.0, 1.0]), whole=0.5)
        array([4.5, 1.5, 0.5])
    """
    return whole + np.append(np.cumsum(costs[::-1])[::-1], 0.0)


@stated("Truncation (beyond)")
def latents_for(distortion: np.ndarray, share: float) -> int:
    """The least k that removes a share of the distortion which latents remove at all.

    Args:
        distortion: at k = 0 ... n, ``(n + 1,)``.
        share: such as 0.9.

    Returns:
        k from which on the curve stays at or below that level: a curve that rises again does not
        count before.

    Examples:
        >>> latents_for(np.array([10.0, 4.0, 2.0, 0.0]), 0.6)
        1
    """
    level = distortion[0] - share * (distortion[0] - distortion[-1])
    above = np.flatnonzero(distortion > level + 1e-12 * abs(distortion[0]))
    return int(above[-1] + 1) if len(above) else 0
