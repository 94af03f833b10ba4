"""Scale heads other than two layers, and tensors beside the VAE that are no part of it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.gallery import own
from tests.gallery.layouts.nets import Mlp, as_bce, digits_mlp
from tests.gallery.layouts.shelf import layout
from tests.gallery.own import Own

RELU = {"encoder": "relu", "decoder": "relu"}
TABLE = {**RELU, "output": "linear"}
DIGITS = {**RELU, "output": "sigmoid"}
HALVED = "read as a log variance: the rate is far off"


class OneHead(nn.Module):
    """Encoder and decoder with one head of twice the latent size."""

    def __init__(self, features: int, latent: int, output: nn.Module | None) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(features, 32), nn.ReLU(), nn.Linear(32, 2 * latent))
        last = [] if output is None else [output]
        self.decoder = nn.Sequential(
            nn.Linear(latent, 32), nn.ReLU(), nn.Linear(32, features), *last
        )


def _trained(name: str, network: Mlp, std_of: object, beta: float, x: Tensor) -> Own:
    """Train a network whose second head becomes the deviation by `std_of`, on the table."""
    own.seed(name)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()

    def posterior(rows: Tensor, _c: object) -> tuple[Tensor, Tensor]:
        mean, raw = network.encode(rows)
        return mean, std_of(raw)

    reading = Own(posterior, lambda z, _c: network.decode(z), own.sse, "sse", beta, x)
    own.fit(network, reading)
    return reading


@layout(
    "log_std.pt", "table.csv", "fc_mu and fc_logstd: exp(head) is the deviation",
    head="two layers, mean and log deviation", wrong=HALVED, **TABLE,
)  # fmt: skip
def log_std(folder: Path) -> Own:
    network = Mlp(12, 24, 4, output=None)
    reading = _trained("log_std", network, torch.exp, 1.0, own.table())
    names = {k.replace("fc_var", "fc_logstd"): v for k, v in network.state_dict().items()}
    torch.save(names, folder / "log_std.pt")
    return reading


@layout(
    "sigma_unnamed.pt", "table.csv", "fc_mu and fc_sigma, exp(head) the deviation, name silent",
    head="two layers, mean and log deviation", wrong=HALVED, **TABLE,
)  # fmt: skip
def sigma_unnamed(folder: Path) -> Own:
    network = Mlp(12, 24, 3, output=None)
    reading = _trained("sigma_unnamed", network, torch.exp, 0.5, own.table())
    names = {k.replace("fc_var", "fc_sigma"): v for k, v in network.state_dict().items()}
    torch.save(names, folder / "sigma_unnamed.pt")
    return reading


@layout(
    "softplus.pt", "table.csv", "softplus(head) is the deviation, 1e-6 added",
    head="two layers, mean and softplus deviation", wrong=HALVED, **TABLE,
)  # fmt: skip
def softplus(folder: Path) -> Own:
    network = Mlp(12, 24, 4, output=None)
    reading = _trained(
        "softplus", network, lambda raw: functional.softplus(raw) + 1e-6, 1.0, own.table()
    )
    names = {k.replace("fc_var", "fc_std"): v for k, v in network.state_dict().items()}
    torch.save(names, folder / "softplus.pt")
    return reading


@layout(
    "softplus_variance.pt", "table.csv", "softplus(head) is the variance, as Edward and Pyro code",
    head="two layers, mean and softplus variance", wrong=HALVED, **TABLE,
)  # fmt: skip
def softplus_variance(folder: Path) -> Own:
    network = Mlp(12, 24, 4, output=None)
    reading = _trained(
        "softplus_variance", network, lambda raw: (functional.softplus(raw) + 1e-8).sqrt(), 2.0,
        own.table(),
    )  # fmt: skip
    torch.save(network.state_dict(), folder / "softplus_variance.pt")
    return reading


@layout(
    "halves.pt", "digits.npy", "one head of 2n, cut in halves by chunk",
    head="one layer, halves, mean then log variance", **DIGITS,
)  # fmt: skip
def halves(folder: Path) -> Own:
    network = OneHead(64, 5, nn.Sigmoid())

    def posterior(x: Tensor, _c: object) -> tuple[Tensor, Tensor]:
        mean, logvar = network.encoder(x).chunk(2, 1)
        return mean, (0.5 * logvar).exp()

    return _one_head(network, posterior, folder / "halves.pt")


@layout(
    "interleaved.pt", "digits.npy", "one head of 2n, view(-1, n, 2): mean, log variance by turns",
    head="one layer, interleaved, mean and log variance", wrong="cut in halves", **DIGITS,
)  # fmt: skip
def interleaved(folder: Path) -> Own:
    network = OneHead(64, 5, nn.Sigmoid())

    def posterior(x: Tensor, _c: object) -> tuple[Tensor, Tensor]:
        pairs = network.encoder(x).view(len(x), -1, 2)
        return pairs[..., 0], (0.5 * pairs[..., 1]).exp()

    return _one_head(network, posterior, folder / "interleaved.pt")


@layout(
    "two_rows.pt", "digits.npy",
    "one head of 2n, view(-1, 2, n) with the log variance first",
    head="one layer, halves, log variance then mean", wrong="mean and log variance swapped",
    **DIGITS,
)  # fmt: skip
def two_rows(folder: Path) -> Own:
    network = OneHead(64, 5, nn.Sigmoid())

    def posterior(x: Tensor, _c: object) -> tuple[Tensor, Tensor]:
        rows = network.encoder(x).view(len(x), 2, -1)
        return rows[:, 1], (0.5 * rows[:, 0]).exp()

    return _one_head(network, posterior, folder / "two_rows.pt")


def _one_head(network: OneHead, posterior: object, path: Path) -> Own:
    reading = Own(
        posterior, lambda z, _c: network.decoder(z), own.bce, "bce", 1.0, own.digits()[0],
        others={"sse": own.sse},
    )  # fmt: skip
    return own.kept(network, reading, path)


@layout(
    "classifier.pt", "digits.npy", "a classifier of ten classes on the mean, trained with it",
    head="two layers, mean and log variance", **DIGITS,
)  # fmt: skip
def classifier(folder: Path) -> Own:
    network = Mlp()
    network.classifier = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 10))
    x, y = own.digits()
    reading = as_bce(network, x, condition=y)

    def also(rows: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(network.classifier(network.encode(rows)[0]), labels)

    return own.kept(network, reading, folder / "classifier.pt", extra=also)


@layout(
    "discriminator.pt", "digits.npy", "a discriminator of latents and its optimizer beside the VAE",
    head="two layers, mean and log variance", **DIGITS,
)  # fmt: skip
def discriminator(folder: Path) -> Own:
    network, reading = digits_mlp("discriminator", latent=4)
    critic = nn.Sequential(
        nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 32), nn.LeakyReLU(0.2), nn.Linear(32, 2)
    )
    optimizer = torch.optim.Adam(critic.parameters(), lr=1e-4)
    torch.save(
        {
            "VAE": network.state_dict(),
            "D": critic.state_dict(),
            "optim_D": optimizer.state_dict(),
            "iter": 1500,
        },
        folder / "discriminator.pt",
    )
    return reading


@layout(
    "whole_pickle.pt", "digits.npy", "torch.save(model): the module itself, class and all",
    head="two layers, mean and log variance", **DIGITS,
)  # fmt: skip
def whole_pickle(folder: Path) -> Own:
    network, reading = digits_mlp("whole_pickle")
    torch.save(network, folder / "whole_pickle.pt")
    return reading
