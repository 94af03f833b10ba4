"""A VAE of one's own, for tests: two heads, and a draw of z in forward, as tutorials have it."""

from __future__ import annotations

import abc

import torch
from torch import Tensor, nn


class Sampled(nn.Module, abc.ABC):
    """Draw z and decode it; who derives from it encodes and decodes."""

    @abc.abstractmethod
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and log variance."""

    @abc.abstractmethod
    def decode(self, z: Tensor) -> Tensor:
        """Reconstructions."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mu, logvar = self.encode(x)
        return self.decode(mu + torch.randn_like(mu) * (0.5 * logvar).exp()), mu, logvar
