"""Codes (mu, sigma) whose information about x is known in closed form."""

from __future__ import annotations

import numpy as np

Rows = tuple[np.ndarray, np.ndarray]


class LinearCode:
    """mu = A x with x ~ N(0, I) and fixed sigma, scaled to a given I(x; z).

    q(z) = N(0, S) with S = AA' + diag sigma^2.
    """

    def __init__(self, information: float, size: int, seed: int = 0) -> None:
        generator = np.random.default_rng(seed)
        self.matrix = generator.normal(size=(size, size)) / np.sqrt(size)
        shape = np.exp(0.3 * generator.normal(size=size))
        low, high = 1e-4, 1e2
        for _ in range(100):
            self.std = np.sqrt(low * high) * shape
            low, high = (np.sqrt(low * high), high) if self.information > information else (
                low,
                np.sqrt(low * high),
            )  # fmt: skip

    @property
    def covariance(self) -> np.ndarray:
        covariance: np.ndarray = self.matrix @ self.matrix.T + np.diag(self.std**2)
        return covariance

    @property
    def information(self) -> float:
        return float(0.5 * np.linalg.slogdet(self.covariance)[1] - np.log(self.std).sum())

    @property
    def total_correlation(self) -> float:
        variances = np.diag(self.covariance)
        return float(0.5 * (np.log(variances).sum() - np.linalg.slogdet(self.covariance)[1]))

    @property
    def information_sum(self) -> float:
        return self.information + self.total_correlation

    @property
    def marginal_sum(self) -> float:
        variances = np.diag(self.covariance)
        return float(0.5 * (variances - 1 - np.log(variances)).sum())

    def draw(self, count: int, seed: int) -> Rows:
        x = np.random.default_rng(seed).normal(size=(count, len(self.std)))
        return x @ self.matrix.T, np.tile(self.std, (count, 1))


def atoms(count: int, seed: int = 0) -> Rows:
    """64 points of the cube {-1.5, -0.5, 0.5, 1.5}^3, sigma 0.03, and two latents of the prior."""
    generator = np.random.default_rng(seed)
    points = generator.permutation(np.arange(count) % 64)
    digits = np.stack([points % 4, points // 4 % 4, points // 16], axis=1) - 1.5
    mean = np.concatenate([digits, np.zeros((count, 2))], axis=1)
    return mean, np.concatenate([np.full((count, 3), 0.03), np.ones((count, 2))], axis=1)


def circle(count: int, seed: int = 0) -> Rows:
    """Rows on a circle of radius sqrt 2, sigma 0.1."""
    angle = np.random.default_rng(seed).uniform(0, 2 * np.pi, size=count)
    return 2**0.5 * np.stack([np.cos(angle), np.sin(angle)], axis=1), np.full((count, 2), 0.1)


def spread(rows: int, latents: int, seed: int = 0, narrow: float = 0.3) -> Rows:
    """Random means and deviations, no two alike."""
    chance = np.random.default_rng(seed)
    mean = chance.normal(0.3, 1.0, (rows, latents))
    return mean, narrow * np.exp(0.3 * chance.normal(size=(rows, latents)))


def same(found: object, expected: object, rtol: float = 1e-10, atol: float = 1e-12) -> None:
    """Hold numbers against an oracle, to rounding unless told otherwise."""
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), rtol=rtol, atol=atol)
