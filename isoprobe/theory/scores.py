"""Score by other means than L_x, of what it is made of: the labels say which finds what."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from isoprobe.theory.detection import auroc, average_precision
from isoprobe.theory.isometric import IsometricMap, ScaleTable
from isoprobe.theory.stated import stated
from isoprobe.theory.weighted import bound_gap

#: by name, what they are
SCORES = {
    "loss": "L_x, the objective",
    "iwae": "-beta times the importance-weighted bound at the fixed draws",
    "mahalanobis": "squared distance in y (in z with a full covariance) from the mean of the "
    "reference, by its covariance",
    "reconstruction": "the distortion parts of L_x alone",
    "kl": "beta KL alone",
}
#: resamples of the rows for an error of average precision
_RESAMPLES = 100


@stated("Other scores (beyond)")
def weighted_loss(log_weight: np.ndarray, beta: float) -> np.ndarray:
    """Return -beta times the importance-weighted bound of each row.

    Args:
        log_weight: of each row's draws, ``(N, K)``, in nats.
        beta: KL weight.

    Returns:
        ``(N,)`` in units of the metric; L_x where all draws weigh the same.
    """
    bound: np.ndarray = -beta * (log_weight.mean(axis=1) + bound_gap(log_weight))
    return bound


@dataclass(frozen=True)
class Mahalanobis:
    """Where a reference lies in y.

    Attributes:
        isometric_map: z to y, by the reference's scales; None where distances are taken in z.
        center: mean of its y, ``(n,)``.
        precision: inverse of its covariance, ``(n, n)``.
    """

    isometric_map: IsometricMap | None
    center: np.ndarray
    precision: np.ndarray

    @classmethod
    def of(
        cls, mean: np.ndarray, std: np.ndarray, beta: float, posterior: np.ndarray | None = None
    ) -> Mahalanobis:
        """Learn from reference rows.

        The covariance is that of the aggregate posterior, whose variance around each row's mean is
        beta/2 in every direction of y: a latent that does nothing has that and no less. With a
        full covariance there is no y of one latent, and distances are taken in z, by
        Cov(mu) + E[L L']: the same where y is linear in z, for no linear map changes them.

        Args:
            mean: their mu, ``(N, n)``.
            std: their sigma, ``(N, n)``.
            beta: KL weight.
            posterior: E[L L'] of their posteriors, ``(n, n)``, where latents are correlated.

        Returns:
            What distances are taken from.
        """
        if posterior is not None:
            spread = np.atleast_2d(np.cov(mean, rowvar=False, bias=True)) + posterior
            return cls(None, mean.mean(axis=0), np.linalg.inv(spread))
        scales = ScaleTable(mean.shape[1])
        scales.update(mean, std)
        isometric_map = scales.isometric_map(beta)
        y = isometric_map.to_isometric(mean)
        count = mean.shape[1]
        covariance = np.cov(y, rowvar=False, bias=True).reshape(count, count)
        inverse = np.linalg.inv(covariance + beta / 2 * np.eye(count))
        return cls(isometric_map, y.mean(axis=0), inverse)

    @stated("Other scores (beyond)")
    def distance(self, mean: np.ndarray) -> np.ndarray:
        """Return squared distances of rows from the reference's mean, by its covariance.

        Args:
            mean: their mu, ``(N, n)``.

        Returns:
            ``(N,)``, dimensionless.
        """
        y = mean if self.isometric_map is None else self.isometric_map.to_isometric(mean)
        moved = y - self.center
        squared: np.ndarray = np.einsum("ij,jk,ik->i", moved, self.precision, moved)
        return squared


def score_of(name: str, columns: Mapping[str, np.ndarray], place: Mahalanobis | None) -> np.ndarray:
    """Return a score of rows from the columns that the analysis ``anomaly`` keeps of them.

    Args:
        name: one of :data:`SCORES`.
        columns: by name, first axis the rows.
        place: of the reference, for ``mahalanobis``.

    Returns:
        ``(N,)``, the higher the odder.
    """
    if name == "mahalanobis" and place is not None:
        return place.distance(columns["mean"].astype(np.float64))
    if name == "iwae":
        return columns["score_iwae"]
    if name == "kl":
        rate: np.ndarray = columns["score_rate"].sum(axis=1)
        return rate
    if name == "reconstruction":
        return columns["score_distortion"] + columns.get("score_transform", 0.0)
    return columns["score"]


#: columns that each score takes
NEEDS = {
    "loss": ("score",),
    "iwae": ("score_iwae",),
    "mahalanobis": ("mean", "std"),
    "reconstruction": ("score_distortion",),
    "kl": ("score_rate",),
}


@stated("Other scores (beyond)")
def auroc_error(scores: np.ndarray, anomalous: np.ndarray) -> float:
    """Return the standard error of the AUROC (DeLong, DeLong and Clarke-Pearson 1988).

    Args:
        scores: ``(N,)``.
        anomalous: ``(N,)`` bool, at least two of each kind.

    Returns:
        It; NaN with fewer.
    """
    odd, normal = scores[anomalous], scores[~anomalous]
    if min(len(odd), len(normal)) < 2:
        return math.nan
    variances = [
        _placements(odd, normal).var(ddof=1) / len(odd),
        _placements(normal, odd).var(ddof=1) / len(normal),
    ]
    return float(np.sqrt(sum(variances)))


def _placements(values: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Share of others below each value, ties counting half."""
    ordered = np.sort(others)
    below = np.searchsorted(ordered, values, side="left")
    reached = np.searchsorted(ordered, values, side="right")
    share: np.ndarray = (below + reached) / (2 * len(others))
    return share


@stated("Other scores (beyond)")
def compared(
    scores: dict[str, np.ndarray], anomalous: np.ndarray, seed: int = 0
) -> dict[str, np.ndarray]:
    """Compare scores by what labels say of them.

    Args:
        scores: by name, ``(N,)`` each.
        anomalous: ``(N,)`` bool, with both kinds in it.
        seed: of the resamples, the same rows for every score.

    Returns:
        ``auroc``, ``auroc_se`` (DeLong), ``average_precision``, ``average_precision_se``
        (bootstrap), one value a score.
    """
    generator = np.random.default_rng(seed)
    drawn = [generator.integers(0, len(anomalous), len(anomalous)) for _ in range(_RESAMPLES)]
    drawn = [rows for rows in drawn if anomalous[rows].any()]
    found: dict[str, list[float]] = {
        name: [] for name in ("auroc", "auroc_se", "average_precision", "average_precision_se")
    }
    for values in scores.values():
        found["auroc"].append(auroc(values, anomalous))
        found["auroc_se"].append(auroc_error(values, anomalous))
        found["average_precision"].append(average_precision(values, anomalous))
        again = [average_precision(values[rows], anomalous[rows]) for rows in drawn]
        found["average_precision_se"].append(float(np.std(again, ddof=1)))
    return {name: np.array(values) for name, values in found.items()}
