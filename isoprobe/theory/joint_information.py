"""Bound I(x; z) of a code from both sides, where its value itself cannot be known.

Every row draws one z, and log q(z_i | x_n) of all draws against all rows is one product of
matrices. The lower bound L is what N rows can tell of which row it was, at most log N; four upper
bounds are valid each, and which is the lowest depends on the code: own row left out (a), a Gaussian
of the same moments (b), posteriors widened (c), all latents independent (d).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

#: widths tried by bound (c), and rows spent on it: half choose, half are evaluated
WIDTHS = (0.1, 0.2, 0.3, 0.4, 0.6, 1.0)
WIDENED_ROWS = 4000
_STREAM = 1905_06922
#: elements of a block of log q(z_i | x_n)
_ELEMENTS = 2**22


@dataclass(frozen=True)
class Bound:
    """An estimate with its error, in nats.

    Attributes:
        name: what it is.
        value: the estimate.
        se: its standard error.
        influence: of each row, ``(N,)``, with mean 0, where every row was used.
        bias: within what distance a finite N raises the estimate on average, negative if it
            lowers it.
    """

    name: str
    value: float
    se: float
    influence: np.ndarray | None = None
    bias: float = 0.0

    @property
    def below(self) -> float:
        """Two standard errors below, and the bias where it is upwards."""
        return self.value - max(self.bias, 0.0) - 2 * self.se

    @property
    def above(self) -> float:
        """Two standard errors above, and the bias where it is downwards."""
        return self.value - min(self.bias, 0.0) + 2 * self.se


@dataclass(frozen=True)
class Joint:
    """What is known of I(x; z).

    Attributes:
        lower: L, at most log N.
        upper: the upper bounds (a), (b), and (c) where (a) is not tight.
        own_share: mean share of a row in the mixture at its own draw, from 0 (many rows overlap
            everywhere) to 1 (each row alone: nothing beyond log N can be seen).
    """

    lower: Bound
    upper: tuple[Bound, ...]
    own_share: float

    @property
    def lowest(self) -> Bound:
        """The upper bound that says most."""
        return min(self.upper, key=lambda bound: bound.value)

    @property
    def middle(self) -> float:
        """(L + U) / 2, a fair estimate where the own share is small."""
        return 0.5 * (self.lower.value + self.lowest.value)


def joint_information(mean: np.ndarray, std: np.ndarray, seed: int = 0) -> Joint:
    """Bound I(x; z) over the rows.

    Args:
        mean: mu, ``(N, n)``.
        std: sigma, ``(N, n)``, positive.
        seed: of the draws.

    Returns:
        Lower and upper bounds, N by N in blocks.
    """
    # a stream of its own: rows that someone drew from this seed must not be these draws
    generator = np.random.default_rng((seed, _STREAM))
    noise = generator.standard_normal(mean.shape)
    draws = mean + std * noise
    own = -0.5 * (noise**2).sum(axis=1) - np.log(std).sum(axis=1)
    lower, left_out, share = _all_against_all(draws, own, mean, std)
    upper = [left_out, gaussian_bound(mean, std)]
    if share > 0.05:
        upper.append(_widened(draws, own, mean, std, generator.permutation(len(mean))))
    return Joint(lower, tuple(upper), share)


def gaussian_bound(mean: np.ndarray, std: np.ndarray) -> Bound:
    """Bound (b): the entropy of q is at most that of a Gaussian with its covariance.

    Args:
        mean: mu, ``(N, n)``.
        std: sigma, ``(N, n)``.

    Returns:
        (log det S - E sum_j log sigma_j^2) / 2 with S = Cov mu + diag E sigma^2, corrected by
        n (n + 1) / (4 N) for the bias of log det.
    """
    count, size = mean.shape
    centred = mean - mean.mean(axis=0)
    covariance = centred.T @ centred / count + np.diag((std**2).mean(axis=0))
    scale = np.sqrt(np.diag(covariance))
    logdet = np.linalg.slogdet(covariance / np.outer(scale, scale))[1] + 2 * np.log(scale).sum()
    inverse = np.linalg.inv(covariance)
    entropy = np.log(std).sum(axis=1)
    rows = 0.5 * (((centred @ inverse) * centred).sum(axis=1) + std**2 @ np.diag(inverse)) - entropy
    value = 0.5 * logdet - entropy.mean() + size * (size + 1) / (4 * count)
    influence = rows - rows.mean()
    return Bound("Gaussian", float(value), _error(influence), influence)


def _all_against_all(
    draws: np.ndarray, own: np.ndarray, mean: np.ndarray, std: np.ndarray
) -> tuple[Bound, Bound, float]:
    """Compare every draw with every row.

    Returns:
        L, bound (a), and the mean own share; the errors count each row twice, as a draw and as a
        part of the mixture.
    """
    count = len(draws)
    others = np.empty(count)
    as_part = np.zeros((2, count))
    for rows, log_density in _log_densities(draws, mean, std):
        log_density[np.arange(len(rows)), rows] = -np.inf
        others[rows] = _exponentiate(log_density)
        left_out = log_density.sum(axis=1, keepdims=True)
        share = np.exp(others[rows] - np.logaddexp(others[rows], own[rows]))
        as_part[0] += (share / left_out[:, 0]) @ log_density
        as_part[1] += (1 / left_out[:, 0]) @ log_density
    total = np.logaddexp(others, own)
    own_share = np.exp(own - total)
    lower = own - total + math.log(count)
    upper = own - others + math.log(count - 1)
    as_part[0] += own_share
    bounds = []
    for name, values, part in zip(("L", "own row out"), (lower, upper), as_part, strict=True):
        influence = values - values.mean() - (part - part.mean())
        bounds.append(Bound(name, float(values.mean()), _error(influence), influence))
    return bounds[0], bounds[1], float(own_share.mean())


def _widened(
    draws: np.ndarray, own: np.ndarray, mean: np.ndarray, std: np.ndarray, order: np.ndarray
) -> Bound:
    """Leave the own row out and widen the others by w.

    Returns:
        Bound (c), valid for any w; the width is chosen on one half of the rows and evaluated on
        the other.
    """
    half = min(WIDENED_ROWS, len(order)) // 2
    choosing, evaluated = order[:half], order[half : 2 * half]

    def values(rows: np.ndarray, width: float) -> np.ndarray:
        wide: np.ndarray = np.sqrt(std**2 + width**2)
        difference: np.ndarray = own[rows] - _left_out(draws, mean, wide, rows)
        return difference

    best = min(WIDTHS, key=lambda width: float(values(choosing, width).mean()))
    found = values(evaluated, best)
    return Bound(f"widened by {best:g}", float(found.mean()), _error(found))


def _left_out(draws: np.ndarray, mean: np.ndarray, std: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """log mean_{n != i} q(z_i | x_n) of some draws, less the constant that ``own`` lacks too."""
    result = []
    for block, log_density in _log_densities(draws, mean, std, rows):
        log_density[np.arange(len(block)), block] = -np.inf
        result.append(_exponentiate(log_density))
    return np.concatenate(result) - math.log(len(mean) - 1)


def _log_densities(
    draws: np.ndarray, mean: np.ndarray, std: np.ndarray, rows: np.ndarray | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """log q(z_i | x_n) + n/2 log 2 pi by one product of [z^2, z, 1], in blocks of draws.

    Yields:
        Numbers of the draws ``(B,)`` and their log densities, ``(B, N)``.
    """
    middle = mean.mean(axis=0)  # the square of a centred value loses fewer digits
    mean, draws = mean - middle, draws - middle
    precision = std**-2.0
    constant = -0.5 * (mean**2 * precision).sum(axis=1) - np.log(std).sum(axis=1)
    parts = np.concatenate([-0.5 * precision.T, (mean * precision).T, constant[None]])
    rows = np.arange(len(draws)) if rows is None else rows
    for block in np.array_split(rows, max(1, len(rows) * len(mean) // _ELEMENTS)):
        z = draws[block]
        yield block, np.concatenate([z**2, z, np.ones((len(z), 1))], axis=1) @ parts


def _exponentiate(logs: np.ndarray) -> np.ndarray:
    """Replace each row by its exponentials up to a factor a row; return the log of its sum."""
    highest = logs.max(axis=1, keepdims=True)
    np.exp(logs - highest, out=logs)
    total: np.ndarray = highest[:, 0] + np.log(logs.sum(axis=1))
    return total


def _error(influence: np.ndarray) -> float:
    return float(influence.std(ddof=1) / math.sqrt(len(influence)))
