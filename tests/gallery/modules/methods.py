"""Modules with encode and decode, with parts alone, convolutional, flattening their input."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn
from torch.distributions import (
    AffineTransform,
    Independent,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
)  # fmt: skip

from tests.gallery import own
from tests.gallery.modules.shelf import Made, module, ready, trained


class Parts(nn.Module):
    """encoder, fc_mu, fc_var and decoder; forward gives the reconstruction alone."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
        self.fc_mu = nn.Linear(32, 5)
        self.fc_var = nn.Linear(32, 5)
        self.decoder = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.fc_mu(self.encoder(x)))


class EncodeDecode(Parts):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.fc_mu(h), self.fc_var(h)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        return self.decode(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar


def _by_parts(network: Parts, how: Callable[..., Made]) -> Made:
    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        h = network.encoder(x)
        return network.fc_mu(h), (0.5 * network.fc_var(h)).exp()

    return how(network, posterior, network.decoder, own.digits()[0])


def of_parts(network: Parts) -> Made:
    """Return the network with weights trained once for all that have these parts."""
    network.load_state_dict(plain_weights())
    return _by_parts(network, ready)


@cache
def plain_weights() -> dict[str, Tensor]:
    """Train `Parts` once, and return its weights."""
    own.seed("plain_weights")
    return _by_parts(Parts(), trained).module.state_dict()


@cache
def normed_weights() -> dict[str, Tensor]:
    """Train `Normed` once, and return its weights."""
    own.seed("normed_weights")
    return _by_parts(Normed(), trained).module.state_dict()


@module("encode gives (mu, logvar), decode the image; forward samples")
def encode_decode() -> Made:
    return of_parts(EncodeDecode())


@module("encoder, fc_mu, fc_var and decoder only; forward gives the image alone")
def parts_only() -> Made:
    return of_parts(Parts())


class EncodesNormal(Parts):
    def encode(self, x: Tensor) -> Normal:
        h = self.encoder(x)
        return Normal(self.fc_mu(h), (0.5 * self.fc_var(h)).exp())

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


@module("encode gives torch.distributions.Normal")
def encodes_normal() -> Made:
    return of_parts(EncodesNormal())


class EncodesIndependent(EncodesNormal):
    def encode(self, x: Tensor) -> Independent:
        return Independent(super().encode(x), 1)


@module("encode gives Independent(Normal, 1)")
def encodes_independent() -> Made:
    return of_parts(EncodesIndependent())


class EncodesTransformed(Parts):
    def encode(self, x: Tensor) -> TransformedDistribution:
        h = self.encoder(x)
        base = Normal(self.fc_mu(h), (0.5 * self.fc_var(h)).exp())
        return TransformedDistribution(base, [SigmoidTransform(), AffineTransform(-1.0, 2.0)])

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(torch.logit((z + 1) / 2))


@module(
    "encode gives a TransformedDistribution", refused=(("TransformedDistribution",),),
    wrong="the base distribution taken for the posterior",
)  # fmt: skip
def encodes_transformed() -> Made:
    return of_parts(EncodesTransformed())


class EncodesZToo(EncodeDecode):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = super().encode(x)
        return mu + torch.randn_like(mu) * (0.5 * logvar).exp(), mu, logvar

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        z, mu, logvar = self.encode(x)
        return self.decode(z), mu, logvar


@module(
    "encode gives (z, mu, logvar), z drawn at each call", wrong="the draw taken for the mean",
    or_refused=(("random", "draw", "sampl", "differ", "twice"),),
)  # fmt: skip
def encodes_z_too() -> Made:
    return of_parts(EncodesZToo())


class Conv(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 4, 2, 1)
        self.conv2 = nn.Conv2d(4, 8, 4, 2, 1)
        self.fc_mu = nn.Linear(32, 5)
        self.fc_logvar = nn.Linear(32, 5)
        self.fc = nn.Linear(5, 32)
        self.deconv1 = nn.ConvTranspose2d(8, 4, 4, 2, 1)
        self.deconv2 = nn.ConvTranspose2d(4, 1, 4, 2, 1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.conv2(torch.relu(self.conv1(x)))).flatten(1)
        return self.fc_mu(h), self.fc_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        h = self.fc(z).view(-1, 8, 2, 2)
        return torch.sigmoid(self.deconv2(torch.relu(self.deconv1(h))))


def half(pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0], (0.5 * pair[1]).exp()


@module("convolutions, encode and decode, images with a channel")
def conv() -> Made:
    network = Conv()
    return trained(network, lambda x: half(network.encode(x)), network.decode, own.digit_images())


class Flattens(EncodeDecode):
    """x.view(-1, 64) inside, as the MNIST tutorials do with 784; the image comes out flat."""

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return super().encode(x.view(-1, 64))


@module("takes images, flattens them itself by view, gives flat images")
def flattens_images() -> Made:
    network = Flattens()
    network.load_state_dict(plain_weights())
    return ready(network, lambda x: half(network.encode(x)), network.decode, own.digit_images())


class Normed(EncodeDecode):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 32), nn.BatchNorm1d(32), nn.LeakyReLU(0.2))
        self.decoder = nn.Sequential(
            nn.Linear(5, 32), nn.BatchNorm1d(32), nn.LeakyReLU(0.2), nn.Linear(32, 64), nn.Sigmoid()
        )


def _normed() -> Made:
    network = Normed()
    network.load_state_dict(normed_weights())
    return _by_parts(network, ready)


@module("batch norm; handed over in eval mode")
def batch_norm() -> Made:
    return _normed()


@module(
    "the same, handed over in training mode, as inside a training loop",
    wrong="statistics of the batch used, or the running ones changed",
)
def batch_norm_training() -> Made:
    made = _normed()
    made.module.train()
    return made
