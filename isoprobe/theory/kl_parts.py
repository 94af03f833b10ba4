"""Take the KL term apart: information about x, total correlation, distance from the prior.

With a diagonal posterior, KL_j = I(x; z_j) + KL(q(z_j) || p) for each latent and
E KL = I(x; z) + TC + sum_j KL(q(z_j) || p). The parts of each latent come from its mixture on a
grid and are sharp. Of the joint only I + TC = sum_j I(x; z_j) is: how it splits is known within an
interval, since no certified lower bound on I exceeds log N (McAllester and Stratos 2020).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from isoprobe.theory.joint_information import Bound, Joint, joint_information
from isoprobe.theory.mixtures import log_where_positive, mixture, standard_error
from isoprobe.theory.stated import stated

#: variance of mu_j above which a unit counts as active (Burda et al. 2016)
ACTIVE_VARIANCE = 0.01
#: latents beyond which, and rows a latent below which, the joint is not estimated
JOINT_LATENTS, JOINT_ROWS = 512, 10
#: mean own share up to which one number is given for I(x; z), and from which it is saturated
POINT_SHARE, SATURATED_SHARE = 0.05, 0.5

State = Literal["point", "interval", "saturated", "not estimated"]


@dataclass(frozen=True)
class LatentParts:
    """The KL term of each latent in two parts, each a mean over N rows.

    Attributes:
        information: I(x; z_j), ``(n,)`` nats.
        information_se: its standard error.
        marginal_kl: KL(q(z_j) || p), ``(n,)`` nats.
        marginal_kl_se: its standard error.
        rows: sum_j I and sum_j KL(q || p) of each row, ``(N, 2)``: their means are the sums over
            latents, their standard deviation is the sums' error.
        bias: by how much N rows raise KL(q_j || p) and lower I(x; z_j) on average, ``(n,)``:
            (mean own share - 1/N) / 2 to first order, in effect a fifth more; twice that, the
            distance to the value with every own row left out, widens the sums' intervals.
        widened: rows of each latent too narrow for the grid, ``(n,)``.
        active: Var_n mu_nj > 0.01, ``(n,)`` bool.
    """

    information: np.ndarray
    information_se: np.ndarray
    marginal_kl: np.ndarray
    marginal_kl_se: np.ndarray
    rows: np.ndarray
    bias: np.ndarray
    widened: np.ndarray
    active: np.ndarray


@dataclass(frozen=True)
class KLParts:
    """The whole KL term in parts, in nats.

    Attributes:
        latents: the sharp parts.
        kl: E sum_j KL_j.
        information_sum: sum_j I(x; z_j) = I(x; z) + TC.
        marginal_sum: sum_j KL(q(z_j) || p).
        joint: bounds of I(x; z); None where it is not estimated.
    """

    latents: LatentParts
    kl: Bound
    information_sum: Bound
    marginal_sum: Bound
    joint: Joint | None

    @property
    def state(self) -> State:
        """How much can be said of I(x; z), by the mean share of a row in its own density."""
        if self.joint is None:
            return "not estimated"
        if self.joint.own_share > SATURATED_SHARE:
            return "saturated"
        return "interval" if self.joint.own_share > POINT_SHARE else "point"

    @property
    def information(self) -> tuple[float, float]:
        """I(x; z) lies in this interval, two standard errors included."""
        top = self.information_sum.above
        if self.joint is None:
            return 0.0, top
        upper = min(top, *(bound.above for bound in self.joint.upper))
        return max(0.0, self.joint.lower.below), max(upper, self.joint.lower.below, 0.0)

    @property
    def total_correlation(self) -> tuple[float, float]:
        """TC lies in this interval, two standard errors included."""
        if self.joint is None:
            return 0.0, self.information_sum.above
        total = self.latents.rows[:, 0]
        high = _difference(self.information_sum, total, self.joint.lower).above
        lows = (_difference(self.information_sum, total, b).below for b in self.joint.upper)
        low = max(0.0, *lows)
        return low, max(high, low)


@stated("Parts of the rate (beyond)")
def kl_parts(mean: np.ndarray, std: np.ndarray, seed: int = 0) -> KLParts:
    """Take apart the KL term of N posteriors.

    Args:
        mean: mu, ``(N, n)``.
        std: sigma, ``(N, n)``, positive.
        seed: of the one draw a row that the joint needs.

    Returns:
        All parts; the rows are taken as the data. Compare models at equal N.
    """
    mean, std = np.asarray(mean, dtype=float), np.asarray(std, dtype=float)
    latents = latent_parts(mean, std)
    estimable = std.shape[1] <= JOINT_LATENTS and len(std) >= JOINT_ROWS * std.shape[1]
    return KLParts(
        latents,
        _mean_of(latents.rows.sum(axis=1), "KL"),
        _mean_of(latents.rows[:, 0], "sum of I", -2 * latents.bias.sum()),
        _mean_of(latents.rows[:, 1], "sum of KL(q_j || p)", 2 * latents.bias.sum()),
        joint_information(mean, std, seed) if estimable else None,
    )


def latent_parts(mean: np.ndarray, std: np.ndarray) -> LatentParts:
    """The KL term of each latent in two parts.

    Args:
        mean: mu, ``(N, n)``.
        std: sigma, ``(N, n)``, positive.

    Returns:
        I(x; z_j) = mean_n (KL_nj - e_nj) and KL(q_j || p) = mean_n e_nj with
        e_nj = int q(z | x_n) log(q_j / p) dz.
    """
    count, size = mean.shape
    both = np.empty((2, size))
    errors = np.empty((2, size))
    widened, bias = np.empty(size, dtype=np.int64), np.empty(size)
    rows = np.zeros((count, 2))
    for j in range(size):
        code = mixture(mean[:, j], std[:, j])
        total = code.mixed()
        cross = code.expected(log_where_positive(total / count) - code.log_prior)[:, 0]
        bias[j] = 0.5 * (code.own_share(total[0]).mean() - 1 / count)
        variance = code.std**2
        kl = 0.5 * (code.mean**2 + variance - np.log(variance) - 1)
        parts = np.stack([kl - cross, cross], axis=1)
        both[:, j], errors[:, j] = parts.mean(axis=0), standard_error(parts)
        widened[j] = code.widened
        rows += parts
    active = mean.var(axis=0) > ACTIVE_VARIANCE
    return LatentParts(both[0], errors[0], both[1], errors[1], rows, bias, widened, active)


def describe(parts: KLParts) -> str:
    """All of it in one line.

    Args:
        parts: of one model.

    Returns:
        KL as a sum, then what is known of I and TC.
    """
    whole, marginals = parts.information_sum, parts.marginal_sum
    head = (
        f"KL {parts.kl.value:.2f} = I + TC {whole.value:.2f} (±{whole.se:.2f})"
        f" + marginals {marginals.value:.3f} (±{marginals.se:.3f}) nats"
    )
    (low, high), (tc_low, tc_high) = parts.information, parts.total_correlation
    if parts.joint is None:
        return f"{head}; I and TC apart: not estimated ({len(parts.latents.rows)} rows)"
    between = f"I between {low:.2f} and {high:.2f}"
    if parts.state == "point":
        between = f"I {parts.joint.middle:.2f} ({low:.2f} to {high:.2f})"
    if parts.state == "saturated":
        between += f" (saturated: log N = {math.log(len(parts.latents.rows)):.2f})"
    return f"{head}; {between}, TC between {tc_low:.2f} and {tc_high:.2f}"


def _mean_of(rows: np.ndarray, name: str, bias: float = 0.0) -> Bound:
    mean = float(rows.mean())
    return Bound(name, mean, float(standard_error(rows)), rows - mean, float(bias))


def _difference(total: Bound, rows: np.ndarray, bound: Bound) -> Bound:
    """sum_j I - bound, with the error of the difference where both speak of the same rows."""
    if bound.influence is None:
        error = math.hypot(total.se, bound.se)
    else:
        error = float(standard_error(rows - rows.mean() - bound.influence))
    return Bound("TC", total.value - bound.value, error, bias=total.bias)
