"""What the numbers mean together, in a sentence, and what to distrust."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import Any

#: relative difference below which two estimates of beta count as equal; real weights whose
#: training loss is on record stay within 0.1
AGREE = 0.15
#: mean |norm + sigma^2 - 1| of active latents below which isometry counts as reached
ISOMETRIC = 0.15
#: mean |cosine| of decoder columns above which latents share directions
ORTHOGONAL = 0.15
FEW_SAMPLES = 1000


@dataclass(frozen=True)
class Reading:
    """The numbers a verdict rests on, active latents only.

    Attributes:
        active: number of active latents.
        latents: number of latents.
        residuals: norm + sigma^2 - 1 by the pullback; empty when not computed.
        stationary_residuals: the same by stationarity.
        betas: beta recovered in each latent.
        beta: the overall estimates, as in the JSON summary.
        cosine: mean |cosine| between decoder columns; None when not computed.
        data: name of the data.
        samples: number of samples.
        distortion: mean distortion of the reconstruction at the posterior mean; None when unknown.
        baseline: the same of the mean input in its place.
    """

    active: int
    latents: int
    residuals: tuple[float, ...]
    stationary_residuals: tuple[float, ...]
    betas: tuple[float, ...]
    beta: Mapping[str, Any]
    cosine: float | None
    data: str
    samples: int
    distortion: float | None = None
    baseline: float | None = None


@dataclass(frozen=True)
class Verdict:
    """A sentence on what it means, and reasons for doubt."""

    meaning: str
    doubts: list[str]


def verdict(reading: Reading, *, diagnosed: bool = False) -> Verdict:
    """Read the numbers together (stationarity and pullback, declared and recovered beta).

    Args:
        reading: the numbers.
        diagnosed: a diagnosis speaks of beta already.

    Returns:
        What they mean and what to distrust.
    """
    return Verdict(_meaning(reading), list(_doubts(reading, diagnosed=diagnosed)))


def _meaning(reading: Reading) -> str:
    if not reading.active:
        return (
            "No latent carries information: the encoder gives the prior whatever it sees. "
            "Check the preprocessing of the data, and how the scale head is read."
        )
    carried = f"{reading.active} of {reading.latents} latents carry the information"
    bends, drifts = _size(reading.residuals), _size(reading.stationary_residuals)
    if bends is None and drifts is None:
        return f"{carried}."
    if bends is not None and bends <= ISOMETRIC:
        return (
            f"{carried}. Each obeys norm + sigma^2 = 1, as an embedding that is isometric up to a "
            "known scale must, so importance reads like PCA's variances."
        )
    if drifts is not None and drifts <= ISOMETRIC:
        return (
            f"{carried}. Training has converged (norm + sigma^2 = 1 by stationarity), but the "
            "decoder bends within one sigma, or reconstructs far from the input: trust the "
            "stationary figures over the pullback's."
        )
    return (
        f"{carried}, but neither test of isometry holds with this metric and beta: read "
        "importance as a rough order at best."
    )


def _doubts(reading: Reading, *, diagnosed: bool) -> Iterator[str]:
    if reading.data.partition(":")[0] == "prior":
        yield (
            "No data was used: the inputs are decoded from the prior, so every figure describes "
            "the model's own samples. Give --data for the real ones."
        )
    if reading.distortion is not None and reading.baseline is not None:
        yield from _doubts_about_reading(reading.distortion, reading.baseline)
    if reading.samples < FEW_SAMPLES:
        yield f"{reading.samples} samples are few; standard errors are in the result."
    if reading.cosine is not None and reading.cosine > ORTHOGONAL:
        yield (
            f"The decoder's columns are not orthogonal (mean |cosine| {reading.cosine:.2f}): "
            "latents share directions, and their importances overlap."
        )
    if not diagnosed:
        yield from _doubts_about_beta(reading)


def _doubts_about_reading(distortion: float, baseline: float) -> Iterator[str]:
    """Doubt a model that reconstructs no better than the mean input would."""
    if distortion >= baseline:
        yield (
            f"The reconstructions are no better than the mean input (distortion {distortion:.4g} "
            f"against {baseline:.4g}): the model codes next to nothing, or its weights or the data "
            "are read in the wrong way (head, activations, range). 'isoprobe doctor MODEL --data "
            "SPEC' tries other readings."
        )


def _doubts_about_beta(reading: Reading) -> Iterator[str]:
    declared, recovered = reading.beta["declared"], reading.beta["recovered"]
    if recovered is None:
        if declared is None and reading.beta["source"] != "user":
            yield "beta is not known; whatever is scaled by it is relative."
        return
    if recovered <= 0:
        yield (
            "The recovered beta is not positive: metric, data or scale head are not those of "
            "the training."
        )
        return
    agreeing = _spread(reading.betas, recovered) <= AGREE
    if not agreeing:
        yield (
            "The latents disagree about beta: training unfinished, or an objective that is no "
            "beta-VAE of this metric."
        )
    if declared is None:
        yield (
            "beta was read off the weights with this metric; the metric itself cannot be told "
            "from the weights."
        )
    elif abs(declared / recovered - 1) > AGREE and agreeing:
        yield (
            f"The latents agree on beta {recovered:.3g}, not on the declared {declared:.3g}: the "
            "declaration, its units (summed or averaged) or the metric are not the training's."
        )
    elif abs(declared / recovered - 1) > AGREE:
        yield f"beta {declared:.3g} is declared, {recovered:.3g} recovered."


def _size(residuals: tuple[float, ...]) -> float | None:
    return fmean(map(abs, residuals)) if residuals else None


def _spread(betas: tuple[float, ...], centre: float) -> float:
    return fmean(abs(beta / centre - 1) for beta in betas) if betas else 0.0
