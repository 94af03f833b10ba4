"""Keep the statistics of a pass that several analyses read, each of them once."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from isoprobe.probe.beta import BetaSums
from isoprobe.probe.prior import answer_called_for, slope_called_for
from isoprobe.probe.widths import factor_of, variance_of
from isoprobe.statistics.moments import Moments
from isoprobe.theory.formulas import decoder_response, entropy_rate, excess
from isoprobe.theory.isometric import ScaleTable
from isoprobe.theory.prior import prior_moment

if TYPE_CHECKING:
    from isoprobe.contracts import Batch
    from isoprobe.statistics.moments import Accumulator


@dataclass(frozen=True)
class PassStatistics:
    """What a pass knows of its samples: mean, deviation and standard error of each quantity.

    What rests on the encoder alone (from ``mean`` to ``entropy``, ``rate`` and ``scales``) may be
    of more rows than the rest.

    Attributes:
        mean: mu_j, ``(n,)``.
        kl: KL_j, ``(n,)``, nats.
        variance: sigma_j^2, ``(n,)``.
        inverse_variance: sigma_j^-2, ``(n,)``.
        second_moment: mu_j^2 + sigma_j^2, ``(n,)``; E[z_j s_j] under another prior.
        slope: mu_j, ``(n,)``; E[s_j] under another prior.
        entropy: -log sigma_j, ``(n,)``, nats.
        stationarity: E[sigma_j eps_j dD/dz_j] over draws, ``(n,)``, units of the metric.
        response: 2 sigma_j^2 g_jj, ``(n,)``, units of the metric; empty without a pullback.
        pullback: g_jj, ``(n,)``, units of the metric; empty without a pullback.
        rate: KL summed over latents, nats.
        distortion: E_z D(x, x_hat), as all that follow in units of the metric.
        distortion_self: D(x, x).
        distortion_transform: D(x, x_check).
        distortion_coding: D(x_check, x_hat) - D(x_check, x_check).
        excess: E_z D(x, x_hat) - D(x, x).
        transform: D(x, x_check) - D(x, x).
        beta: block sums that beta is a ratio of.
        scales: sigma_j as a function of mu_j.
    """

    mean: Moments
    kl: Moments
    variance: Moments
    inverse_variance: Moments
    second_moment: Moments
    slope: Moments
    entropy: Moments
    stationarity: Moments
    response: Moments
    pullback: Moments
    rate: Moments
    distortion: Moments
    distortion_self: Moments
    distortion_transform: Moments
    distortion_coding: Moments
    excess: Moments
    transform: Moments
    beta: BetaSums
    scales: ScaleTable

    @classmethod
    def empty(cls, latents: int) -> PassStatistics:
        """Statistics of no sample yet, of a model of so many latents."""
        names = [f.name for f in fields(cls) if f.name not in {"beta", "scales"}]
        shapes = {name: () if name in _NUMBERS else (latents,) for name in names}
        return cls(
            **{name: Moments(shape) for name, shape in shapes.items()},
            beta=BetaSums(latents),
            scales=ScaleTable(latents),
        )

    def accumulators(self) -> dict[str, Accumulator]:
        """Return every statistic by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def update(self, batch: Batch) -> None:
        """Take in a batch; the pullback's statistics where it has one."""
        self.update_encoded(batch)
        std = batch.array("std")
        self.stationarity.update(batch.array("stationarity"))
        if "pullback" in batch.quantities:
            pullback = batch.array("pullback")
            self.response.update(decoder_response(std, pullback))
            self.pullback.update(pullback)
        self.beta.take(batch)
        self._losses(batch)

    def update_encoded(self, batch: Batch) -> None:
        """Take in what the encoder says of a batch."""
        mean, std, kl = batch.array("mean"), batch.array("std"), batch.array("kl")
        self.mean.update(mean)
        self.kl.update(kl)
        variance = variance_of(batch)
        self.variance.update(variance)
        self.inverse_variance.update(std**-2)
        slope = slope_called_for(batch)
        self.slope.update(slope)
        own = variance if "root" in batch.quantities else answer_called_for(batch)
        self.second_moment.update(prior_moment(mean, slope, own))
        self.entropy.update(entropy_rate(factor_of(batch)))
        self.rate.update(kl.sum(axis=1))
        self.scales.update(mean, std, variance)

    def _losses(self, batch: Batch) -> None:
        own = batch.array("distortion_self")
        whole, moved = batch.array("distortion"), batch.array("distortion_transform")
        self.distortion.update(whole)
        self.distortion_self.update(own)
        self.distortion_transform.update(moved)
        self.distortion_coding.update(batch.array("distortion_coding"))
        self.excess.update(excess(whole, own))
        self.transform.update(excess(moved, own))


_NUMBERS = frozenset(
    {
        "rate",
        "distortion",
        "distortion_self",
        "distortion_transform",
        "distortion_coding",
        "excess",
        "transform",
    }
)
