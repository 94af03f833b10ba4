"""Decoders whose outputs are parameters of a likelihood, or a variance learnt beside them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, NegativeBinomial
from torch.nn import functional

from tests.gallery import own
from tests.gallery.layouts.nets import Mlp, logvar
from tests.gallery.layouts.shelf import RELU, TO_LINE, layout
from tests.gallery.own import Own


@layout(
    "learnt_variance.pt", "table.csv",
    "sigma-VAE: one learnt log_sigma of the output beside the networks, beta 1 of the ELBO",
    TO_LINE,
    note="beta 1 under the Gaussian likelihood; 2 exp(2 log_sigma) under sse",
)  # fmt: skip
def learnt_variance(folder: Path) -> Own:
    network = Mlp(12, 24, 4, output=None)
    network.log_sigma = nn.Parameter(torch.zeros(()))

    def gaussian(x: Tensor, x_hat: Tensor) -> Tensor:
        scale = network.log_sigma.exp()
        constant = x.shape[1] * (network.log_sigma + 0.5 * math.log(2 * math.pi))
        return own.sse(x, x_hat) / (2 * scale**2) + constant

    reading = Own(
        logvar(network), lambda z, _c: network.decode(z), gaussian, "gaussian", 1.0, own.table(),
        others={"sse": own.sse},
    )  # fmt: skip
    own.fit(network, reading, rate=8e-3)
    reading.distortion, reading.metric = own.sse, "sse"
    reading.beta = 2 * float((2 * network.log_sigma.detach()).exp())
    reading.others = {"gaussian": gaussian}
    torch.save(network.state_dict(), folder / "learnt_variance.pt")
    return reading


@layout(
    "heteroscedastic.pt", "table.csv", "decoder_mu and decoder_logvar: a variance for each output",
    RELU, output="mean and log variance",
    wrong="the mean alone under sse, a beta said to be recovered",
)  # fmt: skip
def heteroscedastic(folder: Path) -> Own:
    network = Mlp(12, 24, 4, output=None)
    network.decoder = nn.Sequential(nn.Linear(4, 24), nn.ReLU())
    network.decoder_mu = nn.Linear(24, 12)
    network.decoder_logvar = nn.Linear(24, 12)

    def decode(z: Tensor, _c: object) -> tuple[Tensor, Tensor]:
        h = network.decoder(z)
        return network.decoder_mu(h), network.decoder_logvar(h).clamp(-3, 3)

    def nll(x: Tensor, output: tuple[Tensor, Tensor]) -> Tensor:
        mean, log_variance = output
        return 0.5 * (
            (x - mean).square() / log_variance.exp() + log_variance + math.log(2 * math.pi)
        ).sum(1)

    reading = Own(
        logvar(network), decode, nll, "gaussian-heteroscedastic", 1.0, own.table(),
        others={"sse": lambda x, output: own.sse(x, output[0])},
    )  # fmt: skip
    return own.kept(network, reading, folder / "heteroscedastic.pt")


class Counts(nn.Module):
    """A small scVI: log1p, library size kept aside, softmax of scales, dispersion per gene."""

    def __init__(self, dropout: bool) -> None:
        super().__init__()
        self.px_r = nn.Parameter(torch.randn(20) * 0.1 + 1)
        self.z_encoder = nn.ModuleDict({
            "encoder": nn.Sequential(nn.Linear(20, 24), nn.ReLU()),
            "mean_encoder": nn.Linear(24, 3), "var_encoder": nn.Linear(24, 3),
        })  # fmt: skip
        self.decoder = nn.ModuleDict({
            "px_decoder": nn.Sequential(nn.Linear(3, 24), nn.ReLU()),
            "px_scale_decoder": nn.Sequential(nn.Linear(24, 20), nn.Softmax(-1)),
        })  # fmt: skip
        if dropout:
            self.decoder["px_dropout_decoder"] = nn.Linear(24, 20)

    def posterior(self, x: Tensor, _library: Tensor) -> tuple[Tensor, Tensor]:
        h = self.z_encoder["encoder"](torch.log1p(x))
        variance = self.z_encoder["var_encoder"](h).exp() + 1e-4
        return self.z_encoder["mean_encoder"](h), variance.sqrt()

    def decode(self, z: Tensor, library: Tensor) -> tuple[Tensor, Tensor | None]:
        h = self.decoder["px_decoder"](z)
        rate = self.decoder["px_scale_decoder"](h) * library
        gate = (
            self.decoder["px_dropout_decoder"](h) if "px_dropout_decoder" in self.decoder else None
        )
        return rate, gate

    def nll(self, x: Tensor, output: tuple[Tensor, Tensor | None]) -> Tensor:
        rate, gate = output
        dispersion = self.px_r.exp()
        logits = (rate + 1e-8).log() - dispersion.log()
        log_p = NegativeBinomial(dispersion, logits=logits, validate_args=False).log_prob(x)
        if gate is not None:
            kept = -functional.softplus(gate) + log_p
            zero = torch.logaddexp(-functional.softplus(-gate), kept)
            log_p = torch.where(x < 0.5, zero, kept)
        return -log_p.sum(1)


def _counts(name: str, folder: Path, metric: str) -> Own:
    own.seed(name)
    network = Counts(dropout=metric == "zinb")
    x, _ = own.counts()
    library = x.sum(1, keepdim=True).clamp_min(1)
    reading = Own(network.posterior, network.decode, network.nll, metric, 1.0, x, library)
    own.fit(network, reading)
    checkpoint = {"model_state_dict": network.state_dict(), "gene_likelihood": metric}
    torch.save(checkpoint, folder / f"{name}.pt")
    return reading


SCVI = {
    "head": "two layers, mean and log variance (1e-4 added to the variance)",
    "encoder": "log1p of the counts, relu",
    "decoder": "relu",
    "note": "condition: the library size, the sum of the row; dispersion exp(px_r)",
}


@layout(
    "counts_nb.pt", "counts.npz:x", "negative binomial counts, names as in scVI",
    output="softmax times library size", wrong="squared errors of counts", **SCVI,
)  # fmt: skip
def counts_nb(folder: Path) -> Own:
    return _counts("counts_nb", folder, "negative-binomial")


@layout(
    "counts_zinb.pt", "counts.npz:x", "zero-inflated negative binomial counts, names as in scVI",
    output="softmax times library size; logits of dropout", wrong="squared errors of counts",
    **SCVI,
)  # fmt: skip
def counts_zinb(folder: Path) -> Own:
    return _counts("counts_zinb", folder, "zinb")


@layout(
    "categorical.pt", "digit_levels.npy",
    "four levels a pixel: 64 x 4 logits, cross entropy (data of whole numbers 0 to 3)",
    RELU, output="logits over four levels",
)  # fmt: skip
def categorical(folder: Path) -> Own:
    levels = (own.digits()[0] * 3.99).floor()
    network = Mlp(64, 32, 4, output=None)
    network.decoder = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 256))

    def nll(x: Tensor, logits: Tensor) -> Tensor:
        return -Categorical(logits=logits.view(-1, 64, 4)).log_prob(x.long()).sum(1)

    reading = Own(logvar(network), lambda z, _c: network.decode(z), nll, "categorical", 1.0, levels)
    return own.kept(network, reading, folder / "categorical.pt")
