"""Build chains of layers as modules; importing this imports torch.

A chain's children are numbered like its steps, so that weights are found by position.
"""

from __future__ import annotations

import math
from functools import singledispatch
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from isoprobe.errors import CheckpointError
from isoprobe.registry.lookup import installed
from isoprobe.theory.likelihood import Likelihood
from isoprobe_plugins.architectures import steps
from isoprobe_plugins.architectures.activations import activation
from isoprobe_plugins.architectures.recurrent import Attention, Recurrent
from isoprobe_plugins.heads import split_head, to_root, to_std

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isoprobe_plugins.architectures.layers import Head, LayersConfig

Shape = tuple[int, ...]


class Chain(nn.Sequential):
    """Layers one after the other.

    Attributes:
        shape: of the output, without the batch.
        place: how to name the chain in an error.
        widest: values of one row where it has most, before or after a step.
    """

    def __init__(self, chain: Sequence[steps.AnyStep], shape: Shape, place: str) -> None:
        super().__init__()
        self.widest = math.prod(shape)
        for index, step in enumerate(chain):
            try:
                layer, shape = make(step, shape)
            except ValueError as error:
                raise CheckpointError(
                    f"architecture 'layers': {place}[{index}]: {error}"
                ) from error
            self.append(layer)
            self.widest = max(self.widest, math.prod(shape))
        self.shape, self.place = shape, place

    def forward(self, x: Tensor, c: Tensor | None = None) -> Tensor:
        """Apply the layers; ``c (B, k)`` is what the model is told of each sample."""
        for layer in self:
            x = layer.join(x, c) if isinstance(layer, Joined) else layer(x)
        return x

    @property
    def size(self) -> int:
        """Number of values of one output."""
        return math.prod(self.shape)


