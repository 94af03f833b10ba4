"""Measure by norms without a square, which have no second derivative at x_hat = x, hence no G."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isoprobe.contracts import Metric
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class L1Norm(Metric):
    """D = sum_i |x_i - x_hat_i|; its subgradient at x_hat = x is taken as 0."""

    name = "l1"
    summary = "absolute error summed over inputs; no metric tensor"
    smooth = False
    reference = "Laplace log likelihood up to a constant"

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample, ``(B,)``."""
        return (x - x_hat).abs().flatten(1).sum(1)

    def log_normaliser(self, beta: float, input_size: int) -> float:
        """Value m log(2 beta): exp(-D / beta) is a Laplace density of scale beta up to this."""
        return input_size * math.log(2 * beta)


class L2Norm(Metric):
    """D = |x - x_hat|, without the square (Section 5.3); its subgradient at x_hat = x is 0."""

    name = "l2"
    summary = "L2 norm of the error, not squared; no metric tensor"
    smooth = False
    reference = "Section 5.3"

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample, ``(B,)``."""
        norm: Tensor = (x - x_hat).flatten(1).norm(dim=1)
        return norm

    def log_normaliser(self, beta: float, input_size: int) -> float:
        """Log of the surface of the unit sphere times Gamma(m) beta^m."""
        m = input_size
        surface = math.log(2) + m / 2 * math.log(math.pi) - math.lgamma(m / 2)
        return surface + math.lgamma(m) + m * math.log(beta)


@hookimpl
def isoprobe_metrics() -> list[type[Metric]]:
    """Norms."""
    return [L1Norm, L2Norm]
