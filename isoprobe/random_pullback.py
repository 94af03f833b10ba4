"""The diagonal of J' G J from random signs, at a cost that does not depend on n.

For v = sigma * s with random signs s, s_j (J' G J v)_j / sigma_j has g_jj as its mean (Bekas,
Kokiopoulou and Saad, 2007, for a matrix that is only known by its products). Scaled by sigma, the
terms that must average out are sigma_j sigma_k g_jk: small where the columns are orthogonal, as an
ideal VAE's are, so that their size measures how far a model is from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.routes import Route
    from isoprobe.tensors import OutputMetric

#: one sample in this many gets a second draw, whose difference from the first measures the spread
SPREAD_EVERY = 8


@dataclass(frozen=True)
class RandomPullback:
    """Unbiased estimates of the pullback's diagonal.

    Attributes:
        output: decoder output at z, ``(B, *shape)``.
        diagonal: estimates of g_jj, ``(B, n)``; single ones may be negative.
    """

    output: Tensor
    diagonal: Tensor


def random_pullback(
    view: OutputMetric, z: Tensor, std: Tensor, signs: Tensor, route: Route
) -> RandomPullback:
    """Estimate the diagonal with one forward and one backward derivative.

    Args:
        view: metric and decoder.
        z: latents, ``(B, n)``.
        std: scale of the directions, sigma, positive, ``(B, n)``.
        signs: -1 and +1 with equal chance, independent, ``(B, n)``.
        route: how the decoder is differentiated forwards.

    Returns:
        Estimates whose mean over the signs is the diagonal, exactly.
    """
    output, tangents = route.push(view.decode, z, (std * signs)[None])
    with torch.no_grad():
        cotangent = view.action(output, tangents)[0]
    with torch.enable_grad(), route.kernels():
        leaf = z.detach().requires_grad_()
        (product,) = torch.autograd.grad(view.decode(leaf), leaf, cotangent)
    return RandomPullback(output, signs * product / std)


def spread(first: Tensor, second: Tensor, std: Tensor) -> Tensor:
    """Unbiased estimate of the sum over k != j of (sigma_j sigma_k g_jk)^2.

    Args:
        first: an estimate of the diagonal, ``(B, n)``.
        second: an independent one of the same samples, ``(B, n)``.
        std: sigma, ``(B, n)``.

    Returns:
        ``(B, n)``; its mean is zero exactly when the columns are orthogonal.
    """
    return 0.5 * (std.square() * (first - second)).square()
