"""Networks that are told something beside x: a class by one-hot code or by embedding."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.gallery import own
from tests.gallery.layouts.shelf import TO_UNIT, layout
from tests.gallery.own import Own


@layout(
    "cvae_concat.pt", "digits_labels.npz:x,y",
    "CVAE: one-hot class of 10 appended to x and to z (first layers 74 and 14 wide)",
    TO_UNIT,
    note="condition: the label, one-hot",
    wrong="ten of the inputs or latents taken for pixels or codes; one class for all rows",
)  # fmt: skip
def cvae_concat(folder: Path) -> Own:
    network = nn.ModuleDict({
        "fc1": nn.Linear(74, 32), "fc21": nn.Linear(32, 4), "fc22": nn.Linear(32, 4),
        "fc3": nn.Linear(14, 32), "fc4": nn.Linear(32, 64),
    })  # fmt: skip
    x, y = own.digits()

    def posterior(rows: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.relu(network["fc1"](torch.cat([rows, functional.one_hot(c, 10)], 1)))
        return network["fc21"](h), (0.5 * network["fc22"](h)).exp()

    def decode(z: Tensor, c: Tensor) -> Tensor:
        h = torch.relu(network["fc3"](torch.cat([z, functional.one_hot(c, 10)], 1)))
        return torch.sigmoid(network["fc4"](h))

    reading = Own(posterior, decode, own.bce, "bce", 1.0, x, y, others={"sse": own.sse})
    return own.kept(network, reading, folder / "cvae_concat.pt")


@layout(
    "cvae_embedding.pt", "digits_labels.npz:x,y",
    "CVAE: nn.Embedding of the class appended to x and to z",
    TO_UNIT,
    note="condition: the label, a row of label_embedding.weight (10 x 6)",
    wrong="six of the latents taken for codes; one class for all rows",
)  # fmt: skip
def cvae_embedding(folder: Path) -> Own:
    network = nn.Module()
    network.label_embedding = nn.Embedding(10, 6)
    network.encoder = nn.Sequential(nn.Linear(70, 32), nn.ReLU())
    network.fc_mu = nn.Linear(32, 4)
    network.fc_logvar = nn.Linear(32, 4)
    network.decoder = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 64), nn.Sigmoid())
    x, y = own.digits()

    def posterior(rows: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        h = network.encoder(torch.cat([rows, network.label_embedding(c)], 1))
        return network.fc_mu(h), (0.5 * network.fc_logvar(h)).exp()

    def decode(z: Tensor, c: Tensor) -> Tensor:
        return network.decoder(torch.cat([z, network.label_embedding(c)], 1))

    reading = Own(posterior, decode, own.bce, "bce", 1.0, x, y, others={"sse": own.sse})
    return own.kept(network, reading, folder / "cvae_embedding.pt")


def uniform_rate(logits: Tensor) -> Tensor:
    """Return the KL divergence of softmax(logits) to the uniform distribution, (B,)."""
    share = logits.softmax(1)
    return (share * (share + 1e-12).log()).sum(1) + math.log(logits.shape[1])


@layout(
    "gumbel_joint.pt", "digits.npy",
    "JointVAE: two Gaussian latents and one discrete of 10 by Gumbel softmax",
    TO_UNIT, head="two layers, mean and log variance, and one of class logits",
    note="answers at each row's own most probable class; the rate of the Gaussian latents, with "
    "and without that of the class",
    wrong="one class for all rows",
)  # fmt: skip
def gumbel_joint(folder: Path) -> Own:
    network = nn.Module()
    network.img_to_features = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
    network.fc_mean = nn.Linear(32, 2)
    network.fc_log_var = nn.Linear(32, 2)
    network.fc_alphas = nn.ModuleList([nn.Linear(32, 10)])
    network.latent_to_features = nn.Sequential(nn.Linear(12, 32), nn.ReLU())
    network.features_to_img = nn.Sequential(nn.Linear(32, 64), nn.Sigmoid())
    x = own.digits()[0]

    def heads(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = network.img_to_features(rows)
        logits = network.fc_alphas[0](h)
        return network.fc_mean(h), (0.5 * network.fc_log_var(h)).exp(), logits

    def decode(z: Tensor, code: Tensor) -> Tensor:
        return network.features_to_img(network.latent_to_features(torch.cat([z, code], 1)))

    # first the whole network by Gumbel softmax, then all but the classes at the hard codes
    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    for _ in range(1000):
        rows = x[torch.randint(len(x), (100,))]
        mean, std, logits = heads(rows)
        code = functional.gumbel_softmax(logits, tau=0.67)
        rate = 0.5 * (mean.square() + std.square() - 1 - 2 * std.log()).sum(1)
        discrete = uniform_rate(logits)
        image = decode(mean + std * torch.randn_like(mean), code)
        loss = (own.bce(rows, image) + 0.3 * rate + 0.1 * discrete).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def discrete_rate(rows: Tensor) -> Tensor:
        return uniform_rate(heads(rows)[2]).detach()

    def codes(rows: Tensor) -> Tensor:
        return functional.one_hot(heads(rows)[2].argmax(1), 10).float()

    reading = Own(
        lambda rows, _c: heads(rows)[:2], decode, own.bce, "bce", 0.3, x, codes(x).detach(),
        others={"sse": own.sse}, extra_rate=discrete_rate,
    )  # fmt: skip
    kept = [network.fc_mean, network.fc_log_var, network.latent_to_features]
    own.fit(
        [p for part in (*kept, network.features_to_img) for p in part.parameters()], reading, 1000
    )
    state = {"model": network.state_dict(), "latent_spec": {"cont": 2, "disc": [10]}}
    torch.save(state, folder / "gumbel_joint.pt")
    return reading
