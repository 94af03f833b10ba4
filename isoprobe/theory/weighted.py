"""Weigh draws of the posterior by what they are worth: a tighter bound, and how far to trust it.

The importance-weighted bound of Burda, Grosse and Salakhutdinov (2016); the shape k of the weights'
tail by Zhang and Stephens (2009), as Vehtari, Simpson, Gelman, Yao and Gabry (2024) judge by it.
"""

from __future__ import annotations

import math

import numpy as np

from isoprobe.theory.stated import stated

#: shape of the tail from which on a mean of weights tells nothing
LARGEST_SHAPE = 0.7
#: log weights nearer to each other than this are equal
_EQUAL = 1e-6
#: tail draws that a prior of shape 1/2 stands for
_PRIOR = 10


@stated("Density")
def log_weights(
    distortion: np.ndarray,
    noise: np.ndarray,
    mean: np.ndarray,
    std: np.ndarray,
    beta: float,
    log_prior: np.ndarray | None = None,
    root: np.ndarray | None = None,
) -> np.ndarray:
    """Log of exp(-D/beta) p(z) / q(z) at draws z = mu + sigma noise, less the constant of D.

    With a full covariance L L' the draws are z = mu + L noise, and det L takes the place of the
    product of the deviations.

    Args:
        distortion: D(x, Dec(z)), ``(N, K)``.
        noise: from N(0, I), ``(N, K, n)``.
        mean: mu, ``(N, n)``.
        std: sigma, ``(N, n)``.
        beta: KL weight.
        log_prior: log p(z), ``(N, K)``, where it is not N(0, I).
        root: L of a full covariance, ``(N, n, n)``; ``std`` plays no part then.

    Returns:
        ``(N, K)`` in nats; their mean over draws is the ELBO.
    """
    if root is None:
        z, factor = mean[:, None] + std[:, None] * noise, std
    else:
        z = mean[:, None] + noise @ root.swapaxes(1, 2)
        factor = np.diagonal(root, 0, 1, 2)
    ratio = 0.5 * (noise**2 - z**2).sum(axis=2) + np.log(factor).sum(axis=1)[:, None]
    if log_prior is not None:
        ratio += log_prior + 0.5 * (z**2 + np.log(2 * np.pi)).sum(axis=2)
    weights: np.ndarray = ratio - distortion / beta
    return weights


@stated("Density")
def bound_gap(log_weight: np.ndarray) -> np.ndarray:
    """Importance-weighted bound less the ELBO of the same draws.

    Args:
        log_weight: of each row's draws, ``(N, K)``.

    Returns:
        ``(N,)`` in nats: 0 where the posterior is exact, never negative, and growing with the
        number of draws towards KL(q(z|x) || p(z|x)).
    """
    most = log_weight.max(axis=1, keepdims=True)
    bound = most[:, 0] + np.log(np.exp(log_weight - most).mean(axis=1))
    gap: np.ndarray = bound - log_weight.mean(axis=1)
    return gap


@stated("Density")
def effective_draws(log_weight: np.ndarray) -> np.ndarray:
    """Equal draws that the weighted ones are worth, (sum w)^2 / sum w^2, ``(N, K)`` to ``(N,)``."""
    weight = np.exp(log_weight - log_weight.max(axis=1, keepdims=True))
    worth: np.ndarray = weight.sum(axis=1) ** 2 / (weight**2).sum(axis=1)
    return worth


@stated("Density")
def tail_shape(log_weight: np.ndarray) -> np.ndarray:
    """Pareto shape k of the largest weights, ``(N, K)`` to ``(N,)``.

    The mean of K weights is worth something up to k = 0.7, and has no variance from 0.5 on.

    Args:
        log_weight: of each row's draws; at least 25 a row.

    Returns:
        k with a weak prior at 1/2; 0 where the weights are all the same.
    """
    draws = log_weight.shape[1]
    tail = int(min(draws / 5, 3 * math.sqrt(draws)))
    found = np.zeros(len(log_weight))
    for row, values in enumerate(np.sort(log_weight, axis=1)):
        if np.ptp(values) < _EQUAL:
            continue
        weight = np.exp(values - values[-1])
        beyond = weight[-tail:] - weight[-tail - 1]
        shape, _ = fit_pareto(beyond[beyond > 0])
        found[row] = (tail * shape + _PRIOR * 0.5) / (tail + _PRIOR)
    return found


def fit_pareto(values: np.ndarray) -> tuple[float, float]:
    """Fit a generalised Pareto distribution that begins at 0.

    Args:
        values: positive, ascending, ``(M,)``.

    Returns:
        Shape k, positive for a heavy tail, and scale: the posterior mean of theta = -k / scale
        over a grid, and what follows from it (Zhang and Stephens 2009). 0 for too few values.
    """
    count = len(values)
    if count < 5:
        return 0.0, float(values.mean()) if count else 0.0
    points = 30 + int(math.sqrt(count))
    quarter = values[int(count / 4 + 0.5) - 1]
    step = np.arange(1, points + 1) - 0.5
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        theta = 1 / values[-1] + (1 - np.sqrt(points / step)) / (3 * quarter)
        shape = np.log1p(-theta[:, None] * values).mean(axis=1)
        likelihood = count * (np.log(-theta / shape) - shape)  # up to a constant
    if not np.isfinite(likelihood).all():  # weights so far apart that one alone counts
        return math.inf, 0.0
    weight = np.exp(likelihood - likelihood.max())
    middle = float((theta * weight).sum() / weight.sum())
    found = float(np.log1p(-middle * values).mean())
    return found, -found / middle
