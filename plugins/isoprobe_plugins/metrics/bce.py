"""Measure by binary cross entropy (Eq. 99-102), in logits wherever the decoder gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.contracts import Metric
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    from torch import Tensor


class BinaryCrossEntropy(Metric):
    """D = -sum_i [x_i log x_hat_i + (1 - x_i) log(1 - x_hat_i)], G = diag 1 / (2 x (1 - x)).

    D(x, x) is the entropy of x, not zero, for grey values. In logit space
    G = diag x (1 - x) / 2, which stays finite where x saturates in float32.
    """

    name = "bce"
    summary = "binary cross entropy summed over inputs"
    input_range = (0.0, 1.0)
    reference = "Eq. 99-102"

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D of each sample in nats, ``(B,)``."""
        x_hat = _inside(x_hat)
        log_likelihood = x * x_hat.log() + (1 - x) * (-x_hat).log1p()
        return -log_likelihood.flatten(1).sum(1)

    def diagonal(self, x: Tensor) -> Tensor:
        """1 / (2 x (1 - x)), ``(B, *shape)``."""
        x = _inside(x)
        return 0.5 / (x * (1 - x))

    def logits_distortion(self, x: Tensor, logits: Tensor) -> Tensor:
        """D from logits, ``(B,)``: finite for any finite logits."""
        from torch.nn.functional import softplus

        return (softplus(logits) - x * logits).flatten(1).sum(1)

    def logits_diagonal(self, logits: Tensor) -> Tensor:
        """Diagonal x (1 - x) / 2 at x = sigmoid(logits), ``(B, *shape)``, accurate near 0 and 1."""
        return 0.5 * logits.sigmoid() * (-logits).sigmoid()

    def flattened(self, x: Tensor) -> Tensor:
        """Return sqrt(2) arcsin sqrt(x), whose derivative is sqrt(G)."""
        from isoprobe.theory.geodesics import bce_coordinates

        return bce_coordinates(_inside(x).logit())

    def logits_flattened(self, logits: Tensor) -> Tensor:
        """Return the same from logits, finite for any of them."""
        from isoprobe.theory.geodesics import bce_coordinates

        return bce_coordinates(logits)

    def log_normaliser(self, beta: float, input_size: int) -> float | None:
        """Zero for binary x at beta = 1, where the sum of exp(-D) over x is 1; else none."""
        return 0.0 if beta == 1.0 else None


def _inside(x: Tensor) -> Tensor:
    """Keep probabilities off 0 and 1 by the last digit of their type."""
    import torch

    margin = torch.finfo(x.dtype).eps
    return x.clamp(margin, 1 - margin)


@hookimpl
def isoprobe_metrics() -> list[type[Metric]]:
    """Binary cross entropy."""
    return [BinaryCrossEntropy]
