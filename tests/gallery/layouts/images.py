"""Convolutional layouts: VanillaVAE and its relatives, residual, upsampling, odd paddings."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.gallery import own
from tests.gallery.layouts.nets import as_bce, as_sse, logvar
from tests.gallery.layouts.shelf import TO_UNIT, layout
from tests.gallery.own import Own


class Vanilla(nn.Module):
    """The VanillaVAE of PyTorch-VAE: strided blocks, fc_mu, fc_var, decoder_input, final_layer."""

    def __init__(
        self,
        channels: int,
        size: int,
        latent: int,
        widths: tuple[int, ...],
        activated_input: bool = False,
        last: nn.Module | None = None,
    ) -> None:
        super().__init__()
        blocks, before = [], channels
        for width in widths:
            blocks.append(
                nn.Sequential(
                    nn.Conv2d(before, width, 3, stride=2, padding=1),
                    nn.BatchNorm2d(width),
                    nn.LeakyReLU(),
                )
            )
            before = width
        self.encoder = nn.Sequential(*blocks)
        self.side = size // 2 ** len(widths)
        flat = widths[-1] * self.side**2
        self.fc_mu = nn.Linear(flat, latent)
        self.fc_var = nn.Linear(flat, latent)
        self.decoder_input = nn.Linear(latent, flat)
        self.activated_input = activated_input
        reverse = widths[::-1]
        self.decoder = nn.Sequential(
            *[
                nn.Sequential(
                    nn.ConvTranspose2d(a, b, 3, stride=2, padding=1, output_padding=1),
                    nn.BatchNorm2d(b),
                    nn.LeakyReLU(),
                )
                for a, b in pairwise(reverse)
            ]
        )
        self.final_layer = nn.Sequential(
            nn.ConvTranspose2d(reverse[-1], reverse[-1], 3, stride=2, padding=1, output_padding=1),
            nn.BatchNorm2d(reverse[-1]),
            nn.LeakyReLU(),
            nn.Conv2d(reverse[-1], channels, 3, padding=1),
            nn.Sigmoid() if last is None else last,
        )

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x).flatten(1)
        return self.fc_mu(h), self.fc_var(h)

    def decode(self, z: Tensor) -> Tensor:
        h = self.decoder_input(z)
        if self.activated_input:
            h = functional.relu(h)
        h = h.view(len(z), -1, self.side, self.side)
        return self.final_layer(self.decoder(h))


BLOCK = "batch norm, leaky_relu(0.01)"
BLOCKS = {**TO_UNIT, "encoder": BLOCK, "decoder": f"none after decoder_input, then {BLOCK}"}


@layout(
    "vanilla_vae.pth", "spots32.npz:x",
    "VanillaVAE (PyTorch-VAE), 3 x 32 x 32, mean squared error and a small KL weight",
    BLOCKS,
)  # fmt: skip
def vanilla_vae(folder: Path) -> Own:
    network = Vanilla(3, 32, 6, (4, 8, 12))
    # M_N = 2.5e-4 beside a mean over 3072 values is 0.768 beside their sum
    reading = as_sse(network, own.blobs(32, 3), 2.5e-4 * 3072)
    return own.kept(network, reading, folder / "vanilla_vae.pth", steps=700, batch=40)


@layout(
    "beta_vae_relu.pth", "spots16.npz:x", "BetaVAE layout with ReLU after decoder_input, beta 4",
    BLOCKS, decoder=f"relu after decoder_input, then {BLOCK}",
)  # fmt: skip
def beta_vae_relu(folder: Path) -> Own:
    network = Vanilla(1, 16, 5, (6, 12), activated_input=True)
    reading = as_bce(network, own.blobs(16, 1), 4.0)
    return own.kept(network, reading, folder / "beta_vae_relu.pth", steps=900, batch=50)


@layout(
    "lightning.ckpt", "digit_images.npy",
    "a Lightning checkpoint, 'model.' before the names, hyper-parameters beside them",
    BLOCKS,
)  # fmt: skip
def lightning(folder: Path) -> Own:
    import lightning as framework

    own.seed("lightning")

    class Experiment(framework.LightningModule):
        def __init__(self, latent_dim: int = 5, kld_weight: float = 1.0, lr: float = 4e-3) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.model = Vanilla(1, 8, latent_dim, (8, 16))

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.Adam(self.parameters(), lr=self.hparams["lr"])

    experiment = Experiment()
    reading = as_bce(experiment.model, own.digit_images())
    own.fit(experiment, reading, steps=900)
    trainer = framework.Trainer(
        logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu",
        enable_model_summary=False, barebones=False, max_steps=0,
    )  # fmt: skip
    trainer.strategy.connect(experiment)
    trainer.save_checkpoint(folder / "lightning.ckpt", weights_only=True)
    return reading


class ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        h = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(x + self.bn2(self.conv2(h)))


class ResNetVae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(1, 8, 4, stride=2, padding=1)
        self.layer1 = ResidualBlock(8)
        self.down = nn.Conv2d(8, 12, 4, stride=2, padding=1)
        self.layer2 = ResidualBlock(12)
        self.fc_mu = nn.Linear(12 * 16, 5)
        self.fc_logvar = nn.Linear(12 * 16, 5)
        self.fc_dec = nn.Linear(5, 12 * 16)
        self.layer3 = ResidualBlock(12)
        self.up1 = nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1)
        self.layer4 = ResidualBlock(8)
        self.up2 = nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.layer1(functional.relu(self.conv_in(x)))
        h = self.layer2(functional.relu(self.down(h))).flatten(1)
        return self.fc_mu(h), self.fc_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        h = self.layer3(functional.relu(self.fc_dec(z)).view(-1, 12, 4, 4))
        h = self.layer4(functional.relu(self.up1(h)))
        return torch.sigmoid(self.up2(h))


@layout(
    "resnet_vae.pt", "spots16.npz:x", "residual blocks with conv1, bn1, conv2, bn2",
    TO_UNIT, encoder="relu, residual blocks", decoder="relu, residual blocks",
)  # fmt: skip
def resnet_vae(folder: Path) -> Own:
    network = ResNetVae()
    reading = as_bce(network, own.blobs(16, 1))
    return own.kept(network, reading, folder / "resnet_vae.pt", steps=700, batch=40)


class Sequentials(nn.Module):
    """An encoder and a decoder given as lists of layers, with the head's two layers named."""

    def __init__(self, encoder: list[nn.Module], flat: int, latent: int, dec: list) -> None:
        super().__init__()
        self.encoder = nn.Sequential(*encoder)
        self.fc_mu = nn.Linear(flat, latent)
        self.fc_logvar = nn.Linear(flat, latent)
        self.decoder = nn.Sequential(*dec)

    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.encoder(x)
        return self.fc_mu(h), self.fc_logvar(h)

    def decode(self, z: Tensor) -> Tensor:
        return self.decoder(z)


