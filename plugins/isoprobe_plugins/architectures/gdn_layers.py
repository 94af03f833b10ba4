"""Normalise divisively, and undo it; importing this imports torch.

For channels u_i at one position, GDN is v_i = u_i / sqrt(beta_i + sum_j gamma_ij u_j^2) and IGDN
v_i = u_i sqrt(beta_i + sum_j gamma_ij u_j^2) (Balle, Laparra and Simoncelli 2016). beta and gamma
are kept as square roots, which makes small values easy to learn, and bounded from below.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d

#: least value of beta, which keeps the root away from 0
BETA_MIN = 1e-6
#: offset under the roots, so that their gradient does not vanish where gamma is 0
PEDESTAL = 2.0**-36
#: diagonal of gamma at the start
GAMMA_INIT = 0.1


class Gdn(nn.Module):
    """GDN over channels, ``(B, C, H, W) -> (B, C, H, W)``.

    Args:
        channels: number of channels C.
        inverted: multiply by the root instead of dividing by it (IGDN).
    """

    root_beta: Tensor
    root_gamma: Tensor

    def __init__(self, channels: int, *, inverted: bool = False) -> None:
        super().__init__()
        self.inverted = inverted
        self.root_beta = nn.Parameter(torch.empty(channels))
        self.root_gamma = nn.Parameter(torch.empty(channels, channels))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set beta to 1 and gamma to a tenth of the identity."""
        with torch.no_grad():
            self.root_beta.fill_((1 + PEDESTAL) ** 0.5)
            gamma = GAMMA_INIT * torch.eye(len(self.root_beta), device=self.root_beta.device)
            self.root_gamma.copy_((gamma + PEDESTAL).sqrt())

    @property
    def beta(self) -> Tensor:
        """Constant under the root, ``(C,)``, at least :data:`BETA_MIN`."""
        return _bounded_square(self.root_beta, BETA_MIN)

    @property
    def gamma(self) -> Tensor:
        """Weights of the squares, ``(C, C)``, at least 0."""
        return _bounded_square(self.root_gamma, 0.0)

    @torch.no_grad()
    def project(self) -> None:
        """Put roots that a step took below their bounds back onto them.

        Below a bound there is no gradient to lead back; on it half of the gradient passes.
        """
        self.root_beta.clamp_(min=_root(BETA_MIN))
        self.root_gamma.clamp_(min=_root(0.0))

    def pool(self, u: Tensor) -> Tensor:
        """Sum under the root, beta_i + sum_j gamma_ij u_j^2, of the shape of u."""
        return conv2d(u.square(), self.gamma[:, :, None, None], self.beta)

    def forward(self, u: Tensor) -> Tensor:
        """Normalise, or undo it when inverted."""
        pool = self.pool(u)
        return u * pool.sqrt() if self.inverted else u * pool.rsqrt()


def _root(value: float) -> float:
    return float((value + PEDESTAL) ** 0.5)


def _bounded_square(root: Tensor, least: float) -> Tensor:
    # torch.maximum has every derivative that torch.func takes
    return torch.maximum(root, torch.full_like(root, _root(least))).square() - PEDESTAL


@torch.no_grad()
def inverse(gdn: Gdn, v: Tensor) -> Tensor:
    """Return u with ``gdn(u) = v``, exactly.

    The squares w_i = u_i^2 solve the linear system w_i - v_i^2 sum_j gamma_ij w_j = v_i^2 beta_i at
    each position. IGDN with the same parameters is the first step towards it, and equal to it where
    gamma is 0.

    Args:
        gdn: the layer, not inverted.
        v: its output, ``(B, C, H, W)``.

    Returns:
        The input, of the shape of v.

    Raises:
        ValueError: when no input gives this output.
    """
    square = v.square().movedim(1, -1)
    system = torch.eye(v.shape[1], dtype=v.dtype, device=v.device) - square[..., None] * gdn.gamma
    squares = torch.linalg.solve(system, square * gdn.beta)
    if bool((squares < 0).any()):
        raise ValueError("no input of this GDN gives such an output")
    u: Tensor = squares.sqrt().movedim(-1, 1) * v.sign()
    return u
