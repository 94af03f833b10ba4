"""Average values seen in some samples only, helped by what is known of all of them.

The generalised regression estimator of survey sampling (Särndal, Swensson and Wretman, "Model
Assisted Survey Sampling", 1992): a linear fit on the samples that were seen predicts all samples,
and the mean residual corrects the prediction, so that a poor fit costs precision and never
correctness.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from isoprobe.statistics.moments import Accumulator

#: seen samples for each coefficient, below which a smaller fit is taken
_PER_COEFFICIENT = 3
#: of the seen samples' number: keeps covariates that hardly vary from taking part
_RIDGE = 1e-2


class AssistedMeans(Accumulator):
    """Means of ``targets`` values for each of ``items``, each seen in some of the samples.

    Args:
        items: number of items n, such as latents.
        shared: covariates common to all items, F, the first of them constant 1.
        own: for each item the places of the few covariates that describe it best, ``(n, f)``.
        targets: values of an item, T.
    """

    kept: ClassVar[tuple[str, ...]] = ("gram", "normal", "moment", "square")

    def __init__(self, items: int, shared: int, own: np.ndarray, targets: int) -> None:
        self.own = own
        self.gram = np.zeros((shared, shared))
        self.normal = np.zeros((items, shared, shared))
        self.moment = np.zeros((items, shared, targets))
        self.square = np.zeros((items, targets))

    def update(self, covariates: np.ndarray, seen: np.ndarray, values: np.ndarray) -> None:
        """Take in a batch.

        Args:
            covariates: of every sample, ``(B, F)``.
            seen: which items were seen in which sample, ``(B, n)`` bool.
            values: ``(B, n, T)``; what stands where nothing was seen is left alone.
        """
        self.gram += covariates.T @ covariates
        for item in range(len(self.normal)):
            rows = seen[:, item]
            known, value = covariates[rows], values[rows, item]
            self.normal[item] += known.T @ known
            self.moment[item] += known.T @ value
            self.square[item] += (value**2).sum(axis=0)

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Means over all samples, with standard errors.

        Returns:
            Means and errors, each ``(n, T)``; an error is that of the mean of the population that
            the samples come from. NaN for an item seen less than twice.
        """
        pairs = [self._mean(item) for item in range(len(self.normal))]
        return np.stack([mean for mean, _ in pairs]), np.stack([error for _, error in pairs])

    def sd(self) -> np.ndarray:
        """Standard deviations over the samples that saw an item, ``(n, T)``."""
        count = self.normal[:, 0, 0, None]
        mean = self.moment[:, 0] / np.maximum(count, 1)
        variance = (self.square - count * mean**2) / np.maximum(count - 1, 1)
        sd: np.ndarray = np.sqrt(np.maximum(variance, 0))
        return sd

    def _mean(self, item: int) -> tuple[np.ndarray, np.ndarray]:
        count, total = self.normal[item, 0, 0], self.gram[0, 0]
        if count < 2:
            unknown = np.full(self.square.shape[1], np.nan)
            return unknown, unknown
        places = self._places(item, count)
        chosen = np.ix_(places, places)
        standard = _standardise(self.gram[chosen])
        normal = standard.T @ self.normal[item][chosen] @ standard
        moment = standard.T @ self.moment[item][places]
        ridge = np.diag(np.r_[0.0, np.full(len(places) - 1, _RIDGE * count)])
        inverse = np.linalg.inv(normal + ridge)
        weights = inverse @ moment
        # over all samples standardised covariates have mean zero: their mean prediction is the
        # intercept, which bears no ridge, so that the mean residual is zero too
        value = weights[0]
        left = self.square[item] + (weights * (normal @ weights - 2 * moment)).sum(axis=0)
        noise = np.maximum(left, 0) / max(count - np.trace(inverse @ normal), 1)
        whole = standard.T @ self.gram[chosen] @ standard / total
        predicted = (weights[1:] * (whole[1:, 1:] @ weights[1:])).sum(axis=0)
        # a form that is never negative, but for rounding where a value hardly varies
        return value, np.sqrt(noise * inverse[0, 0] + np.maximum(predicted, 0) / total)

    def _places(self, item: int, count: float) -> np.ndarray:
        """The most covariates that so many samples can bear."""
        for places in (np.arange(len(self.gram)), self.own[item]):
            if count >= _PER_COEFFICIENT * len(places):
                return np.asarray(places)
        return np.zeros(1, dtype=np.int64)


def _standardise(gram: np.ndarray) -> np.ndarray:
    """Matrix that turns covariates into ones of mean 0 and variance 1, the constant left alone."""
    mean = gram[0] / gram[0, 0]
    variance = np.diagonal(gram) / gram[0, 0] - mean**2
    scale = np.sqrt(np.maximum(variance, 1e-12 * (1 + mean**2)))
    matrix = np.diag(1 / scale)
    matrix[0] = -mean / scale
    matrix[0, 0] = 1.0
    return matrix
