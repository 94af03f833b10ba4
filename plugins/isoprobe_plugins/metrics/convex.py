"""Measure by the paper's two losses with a scale that depends on x (Eq. 24 and 96)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.contracts import Metric
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class DownwardConvex(Metric):
    """D = a_x |x - x_hat|^2 with a_x = 2/3 + 2 |x|^2 / 21, G = a_x I (Eq. 24)."""

    name = "downward"
    summary = "squared error scaled by 2/3 + 2 |x|^2 / 21"
    reference = "Eq. 24"

    def scale(self, x: Tensor) -> Tensor:
        """a_x, ``(B,)``."""
        return 2 / 3 + 2 / 21 * x.flatten(1).square().sum(1)

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample, ``(B,)``."""
        return self.scale(x) * (x - x_hat).flatten(1).square().sum(1)


class UpwardConvex(Metric):
    """D = a_x |x - x_hat|^2 with a_x = 1 / (2/3 + 2 |x|^2 / 21), G = a_x I (Eq. 96)."""

    name = "upward"
    summary = "squared error scaled by 1 / (2/3 + 2 |x|^2 / 21)"
    reference = "Eq. 96"

    def scale(self, x: Tensor) -> Tensor:
        """a_x, ``(B,)``."""
        return 1 / (2 / 3 + 2 / 21 * x.flatten(1).square().sum(1))

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample, ``(B,)``."""
        return self.scale(x) * (x - x_hat).flatten(1).square().sum(1)


@hookimpl
def isoprobe_metrics() -> list[type[Metric]]:
    """Losses with a varying scale."""
    return [DownwardConvex, UpwardConvex]
