"""Hold what the rules look at: measured sizes with their errors, and what they show at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from isoprobe.theory.stated import stated
from isoprobe.theory.tolerances import TOLERANCES

#: so many times the least variance needs no error to be believed
PLAINLY = 5.0


#: name of the reading in hand among those tried
AS_READ = "as read"


def worst_distortion(as_read: float) -> float:
    """Most distortion of another reading that decodes as well as the one in hand.

    Args:
        as_read: mean distortion of the one in hand, in units of the metric; below 0 for densities.

    Returns:
        Distortion, in the same units.
    """
    return as_read + 0.05 * abs(as_read)


@dataclass(frozen=True)
class Measured:
    """Values with their standard errors, ``(n,)`` or scalars as arrays of one."""

    value: np.ndarray
    se: np.ndarray

    @classmethod
    def of(cls, value: object, se: object = 0.0) -> Measured:
        """Take anything array-like."""
        v = np.atleast_1d(np.asarray(value, dtype=float))
        return cls(v, np.broadcast_to(np.asarray(se, dtype=float), v.shape))

    def at(self, chosen: np.ndarray) -> Measured:
        """The values at a mask or at indices."""
        return Measured(self.value[chosen], self.se[chosen])


@dataclass(frozen=True)
class TriedReading:
    """How well one reading of the posterior fits, on the same rows for all.

    Attributes:
        name: how the posterior is read; ``as read`` for the one in hand.
        distortion: mean D(x, Dec(mu)).
        disagreement: mean |beta_j / beta - 1| over used latents, weighted by 1 - sigma_j^2.
        moment: mean |E[mu_j^2 + sigma_j^2] - 1| over used latents.
        beta: pooled over used latents.
    """

    name: str
    distortion: float
    disagreement: float
    moment: float
    beta: float

    @property
    def misfit(self) -> float:
        """Both conditions together; 0 at an optimum."""
        return self.disagreement + self.moment


@dataclass(frozen=True)
class OtherMetric:
    """What another metric shows of the same model and rows.

    Attributes:
        beta: recovered by stationarity, pooled over used latents, in units of that metric.
        ratio: mean distortion of the reconstructions over that of the mean input; NaN where there
            is none.
    """

    beta: float
    ratio: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What the rules look at; per-latent arrays are ``(n,)``, None where it was not measured.

    Attributes:
        samples: rows that were measured.
        own_draws: the inputs are the model's own samples, so that nothing is known of data.
        used: latents that do something, see :func:`used_latents`.
        mixed: latents that only some rows use.
        spatial: latents are maps, on which moments and shifts are not judged.
        rate: E[KL_j], nats.
        rate_most: KL_j of the row that uses the latent most, nats.
        variance: E[sigma_j^2].
        fixed_scale: sigma is the same for every row.
        beta: recovered by stationarity, pooled robustly over used latents.
        beta_each: the same of each latent.
        beta_pullback: recovered by the pullback.
        declared: beta that user or checkpoint state, in units of the metric.
        residual: norm by stationarity at the recovered beta, + sigma_j^2 - 1.
        answer: stationary norm at the recovered beta, the decoder's answer to noise in a latent.
        gain: relative excess of the decoder's response.
        second: E[mu_j^2 + sigma_j^2].
        centre: E[mu_j].
        mixing: share of a decoder column that another latent holds in excess, ``(n, n)``; None
            where latents are maps.
        turn: how far pairs of latents are turned in their plane, as a cosine, ``(n, n)``.
        round_trip: slope of mu_k(Dec(z)) on z_j, ``(n, n)``.
        eigenvalues: of the scaled pullback, mean by rank, ``(n,)``.
        isometric: what these are for an isometric embedding, 1 - sigma^2 in descending order.
        distortion: mean D(x, Dec(mu)) less D(x, x).
        baseline: the same of the mean input.
        loss: mean L_x at the recovered beta, less D(x, x).
        metric: spec of the metric in use.
        families: families of metrics by spec, where they have one.
        metrics: what the plausible metrics show, by spec, where it was asked for.
        expected_trip: its diagonal at an optimum, ``(n,)``.
        code_fit: the slope at posterior draws of the rows in place of draws of the prior, over what
            it should be, ``(n,)``; NaN where that is too little; where it was asked for.
        trials: readings of the posterior tried on the same rows, where they were asked for; the
            one in hand is named ``as read``.
        objective: words for an objective that is known to be no beta-VAE's, else empty.
        capacity: C in nats of a loss gamma |KL - C|, where it is one.
        free_bits: nats of each latent's mean KL that cost nothing, where some do.
        held: latents that free bits hold at their floor: they do something, and are not judged.
        prior: what the prior is where it is not N(0, I), else empty: ``variance`` is then P_j,
            ``second`` E[z_j s_j] and ``centre`` E[s_j], s_j = d(-log p(z))/dz_j.
    """

    samples: int
    own_draws: bool
    used: np.ndarray
    mixed: np.ndarray
    spatial: bool
    rate: np.ndarray
    rate_most: np.ndarray
    variance: np.ndarray
    fixed_scale: bool
    beta: Measured | None
    beta_each: Measured
    beta_pullback: Measured | None
    declared: float | None
    residual: Measured
    answer: Measured
    gain: Measured
    second: Measured
    centre: Measured
    mixing: Measured | None
    turn: Measured | None
    round_trip: np.ndarray | None
    expected_trip: np.ndarray
    eigenvalues: Measured | None
    isometric: np.ndarray | None
    distortion: Measured
    baseline: float | None
    loss: Measured
    metric: str
    families: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, OtherMetric] = field(default_factory=dict)
    code_fit: np.ndarray | None = None
    trials: tuple[TriedReading, ...] = ()
    objective: str = ""
    capacity: float | None = None
    free_bits: float | None = None
    held: np.ndarray | None = None
    prior: str = ""

    @property
    def width(self) -> str:
        """Name of ``variance``."""
        return "P" if self.prior else "sigma^2"

    def degrees(self) -> int:
        """Degrees of freedom of the standard errors."""
        return max(min(self.samples, 64) - 1, 1)

    def deviation(self, name: str) -> Measured:
        """Deviation of a condition from what it should be, at used latents."""
        measured: Measured = getattr(self, name)
        if name == "second":
            measured = Measured(measured.value - 1, measured.se)
        return measured.at(self.used)

    def fit(self) -> np.ndarray:
        """How well the encoder knows the decoder's samples: slope over 1 - sigma_j^2, ``(n,)``."""
        assert self.round_trip is not None  # noqa: S101 - callers have looked
        expected = np.maximum(self.expected_trip, 0.05)
        fit: np.ndarray = np.diag(self.round_trip) / expected
        return fit

    def strong(self) -> np.ndarray:
        """Used latents whose posterior is narrow enough for gains and slopes to be judged."""
        room = (
            np.minimum(1 - self.variance, self.expected_trip)
            if self.round_trip is not None
            else 1 - self.variance
        )
        strong: np.ndarray = self.used & (room > TOLERANCES["strong"].value)
        return strong

    def uneasy(self, *names: str) -> bool:
        """Whether one is off by half of its tolerance: too little to fail, too much to trust."""
        if self.own_draws or self.spatial:
            return False
        for name in names:
            mask = self.used if name != "gain" else self.strong()
            measured: Measured = getattr(self, name).at(mask)
            value = measured.value - (1.0 if name == "second" else 0.0)
            if np.any(np.abs(value) - 2 * measured.se > TOLERANCES[name].value / 2):
                return True
        return False


@stated("Verdict")
def used_latents(
    variance: Measured, answer: Measured, *, least: float = 0.01, beyond: float = 3.0
) -> np.ndarray:
    """Find the latents that do something: their means vary, or the decoder answers to them.

    Args:
        variance: Var(mu_j), ``(n,)``.
        answer: the decoder's answer, the stationary norm or 2 sigma_j^2 g_jj / beta, ``(n,)``.
        least: what either must exceed.
        beyond: by how many standard errors.

    Returns:
        ``(n,)`` bool.
    """
    # means that differ plainly between a few rows already are no error of a constant
    moves = (variance.value - beyond * variance.se > least) | (variance.value > PLAINLY * least)
    used: np.ndarray = moves | (answer.value - beyond * answer.se > least)
    return used
