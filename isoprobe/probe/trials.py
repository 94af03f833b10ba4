"""Try a model on a few rows in ways that a run does not: its own samples, other readings.

A run measures a model as it was read, on the data that it was given. When something does not fit,
what is at fault shows only against alternatives: does the encoder know the decoder's own samples;
does another customary reading of the posterior head fit where this one does not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import softplus

from isoprobe.derivatives.memory import plan
from isoprobe.derivatives.metric_tensor import output_metric
from isoprobe.derivatives.quick_convolutions import quick_for
from isoprobe.derivatives.watched import watchable
from isoprobe.errors import IsoprobeError
from isoprobe.probe.selfcheck import mean_input_distortion
from isoprobe.statistics.draws import normal
from isoprobe.theory.conditions import round_trip
from isoprobe.theory.judge import AS_READ, TriedReading, worst_distortion
from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric, Posterior
    from isoprobe.derivatives.metric_tensor import OutputMetric

#: draws that go through decoder and encoder, at least
DRAWS = 512
#: beyond this many latents nothing is said of own samples
PAIRED_LIMIT = 256
_BATCH = 128
#: share of the largest variance below which a principal component is rounding
_RANK = 1e-12
#: bytes that rows on their way forwards and backwards may take
_MEMORY = 1 << 28
#: below this a slope on posterior draws is too weak to be judged
LEAST_SLOPE = 0.3


@dataclass(frozen=True)
class OwnSamples:
    """How a model's own samples come back through its encoder.

    Attributes:
        slopes: of mu_k(Dec(z)) on z_j, ``(n, n)``, j first.
        expected: the diagonal of a model at its optimum, 1 - E[sigma_j(Dec(z))^2], ``(n,)``.
    """

    slopes: np.ndarray
    expected: np.ndarray


@stated("Verdict")
def own_samples(vae: VAE, seed: int = 0) -> OwnSamples | None:
    """Decode draws of the prior and encode what comes out.

    Args:
        vae: the model.
        seed: of the draws.

    Returns:
        The slopes; None for a model without an encoder, with very many latents, a prior of its
        own or correlated posteriors, or whose encoder gives no numbers for its own samples.
    """
    n = vae.latent_size
    told = vae.conditional is not None or vae.prior is not None or vae.correlated
    if vae.encode is None or told or n > PAIRED_LIMIT:
        return None
    count = max(DRAWS, 4 * n)
    z = normal(seed, "round trip", np.arange(count), n)
    means, variances = [], []
    with torch.no_grad(), quick_for(vae.module):
        for start in range(0, count, _BATCH):
            part = torch.as_tensor(z[start : start + _BATCH], dtype=vae.dtype, device=vae.device)
            posterior = vae.encode(vae.decode(part))
            means.append(posterior.mean.double().cpu().numpy())
            variances.append(posterior.std.double().square().cpu().numpy())
    mean, variance = np.concatenate(means), np.concatenate(variances)
    if not (np.isfinite(mean).all() and np.isfinite(variance).all()):
        return None
    return OwnSamples(round_trip(z, mean), 1 - variance.mean(axis=0))


@stated("Verdict")
def code_fit(vae: VAE, x: Tensor, seed: int = 0) -> np.ndarray | None:
    """Decode draws of the posterior, encode what comes out, and compare with what should come out.

    The slope of mu_j(Dec(z)) on z_j is 1 - E[sigma_j^2] / Var(z_j) at an optimum, wherever the
    codes lie: another prior or other inputs change nothing about it.

    Args:
        vae: the model, with an encoder.
        x: inputs, ``(N, *input_shape)``.
        seed: of the draws.

    Returns:
        The slope over that, ``(n,)``; NaN where it should be below :data:`LEAST_SLOPE`. None where
        the encoder gives no numbers or correlated posteriors, or there are too few rows for the
        slopes.
    """
    n = vae.latent_size
    if vae.encode is None or vae.correlated or len(x) < 4 * n:
        return None
    with torch.no_grad():
        posterior = vae.encode(x)
        noise = normal(seed, "own codes", np.arange(len(x)), n)
        z = posterior.mean + posterior.std * torch.as_tensor(noise).to(posterior.mean)
        again = vae.encode(vae.decode(z))
    codes, mean, std = (part.double().cpu().numpy() for part in (z, again.mean, again.std))
    if not all(np.isfinite(part).all() for part in (codes, mean, std)):
        return None
    expected = 1 - (std**2).mean(axis=0) / codes.var(axis=0)
    fit: np.ndarray = np.diag(round_trip(codes, mean)) / expected
    return np.where(expected < LEAST_SLOPE, np.nan, fit)


def reconstruction_ratio(vae: VAE, metric: Metric, x: Tensor) -> float:
    """Mean distortion of the reconstructions over that of the mean input, each less D(x, x).

    Args:
        vae: the model, with an encoder.
        metric: the distortion.
        x: inputs, ``(N, *input_shape)``.

    Returns:
        The ratio; NaN where the mean input has no distortion.
    """
    least = mean_input_distortion(metric, x)
    if vae.encode is None or least is None:
        return float("nan")
    view = output_metric(metric, vae)
    with torch.no_grad():
        found = view.distortion(x, view.decode(vae.encode(x).mean)).double().mean()
        own = metric.own_distortion(x).double().mean()
    room = least - float(own)
    return float(found - own) / room if room > 0 else float("nan")


def channels(model: VAE) -> int:
    """Count the channels that a convolution takes first of the latents.

    Args:
        model: whose decoder is watched.

    Returns:
        How many; 0 where the first layer is dense, or is not to be seen.
    """
    vae = model.anywhere()
    if len(vae.latent_shape) > 1:
        return vae.latent_shape[0]
    if vae.module is None:
        return 0
    met: list[torch.nn.Module] = []
    parts = watchable(vae.module).values()
    layers = [m for m in parts if next(m.parameters(recurse=False), None) is not None]
    hooks = [m.register_forward_pre_hook(lambda m, _: met.append(m)) for m in layers]
    try:
        with torch.no_grad():
            vae.decode(torch.zeros(1, vae.latent_size, dtype=vae.dtype, device=vae.device))
    finally:
        for hook in hooks:
            hook.remove()
    first = met[0] if met else None
    if not isinstance(first, torch.nn.modules.conv._ConvNd):
        return 0
    return first.in_channels if first.in_channels < vae.latent_size else 0


@stated("Verdict")
def pca_distortion(metric: Metric, x: Tensor, components: int) -> float | None:
    """Distortion of a principal component analysis with as many components as latents.

    Half of the rows are fitted, the others judged; values outside the metric's range are clipped.

    Args:
        metric: the distortion.
        x: inputs, ``(N, *input_shape)``.
        components: how many.

    Returns:
        Mean distortion; None where there are too few rows for it.
    """
    if metric.likelihood:
        return None
    flat = x.flatten(1).double()
    fitted, judged = flat[::2], flat[1::2]
    if len(fitted) <= 2 * components:
        return None
    centre = fitted.mean(0)
    moved = fitted - centre
    # rows are fewer than numbers in an image, whose own products would take seconds
    values, weights = torch.linalg.eigh(moved @ moved.T)
    weights = weights[:, values > _RANK * values[-1]]  # beyond the rank there are no directions
    kept = torch.nn.functional.normalize(weights[:, -components:].T @ moved)
    image = centre + (judged - centre) @ kept.T @ kept
    if metric.input_range is not None:
        image = image.clamp(*metric.input_range)
    with torch.no_grad():
        d = metric.distortion(x[1::2], image.to(x.dtype).reshape(x[1::2].shape))
    return float(d.double().mean())


Map = Callable[["Tensor", "Tensor"], "tuple[Tensor, Tensor]"]


def readings() -> Mapping[str, Map]:
    """Other customary readings of a posterior, as maps of the (mu, sigma) in hand."""
    return {
        "the scale head is a log variance": lambda m, s: (m, s.sqrt()),
        "the scale head is a log deviation": lambda m, s: (m, s.square()),
        "the deviation is a softplus of the scale head (read as a log variance)": (
            lambda m, s: (m, softplus(2 * s.log()))
        ),
        "the deviation is a softplus of the scale head (read as a log deviation)": (
            lambda m, s: (m, softplus(s.log()))
        ),
        "the scale head is a log variance (read through softplus)": (
            lambda m, s: (m, (0.5 * _softplus_inverse(s)).exp())
        ),
        "the scale head is a log deviation (read through softplus)": (
            lambda m, s: (m, _softplus_inverse(s).exp())
        ),
        "mean and log variance are exchanged": lambda m, s: (2 * s.log(), (0.5 * m).exp()),
        "mean and log deviation are exchanged": lambda m, s: (s.log(), m.exp()),
        "mean and log variance are interleaved": _interleaved,
        "mean and log variance are two halves": _halved,
    }


def _softplus_inverse(s: Tensor) -> Tensor:
    return s + torch.log(-torch.expm1(-s))


def _interleaved(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    head = torch.cat([mean, 2 * std.log()], dim=1)
    return head[:, 0::2], (0.5 * head[:, 1::2]).exp()


def _halved(mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    head = torch.stack([mean, 2 * std.log()], dim=2).flatten(1)
    n = mean.shape[1]
    return head[:, :n], (0.5 * head[:, n:]).exp()


def try_readings(
    vae: VAE,
    metric: Metric,
    x: Tensor,
    seed: int = 0,
    worst_moment: Callable[[TriedReading | None], float] = lambda ours: math.inf,
) -> list[TriedReading]:
    """Try the reading in hand, which comes first, and every other one.

    Args:
        vae: the model.
        metric: the distortion.
        x: inputs, ``(N, *input_shape)``.
        seed: of the posterior draws.
        worst_moment: from the trial of the reading in hand, how far another one's second moments
            may be off for it to be walked.

    Returns:
        A trial, with distortions less D(x, x), for each reading that gives finite numbers, is not
        too far off by its moments and does not decode clearly worse than the one in hand; none
        under a prior of the model's own, to whose moments readings are held, or with correlated
        posteriors, which are no head's.
    """
    if vae.encode is None or vae.prior is not None or vae.correlated:
        return []
    with torch.no_grad():
        posterior: Posterior = vae.encode(x)
    mean, std = posterior.mean, posterior.std
    anywhere = vae.anywhere().rows(slice(0, 1))  # bound rows have conditions of their own
    walk = plan(anywhere, anywhere.decode, _MEMORY).walk
    quick = partial(quick_for, vae.module)
    rows = _Rows(output_metric(metric, vae), x, metric.own_distortion(x), walk, seed, quick)
    as_read = rows.decoded(mean)
    ours = rows.tried(AS_READ, mean, std, as_read)
    found = [ours]
    most = worst_moment(ours)
    for name, read in readings().items():
        m, s = read(mean, std)
        # moments cost nothing, decoding some, slopes ten times as much; no rule looks at the rest
        if _moment(m, s) > most:
            continue
        distortion = as_read if m is mean else rows.decoded(m)
        if not distortion > worst_distortion(as_read):
            found.append(rows.tried(name, m, s, distortion))
    return [trial for trial in found if trial is not None]


def _used(mean: Tensor) -> Tensor:
    """Latents whose means move, ``(n,)`` bool."""
    return mean.double().var(0) > 0.01


def _moment(mean: Tensor, std: Tensor) -> float:
    """Mean |E[mu_j^2 + sigma_j^2] - 1| over used latents; NaN where there are none."""
    second = (mean.double().square() + std.double().square()).mean(0)
    return float((second[_used(mean)] - 1).abs().mean())


@dataclass(frozen=True)
class _Rows:
    """Rows that readings are tried on.

    Attributes:
        view: decoder and distortion, for these rows.
        x: inputs, ``(N, *input_shape)``.
        own: D(x, x), ``(N,)``.
        walk: rows that go forwards and backwards at once.
        seed: of the posterior draws.
        quick: enters how convolutions are taken.
    """

    view: OutputMetric
    x: Tensor
    own: Tensor
    walk: int
    seed: int
    quick: Callable[[], AbstractContextManager[Any]]

    def _blocks(self) -> Iterator[tuple[slice, OutputMetric]]:
        for start in range(0, len(self.x), self.walk):
            at = slice(start, start + self.walk)
            yield at, self.view.rows(at)

    def decoded(self, mean: Tensor) -> float:
        """Mean distortion, less D(x, x), of what means decode to; NaN where that fails."""
        try:
            with torch.no_grad(), self.quick():
                values = [v.distortion(self.x[at], v.decode(mean[at])) for at, v in self._blocks()]
        except (IsoprobeError, RuntimeError):
            return math.nan
        return float((torch.cat(values) - self.own).double().mean())

    def tried(self, name: str, mean: Tensor, std: Tensor, distortion: float) -> TriedReading | None:
        """Measure one reading; None where it gives numbers that are none."""
        if math.isnan(distortion) or not bool((std.isfinite() & (std > 0)).all()):
            return None
        noise = normal(self.seed, "readings", np.arange(len(self.x)), mean.shape[1])
        shifts = std * torch.as_tensor(noise, dtype=mean.dtype, device=mean.device)
        try:
            turned = 0.5 * (self._slopes(mean + shifts) - self._slopes(mean - shifts))
        except (IsoprobeError, RuntimeError):
            return None
        answer = (shifts * turned).double().mean(0)
        variance = std.double().square().mean(0)
        fitted = fitted_beta(answer, 1 - variance, _used(mean))
        if fitted is None:
            return None
        beta, off = fitted
        return TriedReading(name, distortion, off, _moment(mean, std), beta)

    def _slopes(self, codes: Tensor) -> Tensor:
        """Gradients of the distortion at codes, ``(N, n)``."""
        slopes = []
        for at, view in self._blocks():
            z = codes[at].clone().requires_grad_()
            with torch.enable_grad(), self.quick():
                value = view.distortion(self.x[at], view.decode(z)).sum()
                slopes.append(torch.autograd.grad(value, z)[0])
        return torch.cat(slopes)


def fitted_beta(answer: Tensor, room: Tensor, used: Tensor) -> tuple[float, float] | None:
    """Fit one beta to all latents: E[sigma_j eps_j dD/dz_j] = beta (1 - E sigma_j^2) at an optimum.

    Args:
        answer: left side, ``(n,)``.
        room: 1 - E sigma_j^2, ``(n,)``.
        used: latents that are fitted, ``(n,)`` bool.

    Returns:
        Beta, and the mean departure from it relative to the room; None where beta is not positive.
    """
    answer, room = answer[used], room[used]
    if not bool(used.any()) or not bool(answer.isfinite().all()) or not float(room.sum()) > 0:
        return None
    beta = float(answer.sum() / room.sum())
    if not beta > 0:
        return None
    return beta, float((answer / beta - room).abs().sum() / room.abs().sum())
