"""Solve the linear VAE of a table in closed form: a training's start, and what sets its size.

Its optimum is probabilistic PCA (Tipping and Bishop 1999; Lucas, Tucker, Grosse and Norouzi 2019):
with S = U diag(lambda) U' the covariance and beta = 2 sigma^2, the decoder is
U (lambda - sigma^2)^(1/2), the posterior's variance sigma^2 / lambda.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

#: numbers of latents that are tried
SIZES = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 48, 64)
#: variance that is left to noise at least, of standardised columns
LEAST_NOISE = 1e-3
FOLDS = 5


@dataclass(frozen=True)
class LinearVae:
    """The optimum of a linear VAE on rows.

    Attributes:
        mean: of the rows, ``(m,)``.
        directions: orthonormal, ``(m, n)``.
        variances: along them, ``(n,)``, above the noise.
        noise: variance of every input around its reconstruction.
    """

    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    noise: float

    @property
    def latents(self) -> int:
        """Number of latents n."""
        return len(self.variances)

    @property
    def beta(self) -> float:
        """KL weight for the summed square error at which the ELBO is greatest."""
        return 2 * self.noise

    @property
    def decoder(self) -> np.ndarray:
        """Columns of the decoder, ``(m, n)``."""
        weight: np.ndarray = self.directions * np.sqrt(self.variances - self.noise)
        return weight

    @property
    def encoder(self) -> np.ndarray:
        """Rows of the encoder's mean, ``(n, m)``."""
        gain = np.sqrt(self.variances - self.noise) / self.variances
        weight: np.ndarray = gain[:, None] * self.directions.T
        return weight

    @property
    def std(self) -> np.ndarray:
        """Standard deviations of the posterior, ``(n,)``, the same for every row."""
        found: np.ndarray = np.sqrt(self.noise / self.variances)
        return found

    def residuals(self, x: np.ndarray) -> np.ndarray:
        """Mean square by column of what Dec(mu) leaves of rows, ``(m,)``."""
        moved = x - self.mean
        left: np.ndarray = moved - moved @ self.encoder.T @ self.decoder.T
        squares: np.ndarray = np.square(left).mean(axis=0)
        return squares

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """log p(x) of the model, ``(N, m)`` to ``(N,)``, in nats."""
        moved = x - self.mean
        codes = moved @ self.directions
        rest = np.square(moved).sum(axis=1) - np.square(codes).sum(axis=1)
        left = x.shape[1] - self.latents
        squares = np.square(codes) @ (1 / self.variances) + rest / self.noise
        constant = np.log(self.variances).sum() + left * np.log(self.noise)
        density: np.ndarray = -0.5 * (squares + constant + x.shape[1] * np.log(2 * np.pi))
        return density


def fit_linear(x: np.ndarray, folds: int = FOLDS) -> LinearVae:
    """Return the linear VAE whose number of latents rows left out prefer.

    Args:
        x: rows, ``(N, m)``, in random order.
        folds: parts, each left out once; the median log density over all rows decides, so that a
            few odd rows do not.

    Returns:
        The optimum on all rows for that number, beta being the one of the greatest ELBO.
    """
    folds = min(folds, len(x))
    parts = [np.arange(len(x))[place::folds] for place in range(folds)]
    left_out: dict[int, list[np.ndarray]] = {}
    for part in parts:
        principal = _principal(np.delete(x, part, axis=0))
        for size in _sizes(x.shape[1]):
            left_out.setdefault(size, []).append(_model(principal, size).log_density(x[part]))
    median = {size: float(np.median(np.concatenate(v))) for size, v in left_out.items()}
    return _model(_principal(x), max(median, key=median.__getitem__))


def _sizes(count: int) -> list[int]:
    return [size for size in SIZES if size < count] or [1]


def _principal(x: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean, variances in falling order, and directions."""
    mean, count = x.mean(axis=0), x.shape[1]
    covariance = np.cov(x - mean, rowvar=False, bias=True).reshape(count, count)
    values, vectors = np.linalg.eigh(covariance)
    return mean, np.maximum(values[::-1], 0), vectors[:, ::-1]


def _model(principal: tuple[np.ndarray, np.ndarray, np.ndarray], size: int) -> LinearVae:
    mean, values, vectors = principal
    noise = max(float(values[size:].sum()) / max(len(values) - size, 1), LEAST_NOISE)
    return LinearVae(mean, vectors[:, :size], np.maximum(values[:size], noise * 1.0001), noise)
