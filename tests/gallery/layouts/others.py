"""Models that are no plain VAE: no scale, a codebook, several levels of latents."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.gallery import own
from tests.gallery.layouts.shelf import layout
from tests.gallery.own import Own

CODE_ONLY = "a function that builds the model"


@layout(
    "autoencoder.pt", "digits.npy", "a plain autoencoder: encoder and decoder, no scale head",
    refused=(("autoencoder", "no scale", "no variance", "no posterior", "deterministic"),),
    next_step="its decoder alone can be looked at (spectrum)",
    wrong="half of the code taken for a log variance", encoder="relu", decoder="relu",
    output="sigmoid", head="none",
)  # fmt: skip
def autoencoder(folder: Path) -> Own:
    network = nn.Module()
    network.encoder = nn.Sequential(
        nn.Linear(64, 32), nn.ReLU(True), nn.Linear(32, 16), nn.ReLU(True), nn.Linear(16, 4)
    )
    network.decoder = nn.Sequential(
        nn.Linear(4, 16), nn.ReLU(True), nn.Linear(16, 32), nn.ReLU(True), nn.Linear(32, 64),
        nn.Sigmoid(),
    )  # fmt: skip
    reading = Own(
        lambda x, _c: (network.encoder(x), torch.ones(len(x), 4) * 1e-3),
        lambda z, _c: network.decoder(z), own.sse, "sse", 0.0, own.digits()[0],
    )  # fmt: skip
    return own.kept(network, reading, folder / "autoencoder.pt")


@layout(
    "vq_vae.pt", "digit_images.npy", "VQ-VAE: encoder, vq_layer.embedding.weight (16 x 4), decoder",
    refused=(("codebook", "quantis", "quantiz", "VQ"),), next_step=CODE_ONLY,
    wrong="the code taken for a mean", head="none", encoder="relu", decoder="relu",
    output="sigmoid",
)  # fmt: skip
def vq_vae(folder: Path) -> Own:
    network = nn.Module()
    network.encoder = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 4, 3, padding=1)
    )
    network.vq_layer = nn.Module()
    network.vq_layer.embedding = nn.Embedding(16, 4)
    network.decoder = nn.Sequential(
        nn.Conv2d(4, 16, 3, padding=1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1), nn.Sigmoid()
    )

    def quantised(x: Tensor) -> tuple[Tensor, Tensor]:
        code = network.encoder(x)
        table = network.vq_layer.embedding.weight
        flat = code.permute(0, 2, 3, 1).reshape(-1, 4)
        chosen = table[torch.cdist(flat, table).argmin(1)]
        return code, chosen.view(len(x), 4, 4, 4).permute(0, 3, 1, 2)

    optimizer = torch.optim.Adam(network.parameters(), lr=4e-3)
    x = own.digit_images()
    for _ in range(600):
        rows = x[torch.randint(len(x), (64,))]
        code, chosen = quantised(rows)
        image = network.decoder(code + (chosen - code).detach())
        loss = functional.mse_loss(image, rows) + functional.mse_loss(chosen, code.detach())
        loss = loss + 0.25 * functional.mse_loss(code, chosen.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(network.state_dict(), folder / "vq_vae.pt")
    return Own(
        lambda rows, _c: (quantised(rows)[1].flatten(1), torch.full((len(rows), 64), 1e-3)),
        lambda z, _c: network.decoder(z.view(-1, 4, 4, 4)), own.sse, "sse", 0.0, x,
    )  # fmt: skip


@layout(
    "ladder_vae.pt", "table.csv",
    "two levels of latents: q(z1 | x), q(z2 | z1), p(z1 | z2) learnt",
    refused=(("hierarch", "ladder", "levels", "several latents", "two groups"),),
    next_step=CODE_ONLY, wrong="one level taken for the whole",
    head="two pairs of layers, mean and log variance", encoder="relu", decoder="relu",
    output="linear", kl_tolerance=0.04,
)  # fmt: skip
def ladder_vae(folder: Path) -> Own:
    network = nn.ModuleDict({
        "enc1": nn.Sequential(nn.Linear(12, 24), nn.ReLU()),
        "enc1_mu": nn.Linear(24, 4), "enc1_logvar": nn.Linear(24, 4),
        "enc2": nn.Sequential(nn.Linear(24, 16), nn.ReLU()),
        "enc2_mu": nn.Linear(16, 2), "enc2_logvar": nn.Linear(16, 2),
        "dec2": nn.Sequential(nn.Linear(2, 16), nn.ReLU()),
        "dec2_mu": nn.Linear(16, 4), "dec2_logvar": nn.Linear(16, 4),
        "dec1": nn.Sequential(nn.Linear(4, 24), nn.ReLU()), "dec1_out": nn.Linear(24, 12),
    })  # fmt: skip

    def posterior(x: Tensor, _c: object) -> tuple[Tensor, Tensor]:
        h1 = network["enc1"](x)
        h2 = network["enc2"](h1)
        mean = torch.cat([network["enc2_mu"](h2), network["enc1_mu"](h1)], 1)
        log_variance = torch.cat([network["enc2_logvar"](h2), network["enc1_logvar"](h1)], 1)
        return mean, (0.5 * log_variance).exp()

    def log_prior(z: Tensor, c: object) -> Tensor:
        h = network["dec2"](z[:, :2])
        mean, log_variance = network["dec2_mu"](h), network["dec2_logvar"](h)
        noise = (z[:, 2:] - mean) / (0.5 * log_variance).exp()
        below = own.standard_normal(noise, c) - 0.5 * log_variance.sum(1)
        return own.standard_normal(z[:, :2], c) + below

    reading = Own(
        posterior, lambda z, _c: network["dec1_out"](network["dec1"](z[:, 2:])), own.sse, "sse",
        1.0, own.table(), log_prior=log_prior,
    )  # fmt: skip
    return own.kept(network, reading, folder / "ladder_vae.pt", steps=2000)
