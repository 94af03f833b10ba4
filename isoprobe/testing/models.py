"""Make small models to try plugins on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from isoprobe.contracts import VAE, Facts, Posterior

if TYPE_CHECKING:
    from torch import Tensor

INPUTS, LATENTS, WIDTH = 6, 3, 10


class SmallNetworks(nn.Module):
    """A nonlinear encoder and a decoder that ends in logits."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Linear(INPUTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, 2 * LATENTS)
        )
        self.decoder = nn.Sequential(nn.Linear(LATENTS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, INPUTS))

    def encode(self, x: Tensor) -> Posterior:
        """Return the posterior of a batch."""
        mean, logvar = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return Posterior(mean, torch.exp(0.5 * (logvar - 1)))

    def decode(self, z: Tensor) -> Tensor:
        """Return reconstructions in (0, 1)."""
        return torch.sigmoid(self.decoder(z))


def small_vae(seed: int = 0) -> VAE:
    """Build a VAE of 6 inputs in (0, 1) and 3 latents in float64, its weights drawn from a seed.

    Args:
        seed: of the weights.

    Returns:
        The model; its latents all carry information.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        networks = SmallNetworks().double()
    return VAE(
        decode=networks.decode,
        encode=networks.encode,
        input_shape=(INPUTS,),
        latent_shape=(LATENTS,),
        decode_logits=networks.decoder,
        module=networks,
        facts=Facts(metric="bce", input_range=(0.0, 1.0), scale_head="logvar"),
        name="small",
    )


def small_data(samples: int, seed: int = 0) -> Tensor:
    """Return rows for :func:`small_vae`, ``(samples, 6)`` in (0, 1), float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(samples, INPUTS, generator=generator, dtype=torch.float64)
