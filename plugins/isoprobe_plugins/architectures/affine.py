"""Define the affine encoder; importing this imports torch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class AffineEncoder(nn.Module):
    """``x (B, *input_shape) -> (mean, std)``, each ``(B, n)``; std is the same for all x."""

    def __init__(self, input_size: int, latent_size: int) -> None:
        super().__init__()
        linear = nn.Linear(input_size, latent_size)
        self.weight, self.bias = linear.weight, linear.bias
        self.log_std = nn.Parameter(torch.zeros(latent_size))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the posterior."""
        mean = x.flatten(1) @ self.weight.T + self.bias
        return mean, self.log_std.exp().expand_as(mean)
