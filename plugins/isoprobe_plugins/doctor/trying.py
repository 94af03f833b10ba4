"""Measure how well a reading explains data: what it reconstructs, and how still its loss lies.

A network was trained until the gradient of its loss was about zero in every weight. That holds for
the right reading alone: a wrong activation, head or loss leaves a slope. For each weight w of the
encoder and decoder the gradient of E D + beta KL is taken, beta being the one number that makes
it least, and the sum of |gradient| |w| over tensors is held against what rows by themselves give.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.errors import IsoprobeError, OptionError
from isoprobe.statistics.draws import normal
from isoprobe.theory.formulas import kl_divergence

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from isoprobe.contracts import Metric, Networks

#: blocks of rows whose gradients tell the error of their mean
BLOCKS = 8
#: the same where readings are only compared
FEW = 4
#: antithetic pairs of posterior draws
PAIRS = 2
#: the same where readings are as good as each other
MANY = 24


@dataclass(frozen=True)
class Tried:
    """What data says of a reading under a metric.

    Attributes:
        slope: sum over tensors of |gradient| |w| of the loss, relative to what a block of rows
            gives; near 0 for what was trained.
        explained: share of the data's variance that reconstructions at draws explain.
        at_mean: the same of reconstructions at the mean.
        distortion: E D at draws.
        kl: in nats a sample.
        beta: by the stationarity of sigma, E[sigma eps dD/dz] = beta (1 - E sigma^2).
        blocks: slope without each block of rows, for its error; empty where not asked for.
    """

    slope: float
    explained: float
    at_mean: float
    distortion: float
    kl: float
    beta: float
    blocks: tuple[float, ...] = ()


def attempt(
    networks: Networks,
    output: str,
    metrics: Sequence[Metric],
    x: Tensor,
    c: tuple[Tensor, ...] = (),
    *,
    errors: bool,
    pairs: int = PAIRS,
) -> dict[str, Tried]:
    """Try a reading under several metrics.

    Args:
        networks: encoder ``x -> (mean, std)`` and decoder ``z -> raw``, weights in place, the
            decoder without its squeezing.
        output: what squeezes it: ``sigmoid``, ``tanh`` or ``linear``.
        metrics: that may be the loss'.
        x: inputs, ``(B, *input_shape)``.
        c: what the networks are told of them, as :func:`told` gives it.
        errors: leave each block of rows out in turn as well.
        pairs: antithetic pairs of draws.

    Returns:
        What was found, by the metric's spec; those left out under which it gives no numbers.
    """
    weights = _weights(networks)
    for weight in weights:
        weight.requires_grad = True
    blocks = BLOCKS if errors else FEW
    count = max(len(x) // blocks, 1)
    sums: dict[str, list[_Sums]] = {}
    try:
        for block in range(min(blocks, len(x))):
            rows = slice(block * count, (block + 1) * count)
            part = (x[rows], *(each[rows] for each in c))
            if not _block(networks, output, metrics, part, block * count, weights, sums, pairs):
                return {}
    finally:
        for weight in weights:
            weight.requires_grad = False
    sizes = [w.numel() for w in weights]
    lengths = torch.stack([w.detach().norm() for w in weights])
    tensor = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    total = float(((x - x.mean(0)) ** 2).sum()) / len(x)
    found = {
        name: _tried(each, lengths, tensor, total, errors=errors)
        for name, each in sums.items() if len(each) == min(blocks, len(x))
    }  # fmt: skip
    return {name: tried for name, tried in found.items() if tried is not None}


def _weights(networks: Networks) -> list[nn.Parameter]:
    both = (*networks.encoder.parameters(), *networks.decoder.parameters())
    return list(dict.fromkeys(both))


@dataclass(frozen=True)
class _Sums:
    """Of a block of rows, a mean each; gradients of all tensors as one."""

    coding: Tensor
    rate: Tensor
    distortion: float
    kl: float
    missed: float
    missed_at_mean: float
    pull: float
    room: float


def _block(
    networks: Networks,
    output: str,
    metrics: Sequence[Metric],
    rows: tuple[Tensor, ...],
    start: int,
    weights: list[nn.Parameter],
    sums: dict[str, list[_Sums]],
    pairs: int,
) -> bool:
    x, *c = rows
    mean, std = networks.encoder(x, *c)
    mean, std = mean.flatten(1), std.flatten(1)
    if not bool((mean.isfinite() & std.isfinite() & (std > 0)).all()):
        return False
    with torch.no_grad():
        at_mean = squeezed(networks.decoder(mean, *c), output)
        missed_at_mean = float(((x - at_mean) ** 2).sum()) / len(x)
    epsilon = _noise(start, len(x), mean.shape[1], pairs).to(mean.dtype)
    shifts = [sign * e for e in epsilon for sign in (1.0, -1.0)]
    z = torch.cat([mean + std * shift for shift in shifts])
    more = [each.repeat(len(shifts), 1) for each in c]
    wide = x.repeat(len(shifts), *(1,) * (x.ndim - 1))
    kl, room = _rate(networks, mean, std, z)
    rate = _gradient(kl, weights)
    parameters = getattr(networks.decoder, "parameters_of", None)
    raw = (parameters or networks.decoder)(z, *more)
    with torch.no_grad():
        x_hat = squeezed(networks.decoder(z, *more) if parameters else raw, output)
        missed = float(((wide - x_hat) ** 2).sum()) / len(wide)
    for metric in metrics:
        try:
            value = _distortion(metric, wide, raw, output).mean()
        except (IsoprobeError, RuntimeError):
            continue
        if not bool(value.isfinite()):
            continue
        coding = _gradient(value, weights)
        (slope,) = torch.autograd.grad(value, z, retain_graph=True)
        pull = float((slope * (z - mean.repeat(len(shifts), 1))).sum().detach())
        found = _Sums(coding, rate, float(value.detach()), float(kl.detach()), missed,
                      missed_at_mean, pull, room)  # fmt: skip
        sums.setdefault(metric.spec(), []).append(found)
    return True


def told(networks: Networks, x: Tensor, labels: Tensor | None) -> tuple[Tensor, ...]:
    """Return what networks are told of rows: what they find themselves, or the rows' labels.

    Args:
        networks: encoder and decoder.
        x: the rows, ``(B, *input_shape)``.
        labels: of at least these rows, ``(B,)``.

    Returns:
        One tensor ``(B, k)``; none where nothing is told.

    Raises:
        OptionError: for networks that are told labels, where there are none.
    """
    if not networks.classes:
        return ()
    if networks.infer is not None:
        with torch.no_grad():
            return (networks.infer(x).to(x.dtype),)
    if labels is None or len(labels) < len(x):
        raise OptionError("the networks are told a label of each row, and there are none")
    columns = [labels[: len(x)].reshape(len(x), -1).to(x.dtype)]
    if networks.also is not None:
        columns.append(networks.also(x).to(x.dtype))
    return (torch.cat(columns, 1),)


def _rate(networks: Networks, mean: Tensor, std: Tensor, z: Tensor) -> tuple[Tensor, float]:
    """KL to the prior, and what beta weighs.

    Returns:
        Its mean over rows, and the sum of E[1 - P_j], P_j = E[sigma_j eps_j s_j], s the slope of
        -log p.
    """
    if networks.prior is None:
        return kl_divergence(mean, std).sum(1).mean(), float((1 - std.detach() ** 2).sum(1).mean())
    prior: Any = networks.decoder.prior
    logs, centres, widths = prior.components(networks.encoder, learning=True)
    if len(logs) == 1:
        ratio = std / widths
        kl = kl_divergence((mean - centres) / widths, ratio).sum(1).mean()
        return kl, float((1 - ratio.detach() ** 2).sum(1).mean())
    unit = (z[:, None] - centres) / widths
    each = (-0.5 * unit**2 - widths.log()).sum(2) - 0.5 * z.shape[1] * math.log(2 * math.pi)
    surprise = -torch.logsumexp(logs + each, 1)
    entropy = (std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(1).mean()
    (slope,) = torch.autograd.grad(surprise.mean(), z, retain_graph=True)
    noise = z - mean.repeat(len(z) // len(mean), 1)
    return surprise.mean() - entropy, z.shape[1] - float((slope * noise).sum().detach())


@lru_cache(maxsize=64)
def _noise(start: int, rows: int, latents: int, pairs: int) -> Tensor:
    """Draws for rows, the same for every reading, ``(pairs, rows, latents)``."""
    each = [normal(17 + k, "doctor", np.arange(start, start + rows), latents) for k in range(pairs)]
    return torch.as_tensor(np.stack(each))


def _gradient(value: Tensor, weights: list[nn.Parameter]) -> Tensor:
    every = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
    return torch.cat([
        torch.zeros(w.numel(), dtype=w.dtype) if g is None else g.reshape(-1)
        for g, w in zip(every, weights, strict=True)
    ])  # fmt: skip


def squeezed(raw: Tensor, output: str) -> Tensor:
    """Apply what squeezes an output."""
    if output == "sigmoid":
        return raw.sigmoid()
    return raw.tanh() if output == "tanh" else raw


def _distortion(metric: Metric, x: Tensor, raw: Tensor, output: str) -> Tensor:
    if metric.likelihood:
        return metric.distortion(x, raw)
    if output == "sigmoid" and metric.logits_distortion is not None:
        return metric.logits_distortion(x, raw)
    x_hat = squeezed(raw, output)
    if metric.input_range is not None:
        low, high = metric.input_range
        seen = x_hat.detach()
        if float(seen.min()) < low - 1e-4 or float(seen.max()) > high + 1e-4:
            raise IsoprobeError("outside the metric's range")
    return metric.distortion(x, x_hat)


def _tried(
    blocks: Sequence[_Sums], lengths: Tensor, tensor: Tensor, total: float, *, errors: bool
) -> Tried | None:
    """Put blocks together."""
    coding = torch.stack([b.coding for b in blocks])
    rate = torch.stack([b.rate for b in blocks])
    slope, beta = _slope(coding.mean(0), rate.mean(0), lengths, tensor)
    squares = torch.zeros(len(lengths), dtype=coding.dtype)
    for c, r in zip(coding, rate, strict=True):
        squares.index_add_(0, tensor, (c + beta * r) ** 2 / len(blocks))
    alone = float((squares.sqrt() * lengths).sum())
    if not alone > 0 or not math.isfinite(slope) or not total > 0:
        return None
    n = len(blocks)
    without = []
    for left in range(n if errors else 0):
        c = (coding.sum(0) - coding[left]) / (n - 1)
        r = (rate.sum(0) - rate[left]) / (n - 1)
        without.append(_slope(c, r, lengths, tensor)[0] / alone)
    return Tried(
        slope=slope / alone,
        explained=1 - sum(b.missed for b in blocks) / n / total,
        at_mean=1 - sum(b.missed_at_mean for b in blocks) / n / total,
        distortion=sum(b.distortion for b in blocks) / n,
        kl=sum(b.kl for b in blocks) / n,
        beta=sum(b.pull for b in blocks) / max(sum(b.room for b in blocks), 1e-12),
        blocks=tuple(without),
    )


def _slope(coding: Tensor, rate: Tensor, lengths: Tensor, tensor: Tensor) -> tuple[float, float]:
    """Sum of |gradient| |w| over tensors, and the beta that makes its square least."""
    weighted = lengths[tensor]
    bottom = float(((rate * weighted) ** 2).sum())
    beta = max(-float((coding * rate * weighted**2).sum()) / bottom, 0.0) if bottom > 0 else 0.0
    squares = torch.zeros(len(lengths), dtype=coding.dtype)
    squares.index_add_(0, tensor, (coding + beta * rate) ** 2)
    return float((squares.sqrt() * lengths).sum()), beta