@layout(
    "upsample.pt", "spots16.npz:x", "nearest upsampling, then convolutions, in the decoder",
    TO_UNIT,
)  # fmt: skip
def upsample(folder: Path) -> Own:
    network = Sequentials(
        [
            nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(6, 12, 3, stride=2, padding=1), nn.ReLU(), nn.Flatten(),
        ],
        12 * 16, 5,
        [
            nn.Linear(5, 12 * 16), nn.ReLU(), nn.Unflatten(1, (12, 4, 4)),
            nn.Upsample(scale_factor=2), nn.Conv2d(12, 8, 3, padding=1), nn.ReLU(),
            nn.Upsample(scale_factor=2), nn.Conv2d(8, 1, 3, padding=1), nn.Sigmoid(),
        ],
    )  # fmt: skip
    reading = as_bce(network, own.blobs(16, 1))
    return own.kept(network, reading, folder / "upsample.pt", steps=800, batch=40)


@layout(
    "pooled.pt", "spots16.npz:x", "max pooling between convolutions, kernel 2 stride 2 back up",
    TO_UNIT, encoder="relu, max pooling",
)  # fmt: skip
def pooled(folder: Path) -> Own:
    network = Sequentials(
        [
            nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 12, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        ],
        12 * 16, 5,
        [
            nn.Linear(5, 12 * 16), nn.ReLU(), nn.Unflatten(1, (12, 4, 4)),
            nn.ConvTranspose2d(12, 8, 2, stride=2), nn.ReLU(),
            nn.ConvTranspose2d(8, 1, 2, stride=2), nn.Sigmoid(),
        ],
    )  # fmt: skip
    reading = as_bce(network, own.blobs(16, 1))
    return own.kept(network, reading, folder / "pooled.pt", steps=800, batch=40)


