"""Data, training and right answers of the gallery, from each network's own code alone.

Nothing here imports isoprobe: what it reports is compared with these numbers. Distortions are
summed over the dimensions of a row, rates are in nats, and beta is the weight of the rate beside
a distortion in those units.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

Distortion = Callable[[Tensor, Any], Tensor]


# -- data ---------------------------------------------------------------------------------


def digits() -> tuple[Tensor, Tensor]:
    """Return 600 handwritten digits of scikit-learn, (600, 64) in [0, 1], and their labels."""
    bunch = load_digits()
    x = torch.tensor(bunch.data[:600] / 16, dtype=torch.float32)
    return x, torch.tensor(bunch.target[:600])


def digit_images() -> Tensor:
    """Return the same digits as images, (600, 1, 8, 8)."""
    return digits()[0].reshape(-1, 1, 8, 8)


def blobs(size: int, channels: int, count: int = 400) -> Tensor:
    """Return images of one soft spot, its place, width and colour random, (N, C, size, size)."""
    rng = np.random.default_rng(size * 10 + channels)
    grid = np.linspace(-1, 1, size)
    place = rng.uniform(-0.6, 0.6, (count, 2, 1, 1))
    width = rng.uniform(0.2, 0.5, (count, 1, 1))
    distance = (grid[:, None] - place[:, 0]) ** 2 + (grid[None, :] - place[:, 1]) ** 2
    spot = np.exp(-distance / (2 * width**2))[:, None]
    colour = rng.uniform(0.3, 1.0, (count, channels, 1, 1))
    levels = np.round(spot * colour * 60) / 60  # few levels, so that the files stay small
    return torch.tensor(levels, dtype=torch.float32)


def table() -> Tensor:
    """Return 500 rows of 12 standardised columns that three hidden factors drive."""
    rng = np.random.default_rng(12)
    factors = rng.normal(size=(500, 3))
    mixed = np.tanh(factors @ rng.normal(size=(3, 12))) + 0.5 * factors @ rng.normal(size=(3, 12))
    rows = mixed + 0.2 * rng.normal(size=mixed.shape)
    return torch.tensor((rows - rows.mean(0)) / rows.std(0), dtype=torch.float32).round(decimals=3)


def series() -> Tensor:
    """Return 400 series of 12 steps and 2 columns: a sine with its cosine, (400, 12, 2)."""
    rng = np.random.default_rng(3)
    phase, rate = rng.uniform(0, 2 * np.pi, (400, 1)), rng.uniform(0.3, 0.7, (400, 1))
    height = rng.uniform(0.5, 1.5, (400, 1))
    angle = phase + rate * np.arange(12)
    waves = np.stack([height * np.sin(angle), height * np.cos(angle)], -1)
    return torch.tensor(waves, dtype=torch.float32).round(decimals=3)


def counts() -> tuple[Tensor, Tensor]:
    """Return counts of 20 genes in 500 cells and the cells' batch, (500, 20) and (500,)."""
    rng = np.random.default_rng(7)
    batch = rng.integers(0, 2, 500)
    state = rng.normal(size=(500, 2))
    rate = np.exp(state @ rng.normal(size=(2, 20)) * 0.6 + 0.4 * batch[:, None] + 1.0)
    noisy = rng.gamma(5.0, rate / 5.0)
    kept = rng.random((500, 20)) > 0.1
    return torch.tensor(rng.poisson(noisy) * kept, dtype=torch.float32), torch.tensor(batch)


# -- distortions, (B,) ----------------------------------------------------------------------


def sse(x: Tensor, x_hat: Tensor) -> Tensor:
    """Return the squared error summed over the dimensions of each row."""
    return (x.reshape(len(x), -1) - x_hat.reshape(len(x), -1)).square().sum(1)


def bce(x: Tensor, x_hat: Tensor) -> Tensor:
    """Return the binary cross entropy of probabilities, summed over the dimensions of a row."""
    flat, flat_hat = x.reshape(len(x), -1), x_hat.reshape(len(x), -1)
    return functional.binary_cross_entropy(flat_hat, flat, reduction="none").sum(1)


def bce_logits(x: Tensor, logits: Tensor) -> Tensor:
    """Return the same from logits."""
    flat, flat_hat = x.reshape(len(x), -1), logits.reshape(len(x), -1)
    return functional.binary_cross_entropy_with_logits(flat_hat, flat, reduction="none").sum(1)


# -- what an entry says about its network ------------------------------------------------------


def standard_normal(z: Tensor, _condition: Any) -> Tensor:
    """Return log N(z; 0, I), (B,)."""
    return -0.5 * (z.square() + math.log(2 * math.pi)).sum(1)


