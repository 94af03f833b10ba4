"""Networks that the benchmarks share: the shapes of the speed bars, and real ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import isoprobe
from isoprobe.checkpoints.native import vae_from_networks
from isoprobe.contracts import VAE, Facts
from isoprobe.theory.formulas import kl_divergence
from isoprobe_plugins.architectures.mlp import Mlp

#: real data and checkpoints, beside the checkout
SHARED = Path(__file__).resolve().parents[2] / "shared"
CELEBA = SHARED / "checkpoints" / "YannDubs+disentangling-vae" / "VAE_celeba"
FACES = SHARED / "data" / "celeba64_subset.zip"
DIGITS = SHARED / "data" / "mnist.npz"
#: of the 784-1024-1024-32 network: beta for the cross entropy summed over pixels, steps, batch
_BETA, _STEPS, _BATCH = 0.392, 400, 256


@dataclass(frozen=True)
class Shape:
    """A decoder to time.

    Attributes:
        name: in words.
        decoder: the network.
        latents: n.
        batch: samples at once.
    """

    name: str
    decoder: nn.Module
    latents: int
    batch: int


def mlp(*widths: int) -> nn.Module:
    """Linear layers with softplus between."""
    layers: list[nn.Module] = []
    for start, stop in itertools.pairwise(widths):
        layers += [nn.Linear(start, stop), nn.Softplus()]
    return nn.Sequential(*layers[:-1])


def burgess(latents: int, channels: int) -> nn.Module:
    """The decoder of Burgess et al. (2018) for 64 x 64 pixels."""
    layers: list[nn.Module] = []
    for start, stop in ((latents, 256), (256, 256), (256, 512)):
        layers += [nn.Linear(start, stop), nn.ReLU()]
    layers.append(nn.Unflatten(1, (32, 4, 4)))
    for _ in range(3):
        layers += [nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, channels, 4, 2, 1))


class Logits(nn.Module):
    """The decoder of a real checkpoint, before its sigmoid."""

    def __init__(self, vae: VAE) -> None:
        super().__init__()
        self.held = vae.module
        self.decode = vae.decode_logits or vae.decode

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """``z (B, n) -> logits (B, *shape)``."""
        return self.decode(z)


def shapes() -> Iterator[Shape]:
    """The four shapes of the speed bars, and the real CelebA decoder where it lies.

    Yields:
        The next shape.
    """
    yield Shape("MLP 3-128-64-16", mlp(3, 128, 64, 16), 3, 512)
    yield Shape("MLP 32-1024-1024-784", mlp(32, 1024, 1024, 784), 32, 256)
    yield Shape("conv n = 10, 1x64x64", burgess(10, 1), 10, 64)
    yield Shape("conv n = 32, 3x64x64", burgess(32, 3), 32, 32)
    if CELEBA.is_dir():
        yield Shape("disentangling-vae, VAE_celeba", Logits(isoprobe.load(CELEBA)), 10, 64)


def digits() -> np.ndarray:
    """MNIST's training images as rows, ``(60000, 784)`` float32 in [0, 1]; noise without them."""
    if not DIGITS.is_file():
        return np.random.default_rng(0).random((60_000, 784), dtype=np.float32)
    with np.load(DIGITS) as arrays:
        return arrays["x_train"].reshape(-1, 784).astype(np.float32) / 255


def trained(images: np.ndarray) -> VAE:
    """The paper's network for MNIST (Appendix F), trained for some seconds on ``images``."""
    config = {"input_shape": [784], "encoder_widths": [1024, 1024], "decoder_widths": [1024, 1024]}
    networks = Mlp().build({**config, "latent_size": 32, "output": "sigmoid"})
    encoder, decoder = networks.encoder, networks.decoder
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], 1e-3)
    generator = np.random.default_rng(0)
    for _ in range(_STEPS):
        x = torch.from_numpy(images[generator.integers(0, len(images), _BATCH)])
        mean, std = encoder(x)
        logits = decoder.logits(mean + std * torch.randn_like(std))
        kl = kl_divergence(mean, std).sum()
        loss = functional.binary_cross_entropy_with_logits(logits, x, reduction="sum")
        optimizer.zero_grad(set_to_none=True)
        ((loss + _BETA * kl) / _BATCH).backward()
        optimizer.step()
    facts = Facts(metric="bce", beta=_BETA, input_range=(0.0, 1.0))
    return vae_from_networks(networks, facts, name="mnist", adapter="benchmark", sha256="")
