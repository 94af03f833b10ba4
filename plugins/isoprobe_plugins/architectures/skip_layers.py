"""Define linear maps beside dense layers; importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

#: log sigma beyond these is taken as these, so that exp stays finite
LOWEST, HIGHEST = -12.0, 6.0


class Beside(nn.Module):
    """``x (B, a) -> (B, b)``: a linear map plus a stack of layers with tanh."""

    def __init__(self, inputs: int, widths: Sequence[int], outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        layers: list[nn.Module] = []
        for before, after in pairwise((inputs, *widths)):
            layers += [nn.Linear(before, after), nn.Tanh()]
        self.layers = nn.Sequential(*layers, nn.Linear((inputs, *widths)[-1], outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of both."""
        total: Tensor = self.linear(x) + self.layers(x)
        return total


class SkipEncoder(nn.Module):
    """``x (B, *input_shape) -> (mean, std)``, each ``(B, n)``."""

    def __init__(self, input_shape: tuple[int, ...], widths: Sequence[int], latents: int) -> None:
        super().__init__()
        self.both = Beside(math.prod(input_shape), widths, 2 * latents)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the posterior."""
        mean, log_std = self.both(x.flatten(1)).chunk(2, dim=1)
        return mean, log_std.clamp(LOWEST, HIGHEST).exp()


class SkipDecoder(nn.Module):
    """``z (B, n) -> x_hat (B, *output_shape)``, without bounds."""

    def __init__(self, latents: int, widths: Sequence[int], output_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.both = Beside(latents, widths, math.prod(output_shape))
        self.output_shape = output_shape

    def forward(self, z: Tensor) -> Tensor:
        """Return the reconstruction."""
        flat: Tensor = self.both(z)
        return flat.reshape(*flat.shape[:-1], *self.output_shape)
