"""Find before a run which latents do something, so that determinants can leave the others out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.errors import IsoprobeError
from isoprobe.probe.beta import STATIONARY, BetaSums
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.theory.judge import Measured, used_latents

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric

#: inputs on which the decoder's answer is asked for, where a mean that stays leaves it open
ANSWERED = 64


def active_latents(vae: VAE, metric: Metric, inputs: Iterable[Tensor], seed: int = 0) -> np.ndarray:
    """Find the latents whose means vary over inputs, or to which the decoder answers.

    Args:
        vae: the model.
        metric: the distortion.
        inputs: batches, spread over the data.
        seed: of the draws for the decoder's answer.

    Returns:
        ``(n,)`` bool; none for a model without a posterior, or one that is not finite.
    """
    if vae.encode is None:
        return np.zeros(vae.latent_size, dtype=bool)
    first: list[Tensor] = []
    means = []
    for x in inputs:
        with torch.no_grad():
            mean = vae.encode(x).mean
        if bool(mean.isfinite().all()):  # else the probe names sample and latent
            means.append(mean.double().cpu().numpy())
        if sum(map(len, first)) < ANSWERED:
            first.append(x)
    if not means:
        return np.zeros(vae.latent_size, dtype=bool)
    spread = _variance(np.concatenate(means))
    moving = used_latents(spread, Measured.of(np.zeros(vae.latent_size)))
    if moving.all() or not moving.any():
        return moving
    answer = _answer(vae, metric, torch.cat(first)[:ANSWERED], moving, seed)
    return moving if answer is None else used_latents(spread, answer)


def _variance(mean: np.ndarray) -> Measured:
    """Var(mu_j) with its standard error."""
    squares = (mean - mean.mean(axis=0)) ** 2
    return Measured.of(squares.mean(axis=0), squares.std(axis=0) / np.sqrt(len(mean)))


def _answer(vae: VAE, metric: Metric, x: Tensor, moving: np.ndarray, seed: int) -> Measured | None:
    """The decoder's answer to noise in each latent, as a norm; None where none can be had."""
    sums = BetaSums(vae.latent_size)
    try:
        probe = Probe(vae, metric, {"mean", "std", "stationarity"}, ProbeOptions(seed=seed))
        batch = probe(np.arange(len(x)), x)
    except IsoprobeError:  # the run itself says what is wrong
        return None
    sums.take(batch)
    beta = sums.pooled(STATIONARY, moving)
    if beta is None or not float(beta.value) > 0:
        return None
    answers = batch.array("stationarity") / float(beta.value)
    return Measured.of(answers.mean(axis=0), answers.std(axis=0) / np.sqrt(len(x)))
