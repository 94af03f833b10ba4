"""Measure counts by log likelihoods: Poisson and negative binomial, the decoder giving the mean.

G, half the Hessian of D(x, .) at x, is half the Fisher information of the mean.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isoprobe.contracts import Metric
from isoprobe.errors import OptionError
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor

#: means below this are taken as this, so that a mean rounded to 0 has a finite likelihood
LEAST_MEAN = 1e-12


class Poisson(Metric):
    """D = sum_i [x_hat_i - x_i log x_hat_i + log x_i!], G = diag 1 / (2 x)."""

    name = "poisson"
    summary = "Poisson log likelihood of counts, x_hat the rate"
    input_range = (0.0, math.inf)
    reference = "Fisher information of the rate, 1 / x"

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample in nats, ``(B,)``, for counts x >= 0 and rates x_hat > 0."""
        rate = x_hat.clamp_min(LEAST_MEAN)
        return (rate - x * rate.log() + (x + 1).lgamma()).flatten(1).sum(1)

    def diagonal(self, x: Tensor) -> Tensor:
        """Half the Fisher information, 1 / (2 x), ``(B, *shape)``."""
        return 0.5 / x.clamp_min(LEAST_MEAN)


class NegativeBinomial(Metric):
    """Negative binomial of mean x_hat and variance x_hat + x_hat^2 / dispersion.

    D = -sum_i log NB(x_i; x_hat_i, r), r the dispersion, and G = diag r / (2 x (r + x)).

    Args:
        dispersion: r, the same for every input; the Poisson is its limit at infinity.

    Raises:
        OptionError: for a dispersion that is not positive and finite.
    """

    name = "negative-binomial"
    summary = "negative binomial log likelihood of counts, x_hat the mean"
    input_range = (0.0, math.inf)
    reference = "Fisher information of the mean, 1 / (x + x^2 / r)"

    def __init__(self, dispersion: float = 1.0) -> None:
        if not 0 < dispersion < math.inf:
            raise OptionError(
                f"metric 'negative-binomial' needs dispersion > 0; found {dispersion}."
            )
        self.dispersion = dispersion

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample in nats, ``(B,)``, for counts x >= 0 and means x_hat > 0."""
        r = self.dispersion
        mean = x_hat.clamp_min(LEAST_MEAN)
        # log(r + mean) as log r + log1p(mean / r): the difference r log(r / (r + mean)) stays exact
        # where r is large.
        grown = (mean / r).log1p()
        choices = (x + r).lgamma() - math.lgamma(r) - (x + 1).lgamma()
        log_likelihood = choices - (x + r) * grown + x * (mean.log() - math.log(r))
        return -log_likelihood.flatten(1).sum(1)

    def diagonal(self, x: Tensor) -> Tensor:
        """Half the Fisher information, r / (2 x (r + x)), ``(B, *shape)``."""
        x = x.clamp_min(LEAST_MEAN)
        return 0.5 / (x * (1 + x / self.dispersion))


@hookimpl
def isoprobe_metrics() -> list[type[Metric]]:
    """Counts."""
    return [Poisson, NegativeBinomial]
