"""Give rates, losses, and what they must equal: Eq. 2, 3, 8, 9, 12, 54, 62, 92, the certificate."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from isoprobe.theory.either import library
from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    from isoprobe.theory.either import Array, Real

NATS_TO_BITS = 1 / math.log(2)


@stated("Setting", "Eq. 2")
def kl_divergence(mean: Array, std: Array, log_variance: Array | None = None) -> Array:
    """KL of each posterior dimension from the prior N(0, 1).

    Args:
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``.
        log_variance: log sigma^2 where it is at hand, as it is in training; else it is taken.

    Returns:
        ``(B, n)`` in nats (Eq. 2).

    Examples:
        >>> import torch
        >>> kl_divergence(torch.zeros(1, 2), torch.ones(1, 2))  # a posterior that is the prior
        tensor([[0., 0.]])
    """
    variance = std**2
    if log_variance is None:
        log_variance = library(variance).log(variance)
    divergence: Array = 0.5 * (mean**2 + variance - log_variance - 1)
    return divergence


@stated("Setting", "Eq. 2")
def rate(kl: Array) -> Array:
    """Rate of each sample: KL_j summed over latents, ``(..., n) -> (...)``, nats (Eq. 2)."""
    total: Array = kl.sum(-1)
    return total


@stated("Setting", "Eq. 2")
def bits(nats: Real) -> Real:
    """Turn nats into bits; a KL of Eq. 2 stays one.

    Returns:
        Of the same shape.

    Examples:
        >>> import math
        >>> round(bits(math.log(8)), 12)
        3.0
    """
    number: Real = nats * NATS_TO_BITS
    return number


@stated("Setting", "Eq. 3")
def weighted_rate(kl: Real, beta: float) -> Real:
    """Part of each latent in L_x: beta KL_j in units of the metric (Eq. 3)."""
    part: Real = beta * kl
    return part


@stated("Anomaly score", "Eq. 3")
def objective(distortion: Array, weighted: Array, transform: Array | float = 0.0) -> Array:
    """L_x of each sample, the objective of training (Eq. 3) and the anomaly score (Sec. 5.3).

    Args:
        distortion: E_z D(x, x_hat), or E_z D(x_check, x_hat) for the decomposed loss, ``(B,)``.
        weighted: beta KL_j, ``(B, n)``.
        transform: w D(x, x_check) of the decomposed loss, ``(B,)``; 0 without.

    Returns:
        ``(B,)`` in units of the metric.
    """
    loss: Array = distortion + transform + rate(weighted)
    return loss


@stated("Anomaly score", "App. A.6")
def two_points(above: Real, below: Real) -> Real:
    """E_z D by the mean of D at z = mu + sigma and at z = mu - sigma (App. A.6)."""
    mean: Real = 0.5 * (above + below)
    return mean


@stated("Rate and distortion")
def expected_distortion(above: Array, below: Array, surplus: Array | float) -> Array:
    """E_z D by an antithetic pair of draws, less what they add by chance to second order.

    Args:
        above: D at z = mu + u, u from N(0, diag sigma^2), any shape.
        below: D at z = mu - u, the same shape.
        surplus: u' J'GJ u less its mean, or 0, which is without bias as well.

    Returns:
        Values whose mean over draws is E_z D.
    """
    mean: Array = 0.5 * (above + below) - surplus
    return mean


@stated("Rate and distortion")
def surplus_of_gram(shifts: Any, std: Any, gram: Any) -> Any:
    """What draws add to D beyond the mean, to second order: u' J'GJ u - sum_j sigma_j^2 g_jj.

    Args:
        shifts: u, ``(B, pairs, n)``.
        std: sigma, ``(B, n)``.
        gram: J'GJ, ``(B, n, n)``.

    Returns:
        ``(B, pairs)``, of mean 0 over draws.
    """
    mean = (std**2 * gram.diagonal(0, -2, -1)).sum(-1)
    return ((shifts @ gram) * shifts).sum(-1) - mean[:, None]


@stated("Rate and distortion")
def surplus_of_diagonal(shifts: Any, std: Any, pullback: Any) -> Any:
    """The same from the diagonal alone: sum_j (u_j^2 - sigma_j^2) g_jj.

    Args:
        shifts: u, ``(B, pairs, n)``.
        std: sigma, ``(B, n)``.
        pullback: g_jj, ``(B, n)``.

    Returns:
        ``(B, pairs)``, of mean 0 over draws.
    """
    return ((shifts**2 - (std**2)[:, None]) * pullback[:, None]).sum(-1)


@stated("Anomaly score")
def fixed_distortion(distortions: Array) -> Array:
    """E_z D by the mean over draws that are the same for every row, ``(K, B)`` to ``(B,)``."""
    mean: Array = distortions.mean(0)
    return mean


@stated("Rate and distortion", "Eq. 9")
def excess(distortion: Real, least: Real) -> Real:
    """Return what a distortion adds to D(x, x), which is not zero for BCE and its like.

    D(x, x_check) - D(x, x) is the transform loss, D(x_check, x_hat) - D(x_check, x_check) the
    coding loss, and their sum E D - D(x, x) (Eq. 9).
    """
    added: Real = distortion - least
    return added


@stated("Rate and distortion", "Eq. 12")
def loss_ratio(transform: float, coding: float) -> float:
    """Transform loss over coding loss (Eq. 12); NaN for a model that codes nothing."""
    return float(transform / coding) if coding else float("nan")


@stated("Rate and distortion", "Eq. 54, 62")
def expected_coding_loss(variance: Array, active: Array, beta: float) -> Array:
    """Coding loss at an optimum, (beta/2) sum_j (1 - E[sigma_j^2]) over active latents.

    Exact for a linear decoder with a squared error, else to second order; n beta / 2 is its limit
    for small sigma (Eq. 54, 62).

    Args:
        variance: E[sigma_j^2], ``(n,)``.
        active: which latents count, ``(n,)`` bool.
        beta: KL weight.

    Returns:
        A number in units of the metric.
    """
    loss: Array = beta / 2 * (1 - variance)[active].sum()
    return loss


@stated("Rate and distortion", "Eq. 8")
def mutual_information(kl: Array, active: Array) -> Array:
    """I(X; X_hat) by Eq. 8 with the aggregate posterior taken as the prior: E KL of the active.

    With H(Y) under it and p(y) = p(z) dz/dy, H(Y) - (n/2) log(pi e beta) is E KL.

    Args:
        kl: E[KL_j], ``(n,)``, nats.
        active: which latents count, ``(n,)`` bool.

    Returns:
        A number in nats.
    """
    information: Array = kl[active].sum()
    return information


@stated("Rate and distortion", "App. B.1")
def elbo(distortion: Real, rate: Real, beta: float) -> Real:
    """Evidence lower bound less its constant, -(E D - D(x, x)) / beta - E KL, nats (App. B.1)."""
    bound: Real = -distortion / beta - rate
    return bound


# ------------------------------------------------------------------ the certificate


@stated("Rate and distortion")
def second_moment(mean: Real, std: Real) -> Real:
    """Return mu_j^2 + sigma_j^2, whose mean is 1 at an optimum that can rescale each latent."""
    moment: Real = mean**2 + std**2
    return moment


@stated("Rate and distortion")
def entropy_rate(std: Array) -> Array:
    """Return -log sigma_j, whose mean is E[KL_j] where E[mu_j^2 + sigma_j^2] = 1, nats."""
    entropy: Array = -library(std).log(std)
    return entropy


@stated("Rate and distortion")
def certificate_gap(kl: Array, entropy: Array, active: Array) -> Array:
    """E KL less its entropy form over active latents: 0 when the certificate holds.

    It is half of the sum of E[mu_j^2 + sigma_j^2] - 1: positive where latents lie too far out.

    Args:
        kl: E[KL_j], ``(n,)``, nats.
        entropy: -E[log sigma_j], ``(n,)``, nats.
        active: which latents count, ``(n,)`` bool.

    Returns:
        A number in nats.
    """
    gap: Array = (kl - entropy)[active].sum()
    return gap


# ------------------------------------------------------------------ water-filling


@stated("Rate and distortion", "Eq. 92")
def water_level(beta: Real) -> Real:
    """Distortion of each active dimension, beta / 2, the level d of reverse water-filling (Eq. 92).

    Returns:
        In units of the metric.

    Examples:
        >>> water_level(0.5)
        0.25
    """
    level: Real = beta / 2
    return level


@stated("Rate and distortion", "Eq. 92")
def stays_active(spectrum: Array, beta: Real) -> Array:
    """Whether a dimension of variance ``spectrum`` stays above the water level (Eq. 92)."""
    stays: Any = spectrum > water_level(beta)
    found: Array = stays
    return found


@stated("Rate and distortion", "Eq. 92")
def water_filling_rate(spectrum: Array, beta: Real) -> Array:
    """Rate of each dimension, max(log(Var(y_j) / (beta/2)) / 2, 0), nats (Eq. 92).

    Args:
        spectrum: Var(y_j), ``(n,)``, in units of the metric.
        beta: KL weight, or several of them, ``(K, 1)``.

    Returns:
        ``(n,)`` or ``(K, n)``.
    """
    found, level = library(spectrum), water_level(beta)
    kept = found.where(stays_active(spectrum, beta), spectrum, level)
    rates: Array = 0.5 * found.log(kept / level)
    return rates


@stated("Rate and distortion", "Eq. 92")
def water_filling_distortion(spectrum: Array, beta: Array) -> Array:
    """Distortion of each dimension, min(beta/2, Var(y_j)), in units of the metric (Eq. 92)."""
    left: Array = library(spectrum).minimum(spectrum, water_level(beta))
    return left


@stated("Rate and distortion", "Eq. 92")
def collapse_beta(spectrum: Real) -> Real:
    """Beta above which a dimension is predicted to collapse: 2 Var(y_j) (Eq. 92)."""
    beta: Real = 2 * spectrum
    return beta


@stated("Isometry")
def ideal_rate(pullback: Array, beta: float) -> Array:
    """KL_j of an encoder that fills the prior with the sigma its decoder calls for.

    Args:
        pullback: g_jj, ``(..., n)``.
        beta: KL weight.

    Returns:
        -log sigma_j with sigma_j^2 = 1 / (1 + 2 g_jj / beta), nats.
    """
    rate: Array = 0.5 * library(pullback).log1p(2 * pullback / beta)
    return rate