class ChainEncoder(nn.Module):
    """``x (B, *input_shape) -> (mean, std)``, each ``(B, n)``; or (mean, L) of a full covariance.

    Args:
        body: from the input to the head.
        heads: chains to mean and scale, where these are separate.
        head: how both are read.
        codes: chains to the logits of discrete latents.
        below: chain to what lies below the diagonal of L, where that stands apart.

    Attributes:
        config: what it was built from, where that is known.
    """

    config: LayersConfig | None = None

    def __init__(
        self,
        body: Chain,
        heads: tuple[Chain, Chain] | None,
        head: Head,
        codes: Sequence[Chain] = (),
        below: Chain | None = None,
    ) -> None:
        super().__init__()
        self.body = body
        if heads is not None:
            self.mean, self.scale = heads
        if codes:
            self.codes = nn.ModuleList(codes)
        if below is not None:
            self.below = below
        self.layout, self.form = head.layout, head.form
        self.full, self.apart = head.covariance == "full", below is not None

    def likeliest(self, x: Tensor) -> Tensor:
        """Return the most probable class of each discrete latent, ``(B, k)``."""
        features = self.body(x)
        found = [head(features).flatten(1).argmax(1) for head in self.codes]
        return torch.stack(found, dim=1).to(x.dtype)

    def forward(self, x: Tensor, c: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the posterior, or mean and L."""
        features = self.body(x, c)
        if self.layout == "separate":
            mean, raw = self.mean(features).flatten(1), self.scale(features).flatten(1)
        else:
            mean, raw = split_head(self.layout, features.flatten(1))
        if self.full:
            below = self.below(features).flatten(1) if self.apart else None
            return mean, to_root(self.form, raw, below, mean.shape[1])
        return mean, to_std(self.form, raw)


class ChainDecoder(nn.Module):
    """``z (B, n) -> x_hat (B, *input_shape)``."""

    def __init__(self, body: Chain, output: str) -> None:
        super().__init__()
        self.body, self.output = body, output

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the reconstruction."""
        result: Tensor = self.body(z, c)
        return torch.tanh(result) if self.output == "tanh" else result


class ParameterDecoder(nn.Module):
    """``z (B, n) -> x_hat (B, *input_shape)``, the mean of a likelihood whose parameters it gives.

    Args:
        body: from the latents to what the parameters are made of.
        heads: a chain to each parameter, or none where the body gives all of them.
        likelihood: name of the metric.
    """

    def __init__(self, body: Chain, heads: Sequence[Chain], likelihood: str) -> None:
        super().__init__()
        self.body, self.heads, self.likelihood = body, nn.ModuleList(heads), likelihood

    def parameters_of(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Return theta, ``(B, P, *input_shape)``."""
        features = self.body(z, c)
        if not len(self.heads):
            whole: Tensor = features
            return whole
        return torch.stack([head(features, c) for head in self.heads], dim=1)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the mean."""
        family = installed().metric(self.likelihood)
        if not isinstance(family, Likelihood):
            raise CheckpointError(f"metric '{self.likelihood}' is no likelihood of parameters")
        return family.mean_of(self.parameters_of(z, c))


class SigmoidChainDecoder(ChainDecoder):
    """The same, squeezed into (0, 1)."""

    def logits(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Return what the sigmoid is applied to."""
        return super().forward(z, c)

    def forward(self, z: Tensor, c: Tensor | None = None) -> Tensor:
        """Return the reconstruction."""
        return torch.sigmoid(self.logits(z, c))


# --------------------------------------------------------------------------- one step


@singledispatch
def make(step: steps.AnyStep, shape: Shape) -> tuple[nn.Module, Shape]:
    """Build the layer of a step.

    Args:
        step: the step.
        shape: of what comes in, without the batch.

    Returns:
        The layer and the shape of what comes out.

    Raises:
        ValueError: when the step does not fit the shape.
    """
    raise ValueError(f"unknown step {step!r}")


@make.register
def _(step: steps.LinearStep, shape: Shape) -> tuple[nn.Module, Shape]:
    return nn.Linear(shape[-1], step.width, bias=step.bias), (*shape[:-1], step.width)


@make.register
def _(step: steps.ConvStep, shape: Shape) -> tuple[nn.Module, Shape]:
    axes = _axes(shape)
    kernel, stride = _each(step.kernel, axes), _each(step.stride, axes)
    padding = _each(step.padding, axes)
    dilation = _each(step.dilation, axes)
    _divides(step.groups, shape[0], step.channels)
    kind: Callable[..., nn.Module] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    more = {"dilation": dilation, "groups": step.groups, "bias": step.bias}
    layer = kind(shape[0], step.channels, kernel, stride, padding, **more)
    out = [
        (s + 2 * p - d * (k - 1) - 1) // t + 1
        for s, k, t, p, d in zip(shape[1:], kernel, stride, padding, dilation, strict=True)
    ]
    return layer, _positive((step.channels, *out), shape)


@make.register
def _(step: steps.ConvTransposeStep, shape: Shape) -> tuple[nn.Module, Shape]:
    axes = _axes(shape)
    kernel, stride = _each(step.kernel, axes), _each(step.stride, axes)
    padding, extra = _each(step.padding, axes), _each(step.output_padding, axes)
    dilation = _each(step.dilation, axes)
    _divides(step.groups, shape[0], step.channels)
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
    kind: Callable[..., nn.Module] = kinds[axes - 1]
    more = {"dilation": dilation, "groups": step.groups, "bias": step.bias}
    layer = kind(shape[0], step.channels, kernel, stride, padding, extra, **more)
    out = [
        (s - 1) * t - 2 * p + d * (k - 1) + 1 + e
        for s, k, t, p, d, e in zip(
            shape[1:], kernel, stride, padding, dilation, extra, strict=True
        )
    ]
    return layer, _positive((step.channels, *out), shape)


@make.register
def _(step: steps.BatchNormStep, shape: Shape) -> tuple[nn.Module, Shape]:
    kind = {1: nn.BatchNorm1d, 2: nn.BatchNorm1d, 3: nn.BatchNorm2d, 4: nn.BatchNorm3d}
    return kind[len(shape)](shape[0], eps=step.eps, affine=step.affine), shape


@make.register
def _(step: steps.LayerNormStep, shape: Shape) -> tuple[nn.Module, Shape]:
    return nn.LayerNorm(shape[-1], eps=step.eps), shape


@make.register
def _(step: steps.GroupNormStep, shape: Shape) -> tuple[nn.Module, Shape]:
    _divides(step.groups, shape[0])
    return nn.GroupNorm(step.groups, shape[0], eps=step.eps), shape


@make.register
def _(step: steps.PreluStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if step.count not in {1, shape[0]}:
        raise ValueError(f"{step.count} slopes do not fit {shape[0]} channels")
    return nn.PReLU(step.count), shape


@make.register(steps.LstmStep)
@make.register(steps.GruStep)
@make.register(steps.RnnStep)
def _(
    step: steps.LstmStep | steps.GruStep | steps.RnnStep, shape: Shape
) -> tuple[nn.Module, Shape]:
    out = Chain(step.out, (step.hidden * (1 + step.bidirectional),), "out")
    layer = Recurrent(step, shape, out)
    return layer, layer.shape


@make.register
def _(step: steps.AttentionStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if len(shape) != 2:
        raise ValueError(f"attention goes over a sequence (steps, width), got shape {shape}")
    _divides(step.heads, shape[1])
    return Attention(shape[1], step.heads, bias=step.bias), shape


@make.register
def _(step: steps.ResidualStep, shape: Shape) -> tuple[nn.Module, Shape]:
    body, shortcut = Chain(step.body, shape, "body"), Chain(step.shortcut, shape, "shortcut")
    if body.shape != shortcut.shape:
        raise ValueError(f"body gives shape {body.shape}, the shortcut {shortcut.shape}")
    return Residual(body, shortcut), body.shape


@make.register
def _(step: steps.FunctionStep, shape: Shape) -> tuple[nn.Module, Shape]:
    return Apply(getattr(torch, step.name)), shape


@make.register
def _(step: steps.SoftmaxStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if not -len(shape) <= step.axis < len(shape):
        raise ValueError(f"axis {step.axis} does not fit shape {shape}")
    axis = step.axis if step.axis < 0 else step.axis + 1
    return Apply(lambda x: x.softmax(axis)), shape


@make.register
def _(step: steps.StandardiseStep, shape: Shape) -> tuple[nn.Module, Shape]:
    return Standardise(_broadcast(step.mean, shape), _broadcast(step.scale, shape)), shape


@make.register
def _(step: steps.TakeStep, shape: Shape) -> tuple[nn.Module, Shape]:
    axis = step.axis
    if axis >= len(shape) or not 0 <= step.start < step.stop <= shape[axis]:
        raise ValueError(f"no part {step.start} to {step.stop} of axis {axis} in shape {shape}")
    length = step.stop - step.start
    out = (*shape[:axis], length, *shape[axis + 1 :])
    return Apply(lambda x: x.narrow(axis + 1, step.start, length)), out


@make.register
def _(step: steps.RepeatStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if len(shape) != 1:
        raise ValueError(f"a vector can be repeated, shape {shape} cannot")
    return Apply(lambda x: x[:, None].expand(-1, step.steps, -1)), (step.steps, *shape)


@make.register
def _(step: steps.ActivationStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if step.slope is None:
        return activation(step.name), shape
    if step.name == "leaky_relu":
        return nn.LeakyReLU(step.slope), shape
    if step.name == "elu":
        return nn.ELU(step.slope), shape
    raise ValueError(f"activation {step.name} has no slope")


@make.register
def _(step: steps.FlattenStep, shape: Shape) -> tuple[nn.Module, Shape]:
    return nn.Flatten(), (math.prod(shape),)


@make.register
def _(step: steps.ReshapeStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if math.prod(shape) != math.prod(step.shape):
        raise ValueError(f"shape {shape} cannot become {step.shape}")
    return Apply(lambda x: x.reshape(len(x), *step.shape)), step.shape


@make.register
def _(step: steps.PermuteStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if sorted(step.order) != list(range(len(shape))):
        raise ValueError(f"order {step.order} does not fit shape {shape}")
    order = [0, *(i + 1 for i in step.order)]
    return Apply(lambda x: x.permute(order)), tuple(shape[i] for i in step.order)


@make.register
def _(step: steps.PoolStep, shape: Shape) -> tuple[nn.Module, Shape]:
    axes = _axes(shape)
    kinds = {
        "max": (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
        "average": (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    }
    stride = step.stride or step.kernel
    if 2 * step.padding > step.kernel:
        raise ValueError(f"padding {step.padding} is more than half of kernel {step.kernel}")
    sides = ((s + 2 * step.padding - step.kernel) // stride + 1 for s in shape[1:])
    layer = kinds[step.kind][axes - 1](step.kernel, stride, step.padding)
    return layer, _positive((shape[0], *sides), shape)


@make.register
def _(step: steps.GlobalPoolStep, shape: Shape) -> tuple[nn.Module, Shape]:
    _axes(shape)
    if step.kind == "max":
        return Apply(lambda x: x.flatten(2).amax(-1)), shape[:1]
    return Apply(lambda x: x.flatten(2).mean(-1)), shape[:1]


@make.register
def _(step: steps.UpsampleStep, shape: Shape) -> tuple[nn.Module, Shape]:
    axes = _axes(shape)
    out = (shape[0], *(s * step.factor for s in shape[1:]))
    corners = _corners(step, axes, shape)
    return nn.Upsample(scale_factor=step.factor, mode=step.mode, align_corners=corners), out


@make.register
def _(step: steps.ResizeStep, shape: Shape) -> tuple[nn.Module, Shape]:
    axes = _axes(shape)
    size = _each(step.size, axes)
    corners = _corners(step, axes, shape)
    return nn.Upsample(size, mode=step.mode, align_corners=corners), (shape[0], *size)


@make.register
def _(step: steps.PadStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if len(step.widths) != _axes(shape):
        raise ValueError(f"{len(step.widths)} pairs of widths do not fit shape {shape}")
    flat = [width for pair in reversed(step.widths) for width in pair]
    out = (shape[0], *(s + sum(w) for s, w in zip(shape[1:], step.widths, strict=True)))
    return Apply(lambda x: nn.functional.pad(x, flat)), _positive(out, shape)


@make.register
def _(step: steps.AppendStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if len(shape) != 1:
        raise ValueError(f"values can only be joined to a vector, not to shape {shape}")
    values = step.values
    return Apply(lambda x: _append(x, values)), (shape[0] + len(values),)


@make.register
def _(step: steps.ConditionStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if step.form != "value" and not step.classes:
        raise ValueError(f"a condition joined as {step.form} needs its number of classes")
    if step.form == "embedding" and not step.width:
        raise ValueError("an embedded condition needs its width")
    width = {"one_hot": step.classes, "embedding": step.width, "value": 1}[step.form]
    layer: nn.Module = EmbeddedCondition(step) if step.form == "embedding" else PlainCondition(step)
    return layer, (shape[0] + width, *shape[1:])


@make.register
def _(step: steps.ClampStep, shape: Shape) -> tuple[nn.Module, Shape]:
    if not step.low < step.high:
        raise ValueError(f"nothing lies between {step.low:g} and {step.high:g}")
    return nn.Hardtanh(step.low, step.high), shape


@make.register
def _(step: steps.Log1pStep, shape: Shape) -> tuple[nn.Module, Shape]:
    return Apply(torch.log1p), shape


@make.register
def _(step: steps.LogShareStep, shape: Shape) -> tuple[nn.Module, Shape]:
    return LogShare(step), shape


@make.register
def _(step: steps.ConstantStep, shape: Shape) -> tuple[nn.Module, Shape]:
    return Constant(step.shape), step.shape


class Constant(nn.Module):
    """Values that no input changes."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.zeros(shape))

    def forward(self, x: Tensor) -> Tensor:
        """Return the values for each sample."""
        return self.value.expand(len(x), *self.value.shape)


class Joined:
    """Takes what the model is told and joins it to what comes in."""

    step: steps.ConditionStep

    def coded(self, values: Tensor, like: Tensor) -> Tensor:
        """Return the told column ``(B,)`` as vectors ``(B, width)``."""
        raise NotImplementedError

    def join(self, x: Tensor, c: Tensor | None) -> Tensor:
        """Join ``c (B, k)`` to ``x (B, C, ...)``.

        Returns:
            ``(B, C + width, ...)``, the same at every place of a map.

        Raises:
            CheckpointError: when nothing is told.
        """
        if c is None:
            raise CheckpointError("architecture 'layers': a condition is joined, and none is told")
        told = self.coded(c[:, self.step.column], x)
        told = told.reshape(*told.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:])
        return torch.cat([told, x] if self.step.first else [x, told], dim=1)


class LogShare(nn.Module, Joined):
    """Shares of a total that is told, as logs."""

    def __init__(self, step: steps.LogShareStep) -> None:
        super().__init__()
        self.column = step.column

    def join(self, x: Tensor, c: Tensor | None) -> Tensor:
        """Log of softmax(x) times the total, ``(B, C)``; see :meth:`Joined.join`."""
        if c is None:
            raise CheckpointError("architecture 'layers': shares of a total, and none is told")
        total = c[:, self.column : self.column + 1].to(x.dtype)
        return x.log_softmax(1) + total.clamp_min(1).log()


class PlainCondition(nn.Module, Joined):
    """A class by its one-hot code, or a number as it is."""

    def __init__(self, step: steps.ConditionStep) -> None:
        super().__init__()
        self.step = step

    def coded(self, values: Tensor, like: Tensor) -> Tensor:
        """Return ``(B, classes)`` or ``(B, 1)``."""
        if self.step.form == "value":
            return values[:, None].to(like.dtype)
        return nn.functional.one_hot(values.long(), self.step.classes).to(like.dtype)


class EmbeddedCondition(nn.Embedding, Joined):
    """A class by its row of a table."""

    def __init__(self, step: steps.ConditionStep) -> None:
        super().__init__(step.classes, step.width)
        self.step = step

    def coded(self, values: Tensor, like: Tensor) -> Tensor:
        """Return ``(B, width)``."""
        found: Tensor = self(values.long())
        return found


class Residual(nn.Module):
    """``x -> shortcut(x) + body(x)``."""

    def __init__(self, body: Chain, shortcut: Chain) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum."""
        result: Tensor = self.shortcut(x) + self.body(x)
        return result


class Standardise(nn.Module):
    """``(x - mean) / scale``."""

    def __init__(self, mean: list[float], scale: list[float]) -> None:
        super().__init__()
        self.mean, self.scale = mean, scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the standardised values."""
        each = (1, -1, *(1,) * (x.ndim - 2))
        shape = (1, *x.shape[1:]) if len(self.mean) not in {1, x.shape[1]} else each
        mean, scale = (x.new_tensor(v).reshape(shape) for v in (self.mean, self.scale))
        return (x - mean) / scale


class Apply(nn.Module):
    """A function without weights."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        """Apply it."""
        return self.function(x)


def _append(x: Tensor, values: Shape | tuple[float, ...]) -> Tensor:
    constant = torch.tensor(values, dtype=x.dtype, device=x.device)
    return torch.cat([x, constant.expand(*x.shape[:-1], -1)], dim=-1)


def _axes(shape: Shape) -> int:
    """Number of axes after the channels."""
    if not 2 <= len(shape) <= 4:
        raise ValueError(f"needs channels and 1 to 3 axes, got shape {shape}")
    return len(shape) - 1


def _corners(step: steps.ResizeStep | steps.UpsampleStep, axes: int, shape: Shape) -> bool | None:
    """Whether corners are aligned, where the mode knows corners."""
    known = {1: {"linear"}, 2: {"bilinear", "bicubic"}, 3: {"trilinear"}}[axes] | {"nearest"}
    if step.mode not in known:
        raise ValueError(f"mode {step.mode!r} does not fit shape {shape}")
    return None if step.mode == "nearest" else step.align_corners


def _divides(groups: int, *channels: int) -> None:
    wrong = next((c for c in channels if c % groups), None)
    if wrong is not None:
        raise ValueError(f"{groups} groups do not divide {wrong} channels")


def _broadcast(values: tuple[float, ...], shape: Shape) -> list[float]:
    if len(values) not in {1, shape[0], math.prod(shape)}:
        raise ValueError(f"{len(values)} values do not fit shape {shape}")
    return list(values)


def _each(value: int | tuple[int, ...], axes: int) -> tuple[int, ...]:
    if isinstance(value, int):
        return (value,) * axes
    if len(value) != axes:
        raise ValueError(f"{value} does not give one value for each of {axes} axes")
    return value


def _positive(out: Shape, shape: Shape) -> Shape:
    if min(out) < 1:
        raise ValueError(f"nothing is left of shape {shape}")
    return out
