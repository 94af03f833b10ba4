"""Recover beta under other metrics: which loss, beside a declared beta, the weights agree with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import IsoprobeError
from isoprobe.probe.beta import STATIONARY, BetaSums
from isoprobe.probe.quantities import Probe, ProbeOptions

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric


#: metrics that training losses are made of
PLAUSIBLE = ("bce", "sse", "mse", "gaussian:sigma2=0.5", "gaussian", "l1")


@dataclass(frozen=True)
class Recovered:
    """Beta recovered under one metric.

    Attributes:
        metric: its spec.
        beta: pooled over active dimensions, in units of that metric.
        low: lower end of the 95 % interval.
        high: upper end.
        disagreement: relative standard deviation of beta between active dimensions.
    """

    metric: str
    beta: float
    low: float
    high: float
    disagreement: float


def recover_table(
    vae: VAE, metrics: Iterable[Metric], x: Tensor, active: np.ndarray, seed: int = 0
) -> list[Recovered]:
    """Recover beta by stationarity under each metric (Stationarity, in docs/theory.md).

    Metrics that cannot be evaluated on these inputs are left out.

    Args:
        vae: the model.
        metrics: candidates.
        x: inputs, ``(B, *input_shape)``, which the model is bound to where it takes conditions.
        active: dimensions to pool, ``(n,)`` bool.
        seed: of the posterior draws.

    Returns:
        One row a metric, in the given order.
    """
    rows = []
    for metric in metrics:
        sums = BetaSums(vae.latent_size)
        try:
            probe = Probe(
                vae, metric, {"mean", "std", "stationarity", "gradient"}, ProbeOptions(seed=seed)
            )
            for start in range(0, len(x), probe.plan.batch):
                where = slice(start, start + probe.plan.batch)
                part, index = x[where], np.arange(len(x))[where]
                sums.take(probe(index, part, vae=vae.rows(where)))
        except IsoprobeError:
            continue
        pooled = sums.pooled(STATIONARY, active)
        if pooled is None or not np.isfinite(pooled.value):
            continue
        each = sums.by_latent(STATIONARY).value[active]
        rows.append(
            Recovered(
                metric.spec(),
                float(pooled.value),
                float(pooled.low),
                float(pooled.high),
                float(np.std(each) / abs(np.mean(each))) if len(each) > 1 else 0.0,
            )
        )
    return rows
