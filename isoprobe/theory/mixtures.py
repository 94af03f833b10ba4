"""Mix the posteriors of one latent on a grid: densities and expectations, no draws and no bins.

The aggregate posterior q(z_j) = mean_n N(mu_nj, sigma_nj^2) is a smooth sum of Gaussians, so the
trapezoid rule at half the smallest sigma integrates even logs of such sums to some six digits.
Each Gaussian is followed over seven sigmas; rows are sorted by their mean, so that a block of rows
touches only its own window of the grid.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

#: points of a grid at most; posteriors too narrow for it are widened to its step
POINTS = 8192
#: how far from its mean a posterior is followed, in sigmas
REACH = 7.0
#: rows of a block; few, so that a block of sorted rows spans little of the grid
_ROWS = 256


@dataclass(frozen=True)
class Mixture:
    """Posteriors of one latent and the grid they are mixed on.

    Attributes:
        mean: mu_n, ``(N,)``.
        std: sigma_n, ``(N,)``, none below the step.
        grid: points z_g, ``(G,)``, evenly spaced.
        step: distance of two points.
        widened: how many posteriors were narrower than the step and taken as wide as it.
    """

    mean: np.ndarray
    std: np.ndarray
    grid: np.ndarray
    step: float
    widened: int

    @property
    def log_prior(self) -> np.ndarray:
        """log N(z_g; 0, 1), ``(G,)``."""
        return -0.5 * self.grid**2 - 0.5 * math.log(2 * math.pi)

    def windows(self) -> Iterator[tuple[np.ndarray, slice, np.ndarray]]:
        """Densities of blocks of rows on the part of the grid they reach.

        Yields:
            Row numbers ``(B,)``, the window of the grid, and N(z_g; mu_n, sigma_n^2) there,
            ``(B, g)``.
        """
        order = np.argsort(self.mean, kind="stable")
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            mean, std = self.mean[rows, None], self.std[rows, None]
            low, high = (mean - REACH * std).min(), (mean + REACH * std).max()
            window = slice(
                int(np.searchsorted(self.grid, low)),
                int(np.searchsorted(self.grid, high, side="right")),
            )
            density = (self.grid[window] - mean) / std
            np.square(density, out=density)
            density *= -0.5
            np.exp(density, out=density)
            density /= std * math.sqrt(2 * math.pi)
            yield rows, window, density

    def mixed(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Sum the posteriors.

        Args:
            weights: of each row in each of C sums, ``(N, C)``; one sum of weights 1 when None.

        Returns:
            sum_n weights_nc N(z_g; mu_n, sigma_n^2), ``(C, G)``.
        """
        weights = np.ones((len(self.mean), 1)) if weights is None else weights
        total = np.zeros((weights.shape[1], len(self.grid)))
        for rows, window, density in self.windows():
            total[:, window] += weights[rows].T.astype(float) @ density
        return total

    def expected(self, functions: np.ndarray) -> np.ndarray:
        """Expectation of functions on the grid, ``(C, G)``, under each row: ``(N, C)``."""
        result = np.empty((len(self.mean), len(functions)))
        for rows, window, density in self.windows():
            result[rows] = self.step * (density @ functions[:, window].T)
        return result

    def own_share(self, total: np.ndarray) -> np.ndarray:
        """Share of each row in the sum of all, ``total (G,)``, where it lies itself: ``(N,)``."""
        result = np.empty(len(self.mean))
        inverse = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
        for rows, window, density in self.windows():
            result[rows] = self.step * (density**2 @ inverse[window])
        return result


def mixture(mean: np.ndarray, std: np.ndarray, points: int = POINTS) -> Mixture:
    """Lay a grid under the posteriors of one latent.

    Args:
        mean: mu_n, ``(N,)``.
        std: sigma_n, ``(N,)``, positive.
        points: points at most. Where min sigma asks for more, the step is what ``points`` allow
            and narrower posteriors are widened to it, which is counted.

    Returns:
        The posteriors on a grid of half of min_n sigma_n, holding seven sigmas of every row.
    """
    mean, std = np.asarray(mean, dtype=float), np.asarray(std, dtype=float)
    step = 0.5 * float(std.min())
    low, high = (mean - REACH * std).min(), (mean + REACH * std).max()
    widened = 0
    if high - low > step * (points - 1):
        # room for the widened ones, which may now reach beyond the ends
        step = float((high - low) / (points - 1 - 2 * REACH))
        widened = int((std < step).sum())
        std = np.maximum(std, step)
        low, high = (mean - REACH * std).min(), (mean + REACH * std).max()
    count = int(np.ceil((high - low) / step)) + 1
    return Mixture(mean, std, low + step * np.arange(count), step, widened)


def log_where_positive(density: np.ndarray) -> np.ndarray:
    """Log of a density; 0 where it vanishes and so weighs nothing."""
    logs: np.ndarray = np.log(density, out=np.zeros_like(density), where=density > 0)
    return logs


def standard_error(rows: np.ndarray) -> np.ndarray:
    """Standard error of the mean over the first axis; NaN of a single row."""
    if len(rows) < 2:
        return np.full(rows.shape[1:], np.nan)
    error: np.ndarray = rows.std(axis=0, ddof=1) / math.sqrt(len(rows))
    return error
