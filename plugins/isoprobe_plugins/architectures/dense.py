"""Define modules of dense layers; importing this imports torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from isoprobe_plugins.heads import to_std

Layers = list[tuple[int, nn.Module]]


class DenseEncoder(nn.Module):
    """``x (B, *input_shape) -> (mean, std)``, each ``(B, n)``: a trunk and two linear heads."""

    def __init__(
        self, input_shape: tuple[int, ...], hidden: Layers, latent_size: int, head: str
    ) -> None:
        super().__init__()
        self.trunk, width = _stack(math.prod(input_shape), hidden)
        self.mean = nn.Linear(width, latent_size)
        self.scale = nn.Linear(width, latent_size)
        self.head = head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the posterior."""
        features = self.trunk(x.flatten(1))
        return self.mean(features), to_std(self.head, self.scale(features))


class DenseDecoder(nn.Module):
    """``z (B, n) -> x_hat (B, *output_shape)``, without bounds."""

    def __init__(self, latent_size: int, hidden: Layers, output_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.trunk, width = _stack(latent_size, hidden)
        self.out = nn.Linear(width, math.prod(output_shape))
        self.output_shape = output_shape

    def forward(self, z: Tensor) -> Tensor:
        """Return the reconstruction."""
        flat: Tensor = self.out(self.trunk(z))
        return flat.reshape(*flat.shape[:-1], *self.output_shape)


class SigmoidDenseDecoder(DenseDecoder):
    """The same, squeezed into (0, 1)."""

    def logits(self, z: Tensor) -> Tensor:
        """Return what the sigmoid is applied to."""
        return super().forward(z)

    def forward(self, z: Tensor) -> Tensor:
        """Return the reconstruction."""
        return torch.sigmoid(self.logits(z))


def _stack(width: int, hidden: Layers) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    for size, activation in hidden:
        layers += [nn.Linear(width, size), activation]
        width = size
    return nn.Sequential(*layers), width
