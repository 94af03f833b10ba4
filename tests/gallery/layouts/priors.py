"""Priors other than N(0, I): learnt, mixed, flowed."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Independent, Normal

from tests.gallery import own
from tests.gallery.layouts.nets import Mlp, logvar, plain
from tests.gallery.layouts.shelf import TO_LINE, layout
from tests.gallery.own import Own

AS_NORMAL = "the KL divergence to N(0, I), which was not trained"


def _with_prior(network: Mlp, log_prior: object, path: Path, beta: float = 1.0) -> Own:
    reading = Own(
        logvar(network), plain(network), own.sse, "sse", beta, own.table(), log_prior=log_prior
    )
    return own.kept(network, reading, path, steps=2000)


def _mixture(z: Tensor, mean: Tensor, log_variance: Tensor, log_weights: Tensor) -> Tensor:
    parts = Independent(Normal(mean, (0.5 * log_variance).exp()), 1).log_prob(z[:, None])
    return torch.logsumexp(parts + log_weights, 1)


@layout(
    "learnt_prior.pt", "table.csv", "a diagonal Gaussian prior learnt: prior_mu, prior_logvar",
    TO_LINE, wrong=AS_NORMAL, kl_tolerance=0.04,
)  # fmt: skip
def learnt_prior(folder: Path) -> Own:
    network = Mlp(12, 24, 4, output=None)
    network.prior_mu = nn.Parameter(torch.linspace(-1, 1, 4))
    network.prior_logvar = nn.Parameter(torch.tensor([1.0, -0.5, 0.5, 0.0]))

    def log_prior(z: Tensor, _c: object) -> Tensor:
        return Independent(
            Normal(network.prior_mu, (0.5 * network.prior_logvar).exp()), 1
        ).log_prob(z)

    return _with_prior(network, log_prior, folder / "learnt_prior.pt")


@layout(
    "mixture_prior.pt", "table.csv",
    "mixture of five Gaussians: prior.means, prior.logvars, prior.w (logits)",
    TO_LINE, wrong=AS_NORMAL, kl_tolerance=0.04,
)  # fmt: skip
def mixture_prior(folder: Path) -> Own:
    network = Mlp(12, 24, 3, output=None)
    network.prior = nn.Module()
    network.prior.means = nn.Parameter(torch.randn(5, 3))
    network.prior.logvars = nn.Parameter(torch.zeros(5, 3))
    network.prior.w = nn.Parameter(torch.zeros(5, 1, 1))

    def log_prior(z: Tensor, _c: object) -> Tensor:
        prior = network.prior
        return _mixture(z, prior.means, prior.logvars, prior.w.flatten().log_softmax(0))

    return _with_prior(network, log_prior, folder / "mixture_prior.pt")


@layout(
    "vamp_prior.pt", "table.csv",
    "VampPrior: eight pseudo-inputs, the prior the mean of their posteriors",
    TO_LINE, wrong=AS_NORMAL, kl_tolerance=0.04,
)  # fmt: skip
def vamp_prior(folder: Path) -> Own:
    network = Mlp(12, 24, 3, output=None)
    network.pseudo_inputs = nn.Parameter(own.table()[:8].clone())

    def log_prior(z: Tensor, _c: object) -> Tensor:
        mean, log_variance = network.encode(network.pseudo_inputs)
        return _mixture(z, mean, log_variance, torch.full((8,), -math.log(8)))

    return _with_prior(network, log_prior, folder / "vamp_prior.pt")


class Coupling(nn.Module):
    """One affine coupling of a RealNVP prior; the mask says which half passes."""

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask)
        self.s = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4), nn.Tanh())
        self.t = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        kept = z * self.mask
        s, t = self.s(kept) * (1 - self.mask), self.t(kept) * (1 - self.mask)
        return kept + (1 - self.mask) * (z * s.exp() + t), s.sum(1)


@layout(
    "flow_prior.pt", "table.csv", "a RealNVP prior of four couplings beside the VAE",
    TO_LINE, refused=(("flow", "coupling"),),
    next_step="a function that builds the model with its prior's log density",
    wrong=AS_NORMAL, kl_tolerance=0.04,
)  # fmt: skip
def flow_prior(folder: Path) -> Own:
    network = Mlp(12, 24, 4, output=None)
    masks = [torch.tensor([1.0, 0, 1, 0]), torch.tensor([0.0, 1, 0, 1])] * 2
    network.flow = nn.ModuleList([Coupling(mask) for mask in masks])

    def log_prior(z: Tensor, c: object) -> Tensor:
        log_det = torch.zeros(len(z))
        for step in network.flow:
            z, more = step(z)
            log_det = log_det + more
        return own.standard_normal(z, c) + log_det

    return _with_prior(network, log_prior, folder / "flow_prior.pt")
