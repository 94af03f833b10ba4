"""A metric that weighs errors by spatial frequency, as eyes and ears do."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isoprobe.contracts import Metric
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class Spectral(Metric):
    """D = sum_k w_k |F(x - x_hat)_k|^2 with w_k = (1 + |k|)^-power, F the unitary transform.

    F runs over the last two axes of images and over the last axis of vectors; k counts cycles.
    D is quadratic, so G = F' diag(w) F exactly; with power 0 it is the squared error.

    Args:
        power: how fast the weight falls with frequency; 0 for none.

    Raises:
        OptionError: for a power that is negative or not finite.
    """

    name = "spectral"
    summary = "squared error weighted by spatial frequency"
    reference = "Parseval's theorem"

    def __init__(self, power: float = 1.0) -> None:
        if not 0 <= power < math.inf:
            raise OptionError(f"metric 'spectral' needs power >= 0; found {power}")
        self.power = power

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample, ``(B,)``."""
        error = x - x_hat
        return (error * self.tensor_action(x, error)).flatten(1).sum(1)

    def tensor_action(self, x: Tensor, v: Tensor) -> Tensor:
        """F' diag(w) F v, ``(B, *shape)``; the same at every x."""
        import torch

        axes = _axes(x)
        spectrum = torch.fft.fftn(v, dim=axes, norm="ortho")
        filtered = torch.fft.ifftn(self._weights(x) * spectrum, dim=axes, norm="ortho")
        return filtered.real

    def _weights(self, x: Tensor) -> Tensor:
        """w over the grid of frequencies, of the shape of the transformed axes."""
        import torch

        squared = torch.zeros((), dtype=x.dtype, device=x.device)
        for axis in _axes(x):
            length = x.shape[axis]
            cycles = torch.fft.fftfreq(length, 1 / length, dtype=x.dtype, device=x.device)
            squared = squared[..., None] + cycles.square()
        return (1 + squared.sqrt()).pow(-self.power)


def _axes(x: Tensor) -> tuple[int, ...]:
    return (-2, -1) if x.ndim > 2 else (-1,)


@hookimpl
def isoprobe_metrics() -> list[type[Metric]]:
    """Return the metrics of this module."""
    return [Spectral]
