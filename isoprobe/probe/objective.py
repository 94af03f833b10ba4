"""Compute the objective of single samples, L_x, which is the anomaly score (Section 5.3).

L_x = E_z D(x, Dec(z)) + beta sum_j KL_j, the mean over z taken at draws that are the same for every
row, so that equal rows have equal scores, or at mu + sigma and mu - sigma (A.6);
for a model trained on the decomposed loss
L_x = w D_t(x, x_check) + E_z D(x_check, Dec(z)) + beta sum_j KL_j with x_check = Dec(mu).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.errors import CheckpointError
from isoprobe.probe.fixed import GAUSSIAN, fixed_noise
from isoprobe.probe.quantities import Probe, ProbeOptions, distortion_by_input
from isoprobe.theory.covariance import correlated_kl
from isoprobe.theory.detection import tie_tolerance
from isoprobe.theory.formulas import kl_divergence, objective, weighted_rate
from isoprobe.theory.prior import prior_terms

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Batch, Metric, Posterior, Prior


@dataclass(frozen=True)
class Terms:
    """What a batch's objective is made of before beta comes in.

    Attributes:
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``.
        distortion: E_z D(x, x_hat), or E_z D(x_check, x_hat) when decomposed, ``(B,)``.
        transform: w D_t(x, x_check), ``(B,)``; None when not decomposed.
        by_input: both distortions by input, ``(B, *input_shape)``; None when not asked for.
        prior: p(z) where it is not N(0, I).
        root: L of a full covariance, ``(B, n, n)``; None where latents are independent.
    """

    mean: Tensor
    std: Tensor
    distortion: Tensor
    transform: Tensor | None = None
    by_input: Tensor | None = None
    prior: Prior | None = None
    root: Tensor | None = None

    @property
    def rates(self) -> np.ndarray:
        """KL_j in nats, ``(B, n)`` float64; see :func:`rates`."""
        return rates(self.mean, self.std, self.prior, self.root)


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
        return objective(self.distortion, self.rate, self._transform)

    @property
    def tolerance(self) -> np.ndarray:
        """What scores of equal rows may differ by, ``(B,)``; see :func:`tie_tolerance`."""
        return tie_tolerance(self.distortion, self.rate, self._transform)

    @property
    def _transform(self) -> np.ndarray | float:
        return 0.0 if self.transform is None else self.transform


class Objective:
    """Terms of L_x by one encoding and two decodings, three when decomposed.

    Args:
        vae: the model.
        metric: the distortion.
        transform_metric: distortion D_t of the decomposed loss; None for the same as ``metric``.
        by_input: give the distortions by input too, where they are sums over inputs.
        batch_size: rows that will come at once.
        draws: keep the distortion at each draw, for a bound that weighs them.
        expectation: how E_z D is taken, as in :class:`~isoprobe.probe.quantities.ProbeOptions`.

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
        draws: bool = False,
        batch_size: int | None = None,
        expectation: str = GAUSSIAN,
    ) -> None:
        if vae.encode is None:
            raise CheckpointError(
                f"{vae.name} has no encoder with a variance; a score needs a posterior."
            )
        self.vae = vae
        self.transform_metric = transform_metric
        self.by_input = by_input
        options = ProbeOptions(batch_size=batch_size, expectation=expectation, checked=False)
        needs = quantities_of(vae, by_input=by_input, draws=draws)
        self.probe = Probe(vae, metric, needs, options)

    def __call__(self, x: Tensor, vae: VAE | None = None) -> Terms:
        """Terms of each input.

        Args:
            x: inputs, ``(B, *input_shape)``.
            vae: the model bound to what it is told of them, where it does not find that itself.

        Returns:
            The terms.

        Raises:
            MetricError: when parts by input are asked of a metric that is no sum over inputs.
        """
        batch = self.probe(np.arange(len(x)), x, vae=vae)
        return terms_of(batch, self.vae, self.transform_metric)


def quantities_of(vae: VAE, *, by_input: bool = False, draws: bool = False) -> frozenset[str]:
    """Names of the probe's quantities that L_x of a model is made of."""
    distortions = {"distortion_fixed"}
    if vae.facts.decomposed:
        distortions = {"distortion_fixed_checked", "distortion_transform"}
    maps = {f"{name}_map" for name in distortions} if by_input else set()
    drawn = {"distortion_fixed_draws"} if draws else set()
    return frozenset({"mean", "std"} | distortions | maps | drawn)


def terms_of(batch: Batch, vae: VAE, transform_metric: Metric | None) -> Terms:
    """What a batch's objective is made of: the one place that says so.

    Args:
        batch: with the quantities of :func:`quantities_of`.
        vae: the model.
        transform_metric: distortion D_t of the decomposed loss; None for the metric of the batch.

    Returns:
        The terms.
    """
    mean, std, found = batch["mean"], batch["std"], batch.quantities
    if not vae.facts.decomposed:
        return Terms(
            mean,
            std,
            batch["distortion_fixed"],
            by_input=found.get("distortion_fixed_map"),
            prior=vae.prior,
            root=found.get("root"),
        )
    weight, moved = transform_weight(vae), found.get("distortion_transform_map")
    transform = batch["distortion_transform"]
    if transform_metric is not None:
        transform = transform_metric.distortion(batch.x, batch["x_check"])
        if moved is not None:
            moved = distortion_by_input(transform_metric.distortion, batch.x, batch["x_check"])
    by_input = found.get("distortion_fixed_checked_map")
    if by_input is not None and moved is not None:
        by_input = by_input + weight * moved
    coded = batch["distortion_fixed_checked"]
    return Terms(mean, std, coded, weight * transform, by_input, vae.prior, found.get("root"))


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
        weighted_rate(terms.rates, beta),
    )


def rates_of(posterior: Posterior, prior: Prior | None = None) -> np.ndarray:
    """KL_j of posteriors against a prior, ``(B, n)`` float64, nats; see :func:`rates`."""
    return rates(posterior.mean, posterior.std, prior, posterior.root)


def rates(
    mean: Tensor | np.ndarray,
    std: Tensor | np.ndarray,
    prior: Prior | None = None,
    root: Tensor | None = None,
) -> np.ndarray:
    """KL_j of posteriors, in double precision whatever theirs (Eq. 2).

    Args:
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``.
        prior: p(z) where it is not N(0, I); means over it are taken at the same draws in every
            row, and a latent's part is given those before it.
        root: L of a full covariance, ``(B, n, n)``; a latent's part is given those before it.

    Returns:
        ``(B, n)`` in nats.
    """
    centre, width = _double(mean), _double(std)
    if root is not None:
        whole: np.ndarray = correlated_kl(centre, _double(root)).numpy()
        return whole
    if prior is None:
        found: np.ndarray = kl_divergence(centre, width).numpy()
        return found
    own: np.ndarray = prior_terms(prior, centre, width, fixed_noise(centre.shape[1])).kl.numpy()
    return own


def _double(values: Tensor | np.ndarray) -> Tensor:
    if isinstance(values, torch.Tensor):
        return values.detach().double().cpu()
    return torch.tensor(values, dtype=torch.float64)
