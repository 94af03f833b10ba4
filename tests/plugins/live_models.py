"""Small VAEs as people write them, trained for a moment, each with its own reading of itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Pair = tuple[Tensor, Tensor]


@cache
def rows(shape: tuple[int, ...] = (12,), count: int = 256) -> Tensor:
    """Values in (0, 1) that three factors make."""
    generator = torch.Generator().manual_seed(5)
    size = torch.Size(shape).numel()
    factors = torch.randn(count, 3, generator=generator)
    mixing = torch.randn(3, size, generator=generator) * torch.tensor([1.6, 1.0, 0.6])[:, None]
    return torch.sigmoid(factors @ mixing).reshape(count, *shape)


class Body(nn.Module):
    """Layers under names of their own; three latents, of which the scale is read by ``form``."""

    width, latents, logits = 24, 3, False

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(12, self.width)
        self.head_one = nn.Linear(self.width, self.latents)
        self.head_two = nn.Linear(self.width, self.latents)
        self.b = nn.Linear(self.latents, self.width)
        self.c = nn.Linear(self.width, 12)

    def heads(self, x: Tensor) -> Pair:
        h = torch.tanh(self.a(x.reshape(len(x), -1)))
        return self.head_one(h), self.head_two(h)

    def std(self, raw: Tensor) -> Tensor:
        return (0.5 * raw).exp()

    def values(self, z: Tensor) -> Tensor:
        out = self.c(torch.tanh(self.b(z)))
        return out if self.logits else torch.sigmoid(out)

    def posterior(self, x: Tensor) -> Pair:
        mean, raw = self.heads(x)
        return mean, self.std(raw)


def trained(model: Any, x: Tensor, beta: float = 1.0, steps: int = 700) -> Any:
    """Train by the model's own ``posterior`` and ``values``, under bce."""
    torch.manual_seed(0)
    with torch.random.fork_rng():
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(steps):
            mean, std = model.posterior(x)
            out = model.values(mean + torch.randn_like(mean) * std).reshape(x.shape)
            loss = F.binary_cross_entropy_with_logits if model.logits else F.binary_cross_entropy
            rate = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum()
            total = loss(out, x, reduction="sum") + beta * rate
            optimizer.zero_grad()
            (total / len(x)).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def right(model: Any, x: Tensor) -> float:
    """The mean KL by the model's own reading, in nats."""
    with torch.no_grad():
        mean, std = (part.double().flatten(1) for part in model.posterior(x))
        return float(0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(1).mean())


@dataclass(frozen=True)
class Kind:
    """A kind of model, and words that its refusal has to have where it must be refused."""

    make: Callable[[], nn.Module]
    shape: tuple[int, ...] = (12,)
    refused: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {}


def kind(shape: tuple[int, ...] = (12,), refused: tuple[str, ...] = ()) -> Callable[..., Any]:
    """List a class under its name."""

    def put(make: type[nn.Module]) -> type[nn.Module]:
        def seeded() -> nn.Module:
            torch.manual_seed(0)
            return make()

        KINDS[make.__name__] = Kind(seeded, shape, refused)
        return make

    return put


class Methods(Body):
    """encode gives the heads as they are, decode the values: nothing says the scale's form."""

    def encode(self, x: Tensor) -> Any:
        return self.heads(x)

    def decode(self, z: Tensor) -> Any:
        return self.values(z)


class LogStd(Body):
    def std(self, raw: Tensor) -> Tensor:
        return raw.exp()


class Softplus(Body):
    def std(self, raw: Tensor) -> Tensor:
        return F.softplus(raw) + 1e-6


@kind()
class SilentLogStd(Methods, LogStd):
    """No draw in forward, no name."""


@kind()
class SilentSoftplus(Methods, Softplus):
    """The same for a softplus."""


@kind()
class SilentVariance(Methods):
    def encode(self, x: Tensor) -> Pair:
        mean, raw = self.heads(x)
        return mean, raw.exp()


@kind()
class SilentSwapped(Methods):
    def encode(self, x: Tensor) -> Pair:
        return self.heads(x)[::-1]


@kind()
class InterleavedHead(Methods):
    def encode(self, x: Tensor) -> Tensor:
        return torch.stack(self.heads(x), 2).flatten(1)


@kind()
class SwappedHead(Methods):
    def encode(self, x: Tensor) -> Tensor:
        return torch.cat(self.heads(x)[::-1], 1)


