"""Take a decoder's convolutions the quicker way where a backward pass goes through them.

What :mod:`isoprobe.derivatives.few_channels` does for tangents, done for points and their slope:
channels last, and a convolution to few channels as one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from isoprobe.derivatives.few_channels import arguments, convolve, scatters

if TYPE_CHECKING:
    from torch import Tensor

_PLAIN = {torch.Tensor, torch.nn.Parameter}


class QuickConvolutions(TorchFunctionMode):
    """While entered, a processor's convolutions of images go their quicker way.

    Slopes are those of the rows alone. A weight that was computed, from latents perhaps, needs its
    own, and its convolution is left as it is.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Take a convolution; anything else is done as it is."""
        if (
            func in {functional.conv2d, functional.conv_transpose2d}
            and not kwargs
            and _takes(*args)
        ):
            return _convolved(func, *args)
        return func(*args, **(kwargs or {}))


def quick_for(module: torch.nn.Module | None) -> AbstractContextManager[Any]:
    """Enter :class:`QuickConvolutions` where a model has convolutions of images.

    Each function costs a call of Python more under it, which small dense layers would feel.

    Args:
        module: holds the model's parameters; None where they are not to be seen.

    Returns:
        The mode, or what does nothing.
    """
    found = module is not None and any(p.ndim == 4 for p in module.parameters())
    return QuickConvolutions() if found else nullcontext()


def _takes(rows: Any = None, weight: Any = None, bias: Tensor | None = None, *_: Any) -> bool:
    """Whether these are images on a processor, with a weight and a bias that are no results."""
    fixed = [weight] if bias is None else [weight, bias]
    if type(rows) is not torch.Tensor or rows.ndim != 4 or rows.device.type != "cpu":
        return False
    # inside a decoder's own vmap or jvp a tensor stands for many, or for two
    if torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    return all(type(part) in _PLAIN and part.is_leaf for part in fixed)


def _convolved(
    func: Callable[..., Tensor],
    rows: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *args: Any,
) -> Tensor:
    rows = rows.contiguous(memory_format=torch.channels_last)
    if not scatters(func, rows, weight, args):
        return func(rows, weight, bias, *args)
    fixed = None if bias is None else bias.detach()
    found: Tensor = _Scattered.apply(rows, weight.detach(), fixed, func, args)  # type: ignore[no-untyped-call]
    return found


class _Scattered(torch.autograd.Function):
    """A convolution to few channels, and its slope in the rows."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        func: Callable[..., Tensor],
        args: Sequence[Any],
    ) -> Tensor:
        """Convolve."""
        ctx.save_for_backward(rows, weight)
        ctx.func, ctx.args = func, args
        return convolve(func, rows, weight, bias, *args)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, slopes: Tensor) -> tuple[Tensor | None, ...]:
        """Turn slopes in the outputs into slopes in the rows."""
        rows, weight = ctx.saved_tensors
        stride, padding, more, groups, dilation = arguments(ctx.func, ctx.args) or ()
        transposed = ctx.func is functional.conv_transpose2d
        given = (stride, padding, dilation, transposed, more, groups[0])
        wanted = (True, False, False)
        slopes = slopes.contiguous(memory_format=torch.channels_last)  # as all layers below have it
        slope, *_ = torch.ops.aten.convolution_backward(slopes, rows, weight, None, *given, wanted)
        return slope, None, None, None, None
