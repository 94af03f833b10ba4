"""Modules whose second output is no log variance, or whose reconstruction is no probability."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tests.gallery import own
from tests.gallery.modules.methods import EncodeDecode, plain_weights
from tests.gallery.modules.shelf import Made, module, ready, trained

AS_LOGVAR = "the second output read as a log variance"


class LogStd(EncodeDecode):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, log_std = self.encode(x)
        return self.decode(mu + torch.randn_like(mu) * log_std.exp()), mu, log_std


@module("encode gives (mu, log_std)", wrong=AS_LOGVAR)
def head_log_std() -> Made:
    network = LogStd()

    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, log_std = network.encode(x)
        return mu, log_std.exp()

    return trained(network, posterior, network.decode, own.digits()[0])


class Std(EncodeDecode):
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mu, raw = super().encode(x)
        return mu, functional.softplus(raw) + 1e-5

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, std = self.encode(x)
        return self.decode(mu + torch.randn_like(mu) * std), mu, std


@module("encode gives (mu, std), the deviation itself", wrong=AS_LOGVAR)
def head_std() -> Made:
    network = Std()
    return trained(network, network.encode, network.decode, own.digits()[0])


class Softplus(EncodeDecode):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, raw = self.encode(x)
        return self.decode(mu + torch.randn_like(mu) * functional.softplus(raw)), mu, raw


@module("encode gives (mu, raw); softplus(raw) is the deviation", wrong=AS_LOGVAR)
def head_softplus() -> Made:
    network = Softplus()

    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, raw = network.encode(x)
        return mu, functional.softplus(raw)

    return trained(network, posterior, network.decode, own.digits()[0])


class Chunked(EncodeDecode):
    """encode gives one tensor of 2n; forward cuts it."""

    def encode(self, x: Tensor) -> Tensor:
        return torch.cat(super().encode(x), 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x).chunk(2, 1)
        return self.decode(mu), mu, logvar


@module("encode gives one tensor of 2n, cut in forward")
def head_chunked() -> Made:
    network = Chunked()
    network.load_state_dict(plain_weights())

    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = network.encode(x).chunk(2, 1)
        return mu, (0.5 * logvar).exp()

    return ready(network, posterior, network.decode, own.digits()[0])


class Logits(EncodeDecode):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = self.decoder[:-1]


@module(
    "decode gives logits, trained with bce with logits",
    wrong="logits clamped and taken for probabilities",
)
def logits() -> Made:
    network = Logits()
    network.load_state_dict(plain_weights())

    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = network.encode(x)
        return mu, (0.5 * logvar).exp()

    return ready(network, posterior, network.decode, own.digits()[0], distortion=own.bce_logits)


class Squared(EncodeDecode):
    def __init__(self) -> None:
        super().__init__()
        self.decoder = self.decoder[:-1]


@module("a linear output under squared errors, beta 0.1", metric="sse")
def squared_error() -> Made:
    network = Squared()

    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        mu, logvar = network.encode(x)
        return mu, (0.5 * logvar).exp()

    return trained(
        network, posterior, network.decode, own.digits()[0], distortion=own.sse, metric="sse",
        beta=0.1,
    )  # fmt: skip
