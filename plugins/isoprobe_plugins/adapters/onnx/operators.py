"""Translate ONNX operators to torch functions, so that they can be differentiated."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

MAX_ELEMENTS = 1 << 28


class UntranslatedError(ValueError):
    """An operator, or a form of one, that has no torch function here."""


Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Any], Attributes], Any]


def _ints(value: Any) -> list[int]:
    return [int(v) for v in (value.flatten().tolist() if isinstance(value, Tensor) else value)]


def _gemm(x: Sequence[Any], a: Attributes) -> Any:
    left = x[0].T if a.get("transA") else x[0]
    right = x[1].T if a.get("transB") else x[1]
    product = a.get("alpha", 1.0) * (left @ right)
    return product + a.get("beta", 1.0) * x[2] if len(x) > 2 and x[2] is not None else product


def _begins(a: Attributes, axes: int) -> list[int]:
    """Return one padding for both ends of each axis."""
    pads = a.get("pads", [0] * 2 * axes)
    if a.get("auto_pad", "NOTSET") not in {"NOTSET", "VALID"} or pads[:axes] != pads[axes:]:
        raise UntranslatedError("uneven or automatic padding is not translated")
    return list(pads[:axes])


def _conv(x: Sequence[Any], a: Attributes) -> Any:
    axes = x[1].ndim - 2
    kinds: list[Callable[..., Tensor]] = [functional.conv1d, functional.conv2d, functional.conv3d]
    strides, dilations = a.get("strides", [1] * axes), a.get("dilations", [1] * axes)
    bias = x[2] if len(x) > 2 else None
    return kinds[axes - 1](
        x[0], x[1], bias, strides, _begins(a, axes), dilations, a.get("group", 1)
    )


def _conv_transpose(x: Sequence[Any], a: Attributes) -> Any:
    axes = x[1].ndim - 2
    kinds: list[Callable[..., Tensor]] = [
        functional.conv_transpose1d,
        functional.conv_transpose2d,
        functional.conv_transpose3d,
    ]
    strides, dilations = a.get("strides", [1] * axes), a.get("dilations", [1] * axes)
    extra = a.get("output_padding", [0] * axes)
    bias = x[2] if len(x) > 2 else None
    return kinds[axes - 1](
        x[0], x[1], bias, strides, _begins(a, axes), extra, a.get("group", 1), dilations
    )


def _pool(kinds: Sequence[Callable[..., Tensor]]) -> Operator:
    def pool(x: Sequence[Any], a: Attributes) -> Tensor:
        kernel = a["kernel_shape"]
        axes = len(kernel)
        if a.get("ceil_mode") or any(d != 1 for d in a.get("dilations", [1])):
            raise UntranslatedError("pooling with ceil_mode or dilation is not translated")
        return kinds[axes - 1](x[0], kernel, a.get("strides", [1] * axes), _begins(a, axes))

    return pool


def _batch_norm(x: Sequence[Any], a: Attributes) -> Any:
    values, scale, bias, mean, var = x[:5]
    return functional.batch_norm(values, mean, var, scale, bias, eps=a.get("epsilon", 1e-5))


def _layer_norm(x: Sequence[Any], a: Attributes) -> Tensor:
    axis = a.get("axis", -1) % x[0].ndim
    bias = x[2] if len(x) > 2 else None
    return functional.layer_norm(x[0], x[0].shape[axis:], x[1], bias, a.get("epsilon", 1e-5))


def _instance_norm(x: Sequence[Any], a: Attributes) -> Any:
    axes = tuple(range(2, x[0].ndim))
    mean, var = x[0].mean(axes, keepdim=True), x[0].var(axes, unbiased=False, keepdim=True)
    shape = (1, -1, *(1 for _ in axes))
    unit = (x[0] - mean) / (var + a.get("epsilon", 1e-5)).sqrt()
    return unit * x[1].reshape(shape) + x[2].reshape(shape)


def _group_norm(x: Sequence[Any], a: Attributes) -> Tensor:
    return functional.group_norm(x[0], a["num_groups"], x[1], x[2], a.get("epsilon", 1e-5))


def _reshape(x: Sequence[Any], a: Attributes) -> Tensor:
    shape = _ints(x[1])
    if not a.get("allowzero"):
        shape = [x[0].shape[i] if n == 0 else n for i, n in enumerate(shape)]
    result: Tensor = x[0].reshape(shape)
    return result


def _flatten(x: Sequence[Any], a: Attributes) -> Tensor:
    axis = a.get("axis", 1)
    result: Tensor = x[0].reshape(math.prod(x[0].shape[:axis]), -1)
    return result


def _slice(x: Sequence[Any], _: Attributes) -> Tensor:
    starts, ends = _ints(x[1]), _ints(x[2])
    axes = _ints(x[3]) if len(x) > 3 and x[3] is not None else list(range(len(starts)))
    steps = _ints(x[4]) if len(x) > 4 and x[4] is not None else [1] * len(starts)
    index = [slice(None)] * x[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise UntranslatedError("slices that run backwards are not translated")
        index[axis] = slice(start, end, step)
    result: Tensor = x[0][tuple(index)]
    return result


def _axes_of(x: Sequence[Any], a: Attributes) -> list[int] | None:
    given = x[1] if len(x) > 1 and x[1] is not None else a.get("axes")
    return None if given is None else _ints(given)


def _unsqueeze(x: Sequence[Any], a: Attributes) -> Tensor:
    axes = _axes_of(x, a) or []
    result: Tensor = x[0]
    for axis in sorted(n % (result.ndim + len(axes)) for n in axes):
        result = result.unsqueeze(axis)
    return result


def _squeeze(x: Sequence[Any], a: Attributes) -> Tensor:
    axes = _axes_of(x, a)
    result: Tensor = x[0].squeeze() if axes is None else x[0].squeeze(tuple(axes))
    return result


def _reduce(name: str) -> Operator:
    def reduce(x: Sequence[Any], a: Attributes) -> Tensor:
        axes = _axes_of(x, a)
        dims = tuple(range(x[0].ndim)) if axes is None else tuple(axes)
        result: Tensor = getattr(torch, name)(x[0], dims, keepdim=bool(a.get("keepdims", 1)))
        return result

    return reduce


def _split(x: Sequence[Any], a: Attributes) -> tuple[Tensor, ...]:
    axis = a.get("axis", 0)
    if len(x) > 1 and x[1] is not None:
        return tuple(x[0].split(_ints(x[1]), axis))
    return tuple(x[0].chunk(a.get("num_outputs", 2), axis))


def _gather(x: Sequence[Any], a: Attributes) -> Tensor:
    axis, index = a.get("axis", 0), x[1].long()
    size = x[0].shape[axis]
    index = torch.where(index < 0, index + size, index)
    picked: Tensor = x[0].index_select(axis, index.flatten())
    return picked.reshape(*x[0].shape[:axis], *index.shape, *x[0].shape[axis + 1 :])


def _cast(x: Sequence[Any], a: Attributes) -> Any:
    types = {1: None, 10: None, 11: None, 6: torch.int32, 7: torch.int64, 9: torch.bool}
    dtype = types[a["to"]]
    if dtype is None:  # floating types follow the model's, so that it can be cast as a whole
        return x[0] if x[0].is_floating_point() else x[0].to(torch.get_default_dtype())
    return x[0].to(dtype)


def _full(x: Sequence[Any], a: Attributes) -> Any:
    shape = _ints(x[0])
    if math.prod(shape) > MAX_ELEMENTS:
        raise ValueError(f"a constant of shape {shape} is out of all proportion")
    value = a.get("value")
    return torch.zeros(shape) if value is None else value.flatten()[0].expand(shape)


def _clip(x: Sequence[Any], a: Attributes) -> Any:
    low = x[1] if len(x) > 1 else a.get("min")
    high = x[2] if len(x) > 2 else a.get("max")
    return torch.clamp(x[0], low, high)


def _gelu(x: Sequence[Any], a: Attributes) -> Tensor:
    return functional.gelu(x[0], approximate=a.get("approximate", "none"))


def _expand(x: Sequence[Any], _: Attributes) -> Any:
    # the shape may be the smaller one: both sides are stretched
    return x[0] + x[0].new_zeros(()).expand(_ints(x[1]))


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda x, _: function(x[0])


def _binary(function: Callable[[Any, Any], Tensor]) -> Operator:
    return lambda x, _: function(x[0], x[1])


_MAX = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)

OPERATORS: dict[str, Operator] = {
    "Gemm": _gemm,
    "MatMul": _binary(torch.matmul),
    "Add": _binary(torch.add),
    "Sub": _binary(torch.sub),
    "Mul": _binary(torch.mul),
    "Div": _binary(
        lambda a, b: (
            torch.div(a, b) if a.is_floating_point() else torch.div(a, b, rounding_mode="trunc")
        )
    ),
    "Pow": _binary(torch.pow),
    "Neg": _unary(torch.neg),
    "Abs": _unary(torch.abs),
    "Exp": _unary(torch.exp),
    "Log": _unary(torch.log),
    "Sqrt": _unary(torch.sqrt),
    "Erf": _unary(torch.erf),
    "Reciprocal": _unary(torch.reciprocal),
    "Relu": _unary(torch.relu),
    "Sigmoid": _unary(torch.sigmoid),
    "Tanh": _unary(torch.tanh),
    "Softplus": _unary(functional.softplus),
    "Selu": _unary(functional.selu),
    "Gelu": _gelu,
    "HardSigmoid": lambda x, a: (a.get("alpha", 0.2) * x[0] + a.get("beta", 0.5)).clamp(0, 1),
    "LeakyRelu": lambda x, a: functional.leaky_relu(x[0], a.get("alpha", 0.01)),
    "Elu": lambda x, a: functional.elu(x[0], a.get("alpha", 1.0)),
    "PRelu": lambda x, _: torch.where(x[0] < 0, x[0] * x[1], x[0]),
    "Swish": lambda x, a: x[0] * torch.sigmoid(a.get("alpha", 1.0) * x[0]),
    "Softmax": lambda x, a: torch.softmax(x[0], a.get("axis", -1)),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool(_MAX),
    "AveragePool": _pool(_AVERAGE),
    "GlobalAveragePool": _unary(lambda x: x.mean(tuple(range(2, x.ndim)), keepdim=True)),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    "InstanceNormalization": _instance_norm,
    "GroupNormalization": _group_norm,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda x, a: x[0].permute(a.get("perm", list(range(x[0].ndim))[::-1])),
    "Concat": lambda x, a: torch.cat(tuple(x), a["axis"]),
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Expand": _expand,
    "Shape": lambda x, a: torch.tensor(x[0].shape[a.get("start", 0) : a.get("end")]),
    "ConstantOfShape": _full,
    "Cast": _cast,
    "Identity": lambda x, _: x[0],
    "Dropout": lambda x, _: x[0],
    "Clip": _clip,
    "ReduceMean": _reduce("mean"),
    "ReduceSum": _reduce("sum"),
}
