"""The training objective of single samples, L_x, which is the anomaly score (Section 5.3).

L_x = E_z D(x, Dec(z)) + beta sum_j KL_j, the mean over z taken at mu + sigma and mu - sigma (A.6);
for a model trained on the decomposed loss
L_x = w D_t(x, x_check) + E_z D(x_check, Dec(z)) + beta sum_j KL_j with x_check = Dec(mu).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from isoprobe.errors import CheckpointError
from isoprobe.formulas import kl_divergence
from isoprobe.tensors import output_metric

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric


@dataclass(frozen=True)
class Terms:
    """What a batch's objective is made of before beta comes in.

    Attributes:
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``.
        distortion: E_z D(x, x_hat), or E_z D(x_check, x_hat) when decomposed, ``(B,)``.
        transform: w D_t(x, x_check), ``(B,)``; None when not decomposed.
    """

    mean: Tensor
    std: Tensor
    distortion: Tensor
    transform: Tensor | None = None


@dataclass(frozen=True)
class Parts:
    """Additive parts of each score, float64, in units of the metric.

    Attributes:
        distortion: as in :class:`Terms`, ``(B,)``.
        transform: likewise; None when not decomposed.
        rate: beta KL_j, ``(B, n)``.
    """

    distortion: np.ndarray
    transform: np.ndarray | None
    rate: np.ndarray

    @property
    def score(self) -> np.ndarray:
        """L_x, ``(B,)``: the sum of the parts, from the left, the rates summed first."""
        total = self.distortion if self.transform is None else self.distortion + self.transform
        score: np.ndarray = total + self.rate.sum(axis=1)
        return score


class Objective:
    """Terms of L_x by one encoding and two decodings, three when decomposed.

    Args:
        vae: the model.
        metric: the distortion.
        transform_metric: distortion D_t of the decomposed loss; None for the same as ``metric``.

    Raises:
        CheckpointError: when the model has no encoder.
    """

    def __init__(self, vae: VAE, metric: Metric, transform_metric: Metric | None = None) -> None:
        if vae.encode is None:
            raise CheckpointError(
                f"{vae.name} has no encoder with a variance; a score needs a posterior."
            )
        self._encode = vae.encode
        self.view = output_metric(metric, vae)
        self.transform_metric = transform_metric
        self.decomposed = bool(vae.facts.decomposed)
        self.weight = transform_weight(vae)

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Terms:
        """Terms of each input, ``x (B, *input_shape)``."""
        posterior = self._encode(x)
        mean, std = posterior.mean, posterior.std
        if not self.decomposed:
            return Terms(mean, std, self._expected(x, mean, std))
        output = self.view.decode(mean)
        x_check = self.view.mean(output)
        if self.transform_metric is None:
            transform = self.view.distortion(x, output)
        else:
            transform = self.transform_metric.distortion(x, x_check)
        return Terms(mean, std, self._expected(x_check, mean, std), self.weight * transform)

    def _expected(self, reference: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        above = self.view.distortion(reference, self.view.decode(mean + std))
        below = self.view.distortion(reference, self.view.decode(mean - std))
        return 0.5 * (above + below)


def transform_weight(vae: VAE) -> float:
    """Weight w of D_t in the decomposed loss; 1 where the checkpoint declares none."""
    declared = vae.facts.transform_weight
    return 1.0 if declared is None else declared


def parts(terms: Terms, beta: float) -> Parts:
    """Weigh a batch's terms.

    Args:
        terms: of a batch.
        beta: KL weight in units of the metric.

    Returns:
        Additive parts of each score, float64.
    """
    distortion, transform = terms.distortion, terms.transform
    return Parts(
        distortion.double().cpu().numpy(),
        None if transform is None else transform.double().cpu().numpy(),
        beta * rates(terms.mean, terms.std),
    )


def rates(mean: Tensor | np.ndarray, std: Tensor | np.ndarray) -> np.ndarray:
    """KL_j in nats of posteriors ``(B, n)``, in double precision whatever theirs (Eq. 2)."""
    found: np.ndarray = kl_divergence(_double(mean), _double(std)).numpy()
    return found


def _double(values: Tensor | np.ndarray) -> Tensor:
    if isinstance(values, torch.Tensor):
        return values.double().cpu()
    return torch.tensor(values, dtype=torch.float64)
