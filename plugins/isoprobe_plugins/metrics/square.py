"""Measure by squared errors: summed, averaged, as a Gaussian log likelihood (Eq. 98, 108-109)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isoprobe.contracts import Metric
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.theory.formulas import gaussian_log_normaliser

if TYPE_CHECKING:
    from torch import Tensor


class _Square(Metric):
    """D = |x - x_hat|^2 / u up to a constant, G = I / u: squared errors in some unit u."""

    family = "square"

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample, ``(B,)``."""
        return (x - x_hat).square().flatten(1).sum(1) / self.family_units(x[0].numel())

    def scale(self, x: Tensor) -> Tensor:
        """a_x = 1 / u, ``(B,)``."""
        return x.new_full((len(x),), 1 / self.family_units(x[0].numel()))

    def flattened(self, x: Tensor) -> Tensor:
        """Return x / sqrt(u)."""
        units = self.family_units(x[0].numel())
        return x if units == 1 else x / math.sqrt(units)

    def log_normaliser(self, beta: float, input_size: int) -> float:
        """(m/2) log(pi beta u): exp(-D / beta) is N(x_hat, (beta u / 2) I) up to this."""
        return gaussian_log_normaliser(input_size, beta * self.family_units(input_size))


class SumSquaredError(_Square):
    """D = sum_i (x_i - x_hat_i)^2, G = I (Eq. 98)."""

    name = "sse"
    summary = "squared error summed over inputs"
    reference = "Eq. 98"


class MeanSquaredError(_Square):
    """D = (1/m) sum_i (x_i - x_hat_i)^2, G = I / m; beta is m times smaller than for the sum."""

    name = "mse"
    summary = "squared error averaged over inputs"
    reference = "Eq. 98 / m"

    def family_units(self, input_size: int) -> float:
        """The sum is m times the mean."""
        return float(input_size)


class Gaussian(_Square):
    """D = -log N(x; x_hat, sigma2 I), G = I / (2 sigma2) (Eq. 108-109).

    Args:
        sigma2: variance of the decoder's Gaussian.

    Raises:
        OptionError: for a variance that is not positive and finite.
    """

    name = "gaussian"
    summary = "Gaussian log likelihood of variance sigma2"
    reference = "Eq. 108-109"

    def __init__(self, sigma2: float = 1.0) -> None:
        if not 0 < sigma2 < math.inf:
            raise OptionError(f"metric 'gaussian' needs sigma2 > 0; found {sigma2}.")
        self.sigma2 = sigma2

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample in nats, ``(B,)``, with its constant (m/2) log(2 pi sigma2)."""
        constant = x[0].numel() / 2 * math.log(2 * math.pi * self.sigma2)
        return super().distortion(x, x_hat) + constant

    def family_units(self, input_size: int) -> float:
        """The sum of squares is 2 sigma2 times this, up to a constant."""
        return 2 * self.sigma2

    def log_normaliser(self, beta: float, input_size: int) -> float:
        """Integral of exp(-D / beta): with beta = 1 it is 1, so the log is 0."""
        per_input = (1 - 1 / beta) * math.log(2 * math.pi * self.sigma2) + math.log(beta)
        return input_size / 2 * per_input


@hookimpl
def isoprobe_metrics() -> list[type[Metric]]:
    """Squared errors."""
    return [SumSquaredError, MeanSquaredError, Gaussian]
