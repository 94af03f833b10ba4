"""Take a convolution to few channels as one matrix product and sums of its shifted parts.

Kernels of a processor are made for many output channels, and pad one or three to sixteen. Here each
input pixel's contributions to all the output pixels it reaches come from one product, and are added
up where they overlap: a third to a quarter of the time for the last layer of an image decoder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from torch.nn import functional

if TYPE_CHECKING:
    from torch import Tensor

#: output channels that count as few, and contributions of a pixel in all, at most
_FEW, _REACH = 4, 64
#: input channels at least: with fewer there is nothing to sum up
_DEEP = 8
#: bytes of contributions that stay near the processor
_CACHE = 1 << 20


def convolve(
    func: Callable[..., Tensor], rows: Tensor, weight: Tensor, bias: Tensor | None, *args: Any
) -> Tensor:
    """Convolve as ``func`` does, in the quicker of the two ways.

    Args:
        func: a convolution of :mod:`torch.nn.functional`.
        rows: inputs, ``(R, channels, *size)``.
        weight: its weight.
        bias: its bias.
        args: its other arguments, in its order.

    Returns:
        Outputs, ``(R, channels, *size)``.
    """
    scatter = _as_scatter(func, rows, weight, args)
    if scatter is None:
        return func(rows, weight, bias, *args)
    output = _scatter(rows, *scatter)
    return output if bias is None else output.add_(bias[:, None, None])


def scatters(
    func: Callable[..., Tensor], rows: Tensor, weight: Tensor, args: Sequence[Any]
) -> bool:
    """Whether :func:`convolve` takes another way than ``func``."""
    return _as_scatter(func, rows, weight, args) is not None


def _as_scatter(
    func: Callable[..., Tensor], rows: Tensor, weight: Tensor, args: Sequence[Any]
) -> tuple[Tensor, tuple[int, int], tuple[int, int], tuple[int, int]] | None:
    """Weight ``(in, out, k, k)``, stride, padding and size of a convolution that scatters pixels.

    Returns:
        None where the usual way is taken.
    """
    if rows.device.type != "cpu" or rows.ndim != 4 or any(isinstance(a, str) for a in args):
        return None
    told = arguments(func, args)
    if told is None:
        return None
    stride, padding, more, groups, dilation = told
    turned = func is functional.conv2d
    if turned:  # with stride 1 it is a transposed one with its kernel turned round
        if stride != (1, 1):
            return None
        weight = weight.flip(2, 3).transpose(0, 1)
    ins, outs, *kernel = weight.shape
    reach = outs * kernel[0] * kernel[1]
    if dilation != (1, 1) or groups != (1, 1) or ins < _DEEP or outs > _FEW or reach > _REACH:
        return None
    if turned:
        padding = (kernel[0] - 1 - padding[0], kernel[1] - 1 - padding[1])
    size = tuple(
        (length - 1) * s + k - 2 * p + m
        for length, s, k, p, m in zip(rows.shape[2:], stride, kernel, padding, more, strict=True)
    )
    if min(padding) < 0 or min(size) < 1 or any(m > p for m, p in zip(more, padding, strict=True)):
        return None
    return weight, stride, padding, (size[0], size[1])


def arguments(
    func: Callable[..., Tensor], args: Sequence[Any]
) -> tuple[tuple[int, int], ...] | None:
    """Read a convolution's other arguments, in pairs.

    Args:
        func: a function of :mod:`torch.nn.functional`.
        args: what it takes after its bias, in its order.

    Returns:
        Stride, padding, output padding, groups and dilation; None where it is no convolution of
        images, transposed or not.
    """
    if func is functional.conv2d:
        stride, padding, dilation, groups = _filled(args, (1, 0, 1, 1))
        return stride, padding, (0, 0), groups, dilation
    if func is functional.conv_transpose2d:
        return tuple(_filled(args, (1, 0, 0, 1, 1)))
    return None


def _filled(given: Sequence[Any], default: Sequence[int]) -> list[tuple[int, int]]:
    every = [*given, *default[len(given) :]]
    pairs = (tuple(each) if isinstance(each, Sequence) else (each,) for each in every)
    return [(pair[0], pair[-1]) for pair in pairs]


def _scatter(
    rows: Tensor,
    weight: Tensor,
    stride: tuple[int, int],
    padding: tuple[int, int],
    size: tuple[int, int],
) -> Tensor:
    """Scatter every input pixel over the output pixels that it reaches.

    With stride s, output pixel s i + p gets contributions of input pixels i, i - 1, ...: for each
    phase p these are images that are shifted and added.

    Returns:
        Outputs, ``(R, out, *size)``.
    """
    ins, outs, *kernel = weight.shape
    shifts = [-(-k // s) for k, s in zip(kernel, stride, strict=True)]
    full = [a * s for a, s in zip(shifts, stride, strict=True)]
    padded = functional.pad(weight, (0, full[1] - kernel[1], 0, full[0] - kernel[0]))
    parts = padded.reshape(ins, outs, shifts[0], stride[0], shifts[1], stride[1])
    matrix = parts.permute(2, 4, 3, 5, 1, 0).reshape(-1, ins)
    height, width = rows.shape[2:]
    output = rows.new_empty(len(rows), outs, *size)
    bytes_each = len(matrix) * height * width * rows.element_size()
    step = max(_CACHE // bytes_each, 1)
    for start in range(0, len(rows), step):
        some, into = rows[start : start + step], output[start : start + step]
        pixels = some.permute(0, 2, 3, 1).reshape(-1, ins)
        given = (matrix @ pixels.T).view(*shifts, *stride, outs, len(some), height, width)
        taller, wider = height + shifts[0] - 1, width + shifts[1] - 1
        phases = given.new_zeros(*stride, outs, len(some), taller, wider)
        for a, b in product(*map(range, shifts)):
            phases[..., a : a + height, b : b + width] += given[a, b]
        for p, q in product(*map(range, stride)):
            (i, y), (j, x) = (
                _first(at, s, pad) for at, s, pad in zip((p, q), stride, padding, strict=True)
            )
            target = into[:, :, y :: stride[0], x :: stride[1]]
            high, wide = target.shape[2:]
            target.copy_(phases[p, q, :, :, i : i + high, j : j + wide].transpose(0, 1))
    return output


def _first(phase: int, stride: int, padding: int) -> tuple[int, int]:
    """Of a phase, the first pixel that is not cut off, and where it lies in the output."""
    first = max(-(-(padding - phase) // stride), 0)
    return first, stride * first + phase - padding
