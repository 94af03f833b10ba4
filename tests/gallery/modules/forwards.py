"""Modules whose `forward` is all there is: tuples in several orders, dicts, named outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tests.gallery import own
from tests.gallery.modules.methods import plain_weights
from tests.gallery.modules.shelf import Made, module, ready


class Body(nn.Module):
    """The layers of a tutorial's VAE under names of its own, without encode or decode."""

    def __init__(self) -> None:
        super().__init__()
        self.inp = nn.Linear(64, 32)
        self.to_mu = nn.Linear(32, 5)
        self.to_lv = nn.Linear(32, 5)
        self.up = nn.Linear(5, 32)
        self.out = nn.Linear(32, 64)

    def run(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = torch.relu(self.inp(x))
        mu, logvar = self.to_mu(h), self.to_lv(h)
        z = mu + torch.randn_like(mu) * torch.exp(0.5 * logvar) if self.training else mu
        return torch.sigmoid(self.out(torch.relu(self.up(z)))), mu, logvar


NAMES = {
    "inp": "encoder.0", "to_mu": "fc_mu", "to_lv": "fc_var", "up": "decoder.0", "out": "decoder.2",
}  # fmt: skip


def made(network: Body) -> Made:
    weights = plain_weights()
    network.load_state_dict({
        f"{here}.{kind}": weights[f"{there}.{kind}"]
        for here, there in NAMES.items()
        for kind in ("weight", "bias")
    })  # fmt: skip

    def posterior(x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(network.inp(x))
        return network.to_mu(h), (0.5 * network.to_lv(h)).exp()

    def decode(z: Tensor) -> Tensor:
        return torch.sigmoid(network.out(torch.relu(network.up(z))))

    return ready(network, posterior, decode, own.digits()[0])


def forward(words: str, wrong: str = "") -> Callable[[Callable[..., Any]], None]:
    """Put on the shelf a module whose `forward` gives what the function below makes of its parts.

    The function takes the input, the reconstruction, the mean and the log variance.
    """

    def put(arrange: Callable[..., Any]) -> None:
        class Arranged(Body):
            def forward(self, x: Tensor) -> Any:
                return arrange(x, *self.run(x))

        def make() -> Made:
            return made(Arranged())

        make.__name__ = arrange.__name__
        module(words, wrong=wrong)(make)

    return put


@forward("forward gives (recon, mu, logvar); samples in training only")
def forward_recon_mu_logvar(_: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Any:
    return recon, mu, logvar


@forward("forward gives (mu, logvar, recon)")
def forward_mu_logvar_recon(_: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Any:
    return mu, logvar, recon


@forward("forward gives (recon, logvar, mu)", wrong="mean and log variance swapped")
def forward_recon_logvar_mu(_: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Any:
    return recon, logvar, mu


@forward(
    "forward gives [recon, input, mu, log_var], as VanillaVAE",
    wrong="the input taken for the reconstruction: distortion at its least",
)
def forward_recon_input_mu_logvar(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Any:
    return [recon, x, mu, logvar]


@forward("forward gives a dict with a loss in it")
def forward_dict(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Any:
    return {"x_recon": recon, "z_mean": mu, "z_logvar": logvar, "loss": (recon - x).sum()}


@dataclass
class VaeOutput:
    """What Hugging Face and pythae code returns, in small."""

    loss: Tensor
    reconstruction: Tensor
    mean: Tensor
    log_variance: Tensor


@forward("forward gives a dataclass with named fields")
def forward_dataclass(x: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Any:
    return VaeOutput((recon - x).square().sum(), recon, mu, logvar)


@forward("forward gives (recon, z, mu, logvar), z the mean when not training")
def forward_recon_z_mu_logvar(_: Tensor, recon: Tensor, mu: Tensor, logvar: Tensor) -> Any:
    return recon, mu, mu, logvar
