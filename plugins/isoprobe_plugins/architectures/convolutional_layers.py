"""Define modules of the VAE with GDN (Appendix C.2); importing this imports torch."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from isoprobe_plugins.architectures.gdn_layers import Gdn
from isoprobe_plugins.heads import to_std


class GdnEncoder(nn.Module):
    """``x (B, C, H, W) -> (mean, std)``, each ``(B, n)``: halving convolutions, then dense layers.

    Args:
        input_shape: (C, H, W), H and W divisible by 2 for each kernel.
        kernels: sides of the kernels, odd, from the input on.
        channels: of every convolution.
        hidden: widths of the dense layers.
        latent_size: number of latents n.
        head: form of the scale head.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int],
        kernels: Sequence[int],
        channels: int,
        hidden: Sequence[int],
        latent_size: int,
        head: str,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        incoming = input_shape[0]
        for kernel in kernels:
            layers += [nn.Conv2d(incoming, channels, kernel, 2, kernel // 2), Gdn(channels)]
            incoming = channels
        self.convolutions = nn.Sequential(*layers)
        width = math.prod(feature_shape(input_shape, kernels, channels))
        self.dense, width = _softplus_layers(width, hidden)
        self.mean = nn.Linear(width, latent_size)
        self.scale = nn.Linear(width, latent_size)
        self.head = head

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the posterior."""
        features = self.dense(self.convolutions(x).flatten(1))
        return self.mean(features), to_std(self.head, self.scale(features))


class GdnDecoder(nn.Module):
    """``z (B, n) -> x_hat (B, C, H, W)``: dense layers, then doubling convolutions.

    Args:
        output_shape: (C, H, W).
        kernels: sides of the kernels, from the output back.
        channels: of every convolution but the last.
        hidden: widths of the dense layers before the one the convolutions start from.
        latent_size: number of latents n.
    """

    def __init__(
        self,
        output_shape: tuple[int, int, int],
        kernels: Sequence[int],
        channels: int,
        hidden: Sequence[int],
        latent_size: int,
    ) -> None:
        super().__init__()
        self.start = feature_shape(output_shape, kernels, channels)
        self.dense, _ = _softplus_layers(latent_size, [*hidden, math.prod(self.start)])
        layers: list[nn.Module] = []
        for index, kernel in reversed(list(enumerate(kernels))):
            outgoing = channels if index else output_shape[0]
            layers += [
                nn.ConvTranspose2d(channels, outgoing, kernel, 2, kernel // 2, 1),
                Gdn(outgoing, inverted=True),
            ]
        self.convolutions = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        """Return the reconstruction."""
        features = self.dense(z)
        image: Tensor = self.convolutions(features.reshape(*features.shape[:-1], *self.start))
        return image


def feature_shape(
    image: tuple[int, int, int], kernels: Sequence[int], channels: int
) -> tuple[int, int, int]:
    """Shape between convolutions and dense layers."""
    steps = 2 ** len(kernels)
    return channels, image[1] // steps, image[2] // steps


def _softplus_layers(width: int, hidden: Sequence[int]) -> tuple[nn.Sequential, int]:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(width, size), nn.Softplus()]
        width = size
    return nn.Sequential(*layers), width
