"""Scale heads other than two layers, and tensors beside the VAE that are no part of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.gallery import own
from tests.gallery.layouts.nets import Mlp, as_bce, of_digits
from tests.gallery.layouts.shelf import TO_LINE, TO_UNIT, layout
from tests.gallery.own import Own

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


def _deviation(
    path: Path,
    std_of: Callable[[Tensor], Tensor],
    head: str = "fc_var",
    latent: int = 4,
    beta: float = 1.0,
) -> Own:
    """Train on the table a network whose second head becomes the deviation by `std_of`."""
    network = Mlp(12, 24, latent, output=None)
    own.seed(path.stem)
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()

    def posterior(rows: Tensor, _c: object) -> tuple[Tensor, Tensor]:
        mean, raw = network.encode(rows)
        return mean, std_of(raw)

    reading = Own(posterior, lambda z, _c: network.decode(z), own.sse, "sse", beta, own.table())
    own.fit(network, reading)
    torch.save({k.replace("fc_var", head): v for k, v in network.state_dict().items()}, path)
    return reading


@layout(
    "log_std.pt", "table.csv", "fc_mu and fc_logstd: exp(head) is the deviation",
    TO_LINE, head="two layers, mean and log deviation", wrong=HALVED,
)  # fmt: skip
def log_std(folder: Path) -> Own:
    return _deviation(folder / "log_std.pt", torch.exp, "fc_logstd")


@layout(
    "sigma_unnamed.pt", "table.csv", "fc_mu and fc_sigma, exp(head) the deviation, name silent",
    TO_LINE, head="two layers, mean and log deviation", wrong=HALVED,
)  # fmt: skip
def sigma_unnamed(folder: Path) -> Own:
    return _deviation(folder / "sigma_unnamed.pt", torch.exp, "fc_sigma", latent=3, beta=0.5)


@layout(
    "softplus.pt", "table.csv", "softplus(head) is the deviation, 1e-6 added",
    TO_LINE, head="two layers, mean and softplus deviation", wrong=HALVED,
)  # fmt: skip
def softplus(folder: Path) -> Own:
    def std_of(raw: Tensor) -> Tensor:
        return functional.softplus(raw) + 1e-6

    return _deviation(folder / "softplus.pt", std_of, "fc_std")


@layout(
    "softplus_variance.pt", "table.csv", "softplus(head) is the variance, as Edward and Pyro code",
    TO_LINE, head="two layers, mean and softplus variance", wrong=HALVED,
)  # fmt: skip
def softplus_variance(folder: Path) -> Own:
    def std_of(raw: Tensor) -> Tensor:
        return (functional.softplus(raw) + 1e-8).sqrt()

    return _deviation(folder / "softplus_variance.pt", std_of, beta=2.0)


@layout(
    "halves.pt", "digits.npy", "one head of 2n, cut in halves by chunk",
    TO_UNIT, head="one layer, halves, mean then log variance",
)  # fmt: skip
def halves(folder: Path) -> Own:
    network = OneHead(64, 5, nn.Sigmoid())

    def posterior(x: Tensor, _c: object) -> tuple[Tensor, Tensor]:
        mean, logvar = network.encoder(x).chunk(2, 1)
        return mean, (0.5 * logvar).exp()

    return _one_head(network, posterior, folder / "halves.pt")


@layout(
    "interleaved.pt", "digits.npy", "one head of 2n, view(-1, n, 2): mean, log variance by turns",
    TO_UNIT, head="one layer, interleaved, mean and log variance", wrong="cut in halves",
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
    TO_UNIT, head="one layer, halves, log variance then mean",
    wrong="mean and log variance swapped",
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
    TO_UNIT,
)  # fmt: skip
def classifier(folder: Path) -> Own:
    network = Mlp()
    network.classifier = nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 10))
    x, y = own.digits()
    reading = as_bce(network, x, condition=y)

    def also(rows: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(network.classifier(network.encode(rows)[0]), labels)

    return own.kept(network, reading, folder / "classifier.pt", extra=also)


@of_digits(
    "discriminator.pt", "a discriminator of latents and its optimizer beside the VAE", latent=4
)
def discriminator(network: Mlp, path: Path) -> None:
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
        path,
    )


@of_digits("whole_pickle.pt", "torch.save(model): the module itself, class and all")
def whole_pickle(network: Mlp, path: Path) -> None:
    torch.save(network, path)
