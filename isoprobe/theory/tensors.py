"""Read volume, condition and evenness off the metric M(z) = J'GJ + (beta/2) I of one sample.

All three come from the Gram J'GJ that is there anyway, in float64.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def finite_rate_tensor(gram: Tensor, beta: float) -> Tensor:
    """M = J'GJ + (beta/2) I: the metric of D pulled back, and that of the prior.

    Args:
        gram: J'GJ, ``(B, n, n)``, in units of the metric.
        beta: KL weight, positive.

    Returns:
        ``(B, n, n)`` in float64; at an optimum sigma_j^2 = (beta/2) / M_jj.
    """
    tensor = gram.double().clone()
    tensor.diagonal(dim1=-2, dim2=-1).add_(beta / 2)
    return tensor


def log_volume(tensor: Tensor) -> Tensor:
    """Log of the volume element sqrt(det M).

    Args:
        tensor: M, ``(B, n, n)``.

    Returns:
        ``(B,)`` nats.

    Examples:
        >>> import torch
        >>> log_volume(torch.diag_embed(torch.tensor([[1.0, 4.0]]))).exp()
        tensor([2.], dtype=torch.float64)
    """
    volume: Tensor = 0.5 * tensor.double().logdet()
    return volume


def condition_number(tensor: Tensor) -> Tensor:
    """Largest over smallest eigenvalue of M.

    Args:
        tensor: M, ``(B, n, n)``.

    Returns:
        ``(B,)``, at least 1.

    Examples:
        >>> import torch
        >>> condition_number(torch.diag_embed(torch.tensor([[1.0, 4.0]])))
        tensor([4.], dtype=torch.float64)
    """
    import torch

    eigenvalues = torch.linalg.eigvalsh(tensor.double())
    ratio: Tensor = eigenvalues[..., -1] / eigenvalues[..., 0]
    return ratio


def relaxed_distortion(tensor: Tensor) -> Tensor:
    """Variance of M's eigenvalues over their squared mean (Lee et al. 2022).

    Args:
        tensor: M, ``(B, n, n)``.

    Returns:
        n tr M^2 / (tr M)^2 - 1, ``(B,)``: 0 where M is a multiple of the identity, so where z
        itself is isometric up to a scale; n - 1 at most.

    Examples:
        >>> import torch
        >>> relaxed_distortion(torch.diag_embed(torch.tensor([[1.0, 3.0]])))
        tensor([0.2500], dtype=torch.float64)
    """
    tensor = tensor.double()
    trace = tensor.diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    squares: Tensor = tensor.square().sum(dim=(-2, -1))
    return tensor.shape[-1] * squares / trace.square() - 1