@layout(
    "kernel3_stride2.pt", "digit_images.npy",
    "kernel 3, stride 2, padding 1; output padding only where the size asks for it",
    TO_UNIT,
)  # fmt: skip
def kernel3_stride2(folder: Path) -> Own:
    network = Sequentials(
        [
            nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(),
        ],
        16, 4,
        [
            nn.Linear(4, 16), nn.ReLU(), nn.Unflatten(1, (16, 1, 1)),
            nn.ConvTranspose2d(16, 16, 3, stride=2, output_padding=1), nn.ReLU(),
            nn.ConvTranspose2d(16, 1, 3, stride=2, padding=1, output_padding=1), nn.Sigmoid(),
        ],
    )  # fmt: skip
    reading = as_bce(network, own.digit_images())
    return own.kept(network, reading, folder / "kernel3_stride2.pt", steps=1200)


@layout(
    "conv_head.pt", "spots16.npz:x",
    "no flattening: conv_mu and conv_logvar, a latent of 2 x 4 x 4",
    head="two convolutions, mean and log variance", encoder="silu", decoder="silu",
    output="linear",
)  # fmt: skip
def conv_head(folder: Path) -> Own:
    network = nn.Module()
    network.encoder = nn.Sequential(
        nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.SiLU(),
        nn.Conv2d(6, 12, 3, stride=2, padding=1), nn.SiLU(),
    )  # fmt: skip
    network.conv_mu = nn.Conv2d(12, 2, 1)
    network.conv_logvar = nn.Conv2d(12, 2, 1)
    network.decoder = nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1), nn.SiLU(),
        nn.ConvTranspose2d(12, 8, 4, stride=2, padding=1), nn.SiLU(),
        nn.ConvTranspose2d(8, 1, 4, stride=2, padding=1),
    )  # fmt: skip

    def encode(x: Tensor) -> tuple[Tensor, Tensor]:
        h = network.encoder(x)
        return network.conv_mu(h), network.conv_logvar(h)

    network.encode = encode
    reading = Own(
        logvar(network), lambda z, _c: network.decoder(z.view(-1, 2, 4, 4)), own.sse, "sse", 0.3,
        own.blobs(16, 1),
    )  # fmt: skip
    return own.kept(network, reading, folder / "conv_head.pt", steps=800, batch=40)


@layout(
    "padded.pt", "digit_images.npy",
    "trained on digits padded from 8 x 8 to 16 x 16, as MNIST is padded to 32",
    BLOCKS,
    refused=(("pad",),), next_step="a way to pad the data by 4 on each side",
    wrong="the digits enlarged to 16 x 16",
)  # fmt: skip
def padded(folder: Path) -> Own:
    network = Vanilla(1, 16, 5, (6, 12))
    reading = as_bce(network, functional.pad(own.digit_images(), (4, 4, 4, 4)))
    return own.kept(network, reading, folder / "padded.pt", steps=700, batch=50)
