"""The training objective of single samples, L_x, which is the anomaly score (Section 5.3).

L_x = E_z D(x, Dec(z)) + beta sum_j KL_j, the mean over z taken at mu + sigma and mu - sigma (A.6);
for a model trained on the decomposed loss
L_x = w D_t(x, x_check) + E_z D(x_check, Dec(z)) + beta sum_j KL_j with x_check = Dec(mu).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from isoprobe.derivatives.metric_tensor import output_metric
from isoprobe.errors import CheckpointError, MetricError
from isoprobe.theory.formulas import kl_divergence, objective, two_points, weighted_rate

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric

#: parts by input may miss their sum by this share of their size, in float32
_ROUNDING = 1e-4


@dataclass(frozen=True)
class Terms:
    """What a batch's objective is made of before beta comes in.

    Attributes:
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``.
        distortion: E_z D(x, x_hat), or E_z D(x_check, x_hat) when decomposed, ``(B,)``.
        transform: w D_t(x, x_check), ``(B,)``; None when not decomposed.
        by_input: both distortions by input, ``(B, *input_shape)``; None when not asked for.
    """

    mean: Tensor
    std: Tensor
    distortion: Tensor
    transform: Tensor | None = None
    by_input: Tensor | None = None


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
        return objective(
            self.distortion, self.rate, 0.0 if self.transform is None else self.transform
        )


class Objective:
    """Terms of L_x by one encoding and two decodings, three when decomposed.

    Args:
        vae: the model.
        metric: the distortion.
        transform_metric: distortion D_t of the decomposed loss; None for the same as ``metric``.
        by_input: give the distortions by input too, where they are sums over inputs.

    Raises:
        CheckpointError: when the model has no encoder.
    """

    def __init__(
        self,
        vae: VAE,
        metric: Metric,
        transform_metric: Metric | None = None,
        *,
        by_input: bool = False,
    ) -> None:
        if vae.encode is None:
            raise CheckpointError(
                f"{vae.name} has no encoder with a variance; a score needs a posterior."
            )
        self._encode = vae.encode
        self.view = output_metric(metric, vae)
        self.transform_metric = transform_metric
        self.decomposed = bool(vae.facts.decomposed)
        self.weight = transform_weight(vae)
        self.by_input = by_input

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Terms:
        """Terms of each input, ``x (B, *input_shape)``.

        Returns:
            The terms.

        Raises:
            MetricError: when parts by input are asked of a metric that is no sum over inputs.
        """
        posterior = self._encode(x)
        mean, std = posterior.mean, posterior.std
        if not self.decomposed:
            distortion, by_input = self._expected(x, mean, std)
            return Terms(mean, std, distortion, by_input=by_input)
        output = self.view.decode(mean)
        x_check = self.view.mean(output)
        distortion, by_input = self._expected(x_check, mean, std)
        if self.transform_metric is None:
            transform, moved = self._measured(self.view.distortion, x, output)
        else:
            transform, moved = self._measured(self.transform_metric.distortion, x, x_check)
        if by_input is not None and moved is not None:
            by_input = by_input + self.weight * moved
        return Terms(mean, std, distortion, self.weight * transform, by_input)

    def _expected(
        self, reference: Tensor, mean: Tensor, std: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Mean distortion over the two points, and the same by input where asked for."""
        measure, decode = self.view.distortion, self.view.decode
        above, above_map = self._measured(measure, reference, decode(mean + std))
        below, below_map = self._measured(measure, reference, decode(mean - std))
        if above_map is None or below_map is None:
            return two_points(above, below), None
        return two_points(above, below), two_points(above_map, below_map)

    def _measured(
        self, measure: Callable[[Tensor, Tensor], Tensor], x: Tensor, output: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        distortion = measure(x, output)
        return distortion, distortion_by_input(measure, x, output) if self.by_input else None


def distortion_by_input(
    measure: Callable[[Tensor, Tensor], Tensor], x: Tensor, output: Tensor
) -> Tensor:
    """Parts of a distortion that is a sum over inputs, each input taken as a sample of its own.

    Args:
        measure: the distortion, ``(B, *shape), (B, *shape) -> (B,)``.
        x: inputs, ``(B, *shape)``.
        output: what stands for the reconstructions, ``(B, *shape)``.

    Returns:
        ``(B, *shape)``, summing to the distortion of each sample.

    Raises:
        MetricError: when the parts do not sum to it, as for a mean, a norm or SSIM.
    """
    refusal = "this metric is no sum over inputs, so its distortion has no parts by input."
    try:
        pieces = measure(x.reshape(-1, 1), output.reshape(-1, 1)).reshape(x.shape)
    except MetricError as error:
        raise MetricError(refusal) from error
    whole = measure(x, output)
    size = pieces.abs().flatten(1).sum(1)
    if bool(((pieces.flatten(1).sum(1) - whole).abs() > _ROUNDING * size).any()):
        raise MetricError(refusal)
    return pieces


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
        weighted_rate(rates(terms.mean, terms.std), beta),
    )


def rates(mean: Tensor | np.ndarray, std: Tensor | np.ndarray) -> np.ndarray:
    """KL_j in nats of posteriors ``(B, n)``, in double precision whatever theirs (Eq. 2)."""
    found: np.ndarray = kl_divergence(_double(mean), _double(std)).numpy()
    return found


def _double(values: Tensor | np.ndarray) -> Tensor:
    if isinstance(values, torch.Tensor):
        return values.double().cpu()
    return torch.tensor(values, dtype=torch.float64)
