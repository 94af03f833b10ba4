"""A small convolutional encoder and decoder, as pairs of programs have them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Encoder(nn.Module):
    """Mean and log of sigma of images of 8 x 8, by one convolution and an activation."""

    def __init__(self, act: nn.Module) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 4, 2, 1)
        self.bn = nn.BatchNorm2d(4)
        self.act = act
        self.mu = nn.Linear(64, 3)
        self.ls = nn.Linear(64, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.act(self.bn(self.conv(x))).flatten(1)
        return self.mu(h), self.ls(h)


class Decoder(nn.Module):
    """The way back, its upsampling a transposed convolution."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 64)
        self.norm = norm
        self.up = nn.ConvTranspose2d(4, 1, 4, 2, 1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.norm(self.fc(z)).view(z.shape[0], 4, 4, 4)
        return torch.sigmoid(self.up(nn.functional.gelu(h)))
