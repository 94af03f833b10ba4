"""Networks that several layouts share, written as people write them."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.gallery import own
from tests.gallery.layouts.shelf import TO_LINE, TO_UNIT, Maker, layout
from tests.gallery.own import Own


class Tutorial(nn.Module):
    """The MLP of the PyTorch examples: fc1, fc21, fc22, fc3, fc4."""

    def __init__(self, features: int = 64, hidden: int = 32, latent: int = 6) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc21 = nn.Linear(hidden, latent)
        self.fc22 = nn.Linear(hidden, latent)
        self.fc3 = nn.Linear(latent, hidden)
        self.fc4 = nn.Linear(hidden, features)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(self.fc1(x))
        return self.fc21(h), self.fc22(h)

    def decode(self, z: Tensor) -> Tensor:
        return torch.sigmoid(self.fc4(torch.relu(self.fc3(z))))


class Mlp(nn.Module):
    """Sequential encoder and decoder with fc_mu and fc_var between them."""

    def __init__(
        self,
        features: int = 64,
        hidden: int = 32,
        latent: int = 5,
        act: Callable[[], nn.Module] = nn.ReLU,
        output: Callable[[], nn.Module] | None = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, hidden), act())
        self.fc_mu = nn.Linear(hidden, latent)
        self.fc_var = nn.Linear(hidden, latent)
        last = [] if output is None else [output()]
        self.decoder = nn.Sequential(
            nn.Linear(latent, hidden), act(), nn.Linear(hidden, features), *last
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.fc_mu(h), self.fc_var(h)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


Store = Callable[[Mlp, Path], None]


def logvar(network: Any) -> Callable[[Tensor, Any], tuple[Tensor, Tensor]]:
    """Return the posterior of a network whose `encode` gives mean and log variance."""

    def posterior(x: Tensor, _c: Any) -> tuple[Tensor, Tensor]:
        mean, log_variance = network.encode(x)
        return mean.flatten(1), (0.5 * log_variance).exp().flatten(1)

    return posterior


def plain(network: Any) -> Callable[[Tensor, Any], Any]:
    """Return `network.decode` as a function of z and an unused condition."""
    return lambda z, _c: network.decode(z)


def as_bce(network: Any, x: Tensor, beta: float = 1.0, **more: Any) -> Own:
    """Return the reading of an encode / decode network trained with bce."""
    return Own(
        logvar(network), plain(network), own.bce, "bce", beta, x, others={"sse": own.sse}, **more
    )


def as_sse(network: Any, x: Tensor, beta: float, **more: Any) -> Own:
    """Return the reading of an encode / decode network trained with squared errors."""
    return Own(logvar(network), plain(network), own.sse, "sse", beta, x, **more)


def digits_mlp(latent: int = 5) -> tuple[Mlp, Own]:
    """Return a trained bce MLP on the digits, as its makers' random numbers have it."""
    network = Mlp(latent=latent)
    reading = as_bce(network, own.digits()[0])
    own.fit(network, reading)
    return network, reading


def table_mlp(beta: float = 1.0) -> tuple[Mlp, Own]:
    """Return a trained sse MLP on the table."""
    network = Mlp(12, 24, 4, output=None)
    reading = as_sse(network, own.table(), beta)
    own.fit(network, reading)
    return network, reading


def of_digits(file: str, like: str, latent: int = 5, **facts: Any) -> Callable[[Store], Maker]:
    """Put on the shelf the bce MLP on the digits, as the function below stores it."""
    return _stored(lambda: digits_mlp(latent), (file, "digits.npy", like, TO_UNIT), facts)


def of_table(file: str, like: str, beta: float = 1.0, **facts: Any) -> Callable[[Store], Maker]:
    """Put on the shelf the sse MLP on the table, as the function below stores it."""
    return _stored(lambda: table_mlp(beta), (file, "table.csv", like, TO_LINE), facts)


def _stored(
    trained: Callable[[], tuple[Mlp, Own]], entry: tuple[Any, ...], facts: Any
) -> Callable[[Store], Maker]:
    def put(store: Store) -> Maker:
        @wraps(store)
        def make(folder: Path) -> Own:
            network, reading = trained()
            store(network, folder / entry[0])
            return reading

        return layout(*entry, **facts)(make)

    return put
