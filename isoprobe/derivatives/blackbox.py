"""Differentiate a function that can only be called: its Jacobian by central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.autograd import forward_ad

if TYPE_CHECKING:
    from torch import Tensor

Run = Callable[["Tensor"], Any]


class BlackBox(nn.Module):
    """A black box with derivatives, forward and reverse, from one Jacobian by differences.

    Args:
        run: the function, ``(B, n) -> (B, *shape)``, computed in ``dtype``.
        dtype: it computes in.
    """

    def __init__(self, run: Run, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.run, self.precision = run, dtype
        self._at: tuple[Tensor, Tensor] | None = None

    def forward(self, z: Tensor) -> Tensor:
        """Call the function, with its Jacobian only where a derivative is being taken."""
        pushed = forward_ad.unpack_dual(z).tangent  # type: ignore[no-untyped-call]
        if z.requires_grad or pushed is not None:
            x_hat: Tensor = _Call.apply(z, self)[0]  # type: ignore[no-untyped-call]
            return x_hat
        return self.call(z)

    def call(self, z: Tensor) -> Tensor:
        """Call the function in its own precision; shapes as for :meth:`forward`."""
        x_hat: Tensor = self.run(z.to(self.precision)).to(z.dtype)
        return x_hat

    def jacobian(self, z: Tensor) -> Tensor:
        """Return the derivatives of each sample, ``(B, m, n)``; those of the last z are kept."""
        if self._at is None or not torch.equal(self._at[0], z):
            self._at = (z.clone(), central_differences(self.run, z, self.precision))
        return self._at[1]


def central_differences(run: Run, z: Tensor, dtype: torch.dtype) -> Tensor:
    """Jacobian of a function by central differences, subtracted in double precision.

    The step is the cube root of the rounding error, in units of each latent, which balances
    rounding against curvature; it is the step that remains after rounding to ``dtype``.

    Args:
        run: ``(B, n) -> (B, *shape)``.
        z: points, ``(B, n)``.
        dtype: the function computes in.

    Returns:
        Derivatives ``(B, m, n)``, in the type of z.
    """
    points = z.detach().to(dtype)
    columns = []
    for j in range(z.shape[1]):
        step = torch.finfo(dtype).eps ** (1 / 3) * points[:, j].abs().clamp_min(1)
        above, below = points.clone(), points.clone()
        above[:, j] += step
        below[:, j] -= step
        taken = above[:, j].double() - below[:, j].double()
        difference = run(above).flatten(1).double() - run(below).flatten(1).double()
        columns.append(difference / taken[:, None])
    return torch.stack(columns, dim=2).to(z.dtype)


class _Call(torch.autograd.Function):
    """Value and Jacobian of the call; the second is kept for the derivatives of the first."""

    @staticmethod
    def forward(z: Tensor, box: BlackBox) -> tuple[Tensor, Tensor]:
        return box.call(z), box.jacobian(z)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, BlackBox], output: Any) -> None:
        x_hat, jacobian = output
        ctx.shape = x_hat.shape
        ctx.mark_non_differentiable(jacobian)
        ctx.save_for_backward(jacobian)
        ctx.save_for_forward(jacobian)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor, None]:
        (jacobian,) = ctx.saved_tensors
        return torch.einsum("bm,bmn->bn", cotangents[0].flatten(1), jacobian), None

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, _: None) -> tuple[Tensor, None]:
        (jacobian,) = ctx.saved_tensors
        product: Tensor = torch.einsum("bmn,bn->bm", jacobian, tangent)
        return product.reshape(ctx.shape), None
