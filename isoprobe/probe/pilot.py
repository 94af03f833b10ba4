"""Find before a run which latents do something, so that determinants can leave the others out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.contracts import ACTIVE_NATS
from isoprobe.errors import IsoprobeError
from isoprobe.probe.objective import rates_of
from isoprobe.probe.prior import answer_called_for
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.probe.told import encoded, joined
from isoprobe.theory.judge import Measured, used_latents

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric

#: inputs on which the decoder's answer is asked for, where a mean that stays leaves it open
ANSWERED = 64


def active_latents(
    vae: VAE, metric: Metric, inputs: Iterable[tuple[VAE, Tensor]], seed: int = 0
) -> np.ndarray:
    """Find the latents whose means vary over inputs, or to which the decoder answers.

    Args:
        vae: the model.
        metric: the distortion.
        inputs: batches, spread over the data, each with the model for its rows.
        seed: of the draws for the decoder's answer.

    Returns:
        ``(n,)`` bool; none for a model without a posterior, or one that is not finite.
    """
    if vae.encode is None:
        return np.zeros(vae.latent_size, dtype=bool)
    first: list[tuple[VAE, Tensor]] = []
    means, nats = [], []
    for told, x in inputs:
        with torch.no_grad():
            posterior = encoded(told, x)
            rate = torch.as_tensor(rates_of(posterior, vae.prior))
        if bool(rate.isfinite().all()):  # else the probe names sample and latent
            means.append(posterior.mean.double().cpu().numpy())
            nats.append(rate.double().cpu().numpy())
        if sum(len(part) for _, part in first) < ANSWERED:
            first.append((told, x))
    if not means:
        return np.zeros(vae.latent_size, dtype=bool)
    variance = _variance(np.concatenate(means))
    moving = used_latents(variance, Measured.of(np.zeros(vae.latent_size)))
    if moving.all():
        return moving
    if not moving.any():  # where nothing moves, whatever has a rate at all is looked at
        idle: np.ndarray = np.concatenate(nats).mean(axis=0) > ACTIVE_NATS
        return idle
    told, x = joined(first)
    answer = _answer(told.rows(slice(ANSWERED)), metric, x[:ANSWERED], moving, seed)
    return moving if answer is None else used_latents(variance, answer)


def _variance(mean: np.ndarray) -> Measured:
    """Var(mu_j) with its standard error."""
    squares = (mean - mean.mean(axis=0)) ** 2
    return Measured.of(squares.mean(axis=0), squares.std(axis=0) / np.sqrt(len(mean)))


def _answer(vae: VAE, metric: Metric, x: Tensor, moving: np.ndarray, seed: int) -> Measured | None:
    """The decoder's answer to noise in each latent, as a norm; None where none can be had."""
    try:
        probe = Probe(vae, metric, {"std", "stationarity"}, ProbeOptions(seed=seed))
        batch = probe(np.arange(len(x)), x, vae=vae)
    except IsoprobeError:  # the run itself says what is wrong
        return None
    stationary, room = batch.array("stationarity"), 1 - answer_called_for(batch)
    beta = stationary[:, moving].sum() / room[:, moving].sum()
    if not beta > 0:
        return None
    answers = stationary / beta
    return Measured.of(answers.mean(axis=0), answers.std(axis=0) / np.sqrt(len(x)))