@kind()
class ForwardLogStd(LogStd):
    """Draws in training only; a dict; the deviation as its logarithm."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        mean, raw = self.heads(x)
        z = mean + self.std(raw) * torch.randn_like(mean) if self.training else mean
        return {"m": mean, "s": raw, "y": self.values(z)}


@kind()
class ForwardByNormal(Softplus):
    """rsample of a Normal, at every call; hidden layers as wide as the latent."""

    width, latents = 3, 3

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, raw = self.heads(x)
        z = torch.distributions.Normal(mean, self.std(raw)).rsample()
        return z, mean, raw, self.values(z)


@kind()
class ForwardLogits(Body):
    logits = True

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, raw = self.heads(x)
        z = mean + torch.randn(mean.shape) * self.std(raw)
        return self.values(z), mean, raw


@kind((3, 4))
class FlatInside(Body):
    """Images in, flat inside, images out."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, raw = self.heads(x)
        eps = torch.empty_like(mean).normal_()
        return self.values(mean + eps * self.std(raw)).view_as(x), mean, raw


@kind()
class SubmoduleLikePyro(nn.Module):
    """encoder(x) gives loc and scale, decoder(z) the values; the class has neither method."""

    logits = False

    class Encoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = nn.Linear(12, 24)
            self.loc, self.log_scale = nn.Linear(24, 3), nn.Linear(24, 3)

        def forward(self, x: Tensor) -> Pair:
            h = F.softplus(self.hidden(x))
            return self.loc(h), self.log_scale(h).exp()

    class Decoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden, self.out = nn.Linear(3, 24), nn.Linear(24, 12)

        def forward(self, z: Tensor) -> Tensor:
            return torch.sigmoid(self.out(F.softplus(self.hidden(z))))

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = self.Encoder(), self.Decoder()

    def posterior(self, x: Tensor) -> Pair:
        return self.encoder(x)

    def values(self, z: Tensor) -> Tensor:
        return self.decoder(z)


@kind()
class DecodesBernoulli(Body):
    def encode(self, x: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(*self.posterior(x))

    def decode(self, z: Tensor) -> torch.distributions.Bernoulli:
        return torch.distributions.Bernoulli(self.values(z))


@kind((1, 4, 4))
class SpatialLatent(nn.Module):
    """A latent of 2 x 2 x 2, by convolutions."""

    logits = False

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 4, 2, 1)
        self.conv_mu, self.conv_logvar = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 2, 1)
        self.up = nn.ConvTranspose2d(2, 8, 4, 2, 1)
        self.out = nn.Conv2d(8, 1, 1)

    def encode(self, x: Tensor) -> Pair:
        h = torch.tanh(self.down(x))
        return self.conv_mu(h), self.conv_logvar(h)

    def posterior(self, x: Tensor) -> Pair:
        mean, logvar = self.encode(x)
        return mean, (0.5 * logvar).exp()

    def values(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.out(torch.tanh(self.up(z))))

    def decode(self, z: Tensor) -> Tensor:
        return self.values(z)


@kind(refused=("skip", "input"))
class SkipConnection(Body):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, raw = self.heads(x)
        return (self.values(mean) + 0.1 * x).clamp(0, 1), mean, raw


@kind(refused=("isoprobe.wrap",))
class Conditional(Body):
    def forward(self, x: Tensor, label: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mean, raw = self.heads(x)
        return self.values(mean + 0 * label), mean, raw


@kind(refused=("posterior",))
class PlainAutoencoder(Methods):
    def encode(self, x: Tensor) -> Tensor:
        return self.heads(x)[0]


@kind(refused=("Laplace",))
class LaplacePosterior(Methods):
    def encode(self, x: Tensor) -> torch.distributions.Distribution:
        return torch.distributions.Laplace(*self.posterior(x))


@kind()
class FullCovariance(Methods):
    def encode(self, x: Tensor) -> torch.distributions.Distribution:
        mean, std = self.posterior(x)
        return torch.distributions.MultivariateNormal(mean, torch.diag_embed(std.square()))


@kind(refused=("random",))
class NoisyDecoder(Body):
    def encode(self, x: Tensor) -> torch.distributions.Normal:
        return torch.distributions.Normal(*self.posterior(x))

    def decode(self, z: Tensor) -> Tensor:
        return self.values(z + 0.1 * torch.randn_like(z))