@dataclass
class Own:
    """A network's own reading: posterior, decoder, distortion, beta, prior.

    `posterior(x, c)` gives mean and standard deviation, (B, n); `decode(z, c)` whatever
    `distortion` compares with x; `others` further distortions of the same output, by metric.
    """

    posterior: Callable[[Tensor, Any], tuple[Tensor, Tensor]]
    decode: Callable[[Tensor, Any], Any]
    distortion: Distortion
    metric: str
    beta: float
    x: Tensor
    condition: Tensor | None = None
    log_prior: Callable[[Tensor, Any], Tensor] | None = None  # None: N(0, I), KL in closed form
    others: dict[str, Distortion] = field(default_factory=dict)
    extra_rate: Callable[[Tensor], Tensor] | None = None  # nats of latents that are not Gaussian

    def rate(self, mean: Tensor, std: Tensor, c: Any, z: Tensor | None = None) -> Tensor:
        """Return the KL divergence of each row: closed for N(0, I), else at the draw z, (B,)."""
        if self.log_prior is None:
            return 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(1)
        assert z is not None
        noise = (z - mean) / std
        log_q = -(0.5 * noise.square() + std.log() + 0.5 * math.log(2 * math.pi)).sum(1)
        return log_q - self.log_prior(z, c)

    def objective(self, x: Tensor, c: Any) -> Tensor:
        """Return D + beta KL of each row at one draw, (B,): what was trained."""
        mean, std = self.posterior(x, c)
        z = mean + std * torch.randn_like(mean)
        return self.distortion(x, self.decode(z, c)) + self.beta * self.rate(mean, std, c, z)


def fit(
    network: nn.Module | Iterable[nn.Parameter],
    own: Own,
    steps: int = 1500,
    rate: float = 4e-3,
    batch: int = 100,
    extra: Callable[[Tensor, Any], Tensor] | None = None,
) -> None:
    """Train by Adam on the entry's own objective, the rate falling to zero at the end.

    Batch norm learns its statistics in the first half and keeps them in the second, so that the
    network is trained as it is used afterwards.
    """
    module = network if isinstance(network, nn.Module) else None
    parameters = list(module.parameters() if module is not None else network)
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for step in range(steps):
        if module is not None:
            module.train(step < steps // 2)
        for group in optimizer.param_groups:
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = torch.randint(len(own.x), (min(batch, len(own.x)),))
        c = None if own.condition is None else own.condition[rows]
        loss = own.objective(own.x[rows], c).mean()
        if extra is not None:
            loss = loss + extra(own.x[rows], c)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    if module is not None:
        module.eval()


def kept(network: nn.Module, reading: Own, path: Path, **how: Any) -> Own:
    """Train a network, write its state dict, and return its own reading."""
    fit(network, reading, **how)
    torch.save(network.state_dict(), path)
    return reading


def seed(name: str) -> None:
    """Fix torch's random numbers by a name."""
    torch.manual_seed(zlib.crc32(name.encode()))


# -- right answers ------------------------------------------------------------------------------


def answers(own: Own, pairs: int = 16) -> dict[str, Any]:
    """Return latents, KL, distortions and the beta that the network's own gradients show.

    Args:
        own: the network's reading.
        pairs: antithetic pairs of posterior draws a row.
    """
    torch.manual_seed(0)
    c = own.condition
    with torch.no_grad():
        mean, std = own.posterior(own.x, c)
        at_mean = {name: d(own.x, own.decode(mean, c)) for name, d in _metrics(own).items()}
        ends = own.decode(mean + std, c), own.decode(mean - std, c)
        at_ends = {
            name: sum(d(own.x, end) for end in ends) / 2 for name, d in _metrics(own).items()
        }
    rates, drawn = [], {name: torch.zeros(len(own.x)) for name in at_mean}
    pulled = pushed = 0.0
    for _ in range(pairs):
        noise = torch.randn_like(mean)
        for eps in (noise, -noise):
            z = (mean + std * eps).requires_grad_()
            with torch.no_grad():
                rates.append(own.rate(mean, std, c, z))
            output = own.decode(z, c)
            for name, d in _metrics(own).items():
                drawn[name] += d(own.x, output).detach() / (2 * pairs)
            slope = torch.autograd.grad(own.distortion(own.x, output).sum(), z)[0]
            pulled += float((std * eps * slope).sum(1).mean()) / (2 * pairs)
            pushed += float(_pushed(own, std, eps, z)) / (2 * pairs)
    rate = torch.stack(rates).mean(0)
    kl = float(rate.mean())
    to_normal = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(1)
    extra = 0.0 if own.extra_rate is None else float(own.extra_rate(own.x).mean())
    return {
        "latents": mean.shape[1],
        "kl": kl,
        "kl_with_discrete": kl + extra,
        "kl_to_standard_normal": float(to_normal.mean()),
        "distortion_at_mean": {name: float(d.mean()) for name, d in at_mean.items()},
        "distortion_at_ends": {name: float(d.mean()) for name, d in at_ends.items()},
        "distortion_at_draws": {name: float(d.mean()) for name, d in drawn.items()},
        "metric": own.metric,
        "beta": own.beta,
        "beta_by_gradients": pulled / pushed,
    }


def _metrics(own: Own) -> dict[str, Distortion]:
    return {own.metric: own.distortion, **own.others}


def _pushed(own: Own, std: Tensor, eps: Tensor, z: Tensor) -> Tensor:
    """Return E[1 - sigma eps s] summed over latents, s = -d log p / dz (THEORY: the prior's P)."""
    log_prior = own.log_prior
    if log_prior is None:
        return (1 - std.square()).sum(1).mean()
    score = -torch.autograd.grad(log_prior(z, own.condition).sum(), z)[0]
    return (1 - std * eps * score).sum(1).mean().detach()
