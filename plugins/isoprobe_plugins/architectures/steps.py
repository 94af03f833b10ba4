"""The steps a chain of layers is written in."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from isoprobe_plugins.architectures.activations import Activation  # noqa: TC001  # a field's type
from isoprobe_plugins.architectures.configuration import Shape, Size

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
Sizes = Size | tuple[Size, ...]
Counts = Count | tuple[Count, ...]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op"):
    """A step of a chain; each subclass is one ``op``."""


class LinearStep(Step, tag="linear", frozen=True):
    """``y = W x + b`` over the last axis; ``weights`` names the tensors in a foreign file."""

    width: Size
    bias: bool = True
    weights: str | None = None


class ConvStep(Step, tag="conv", frozen=True):
    """Convolution over 1, 2 or 3 axes, as many as the incoming shape has after its channels."""

    channels: Size
    kernel: Sizes
    stride: Sizes = 1
    padding: Counts = 0
    bias: bool = True
    weights: str | None = None


class ConvTransposeStep(Step, tag="conv_transpose", frozen=True):
    """Transposed convolution over 1, 2 or 3 axes; ``crop`` cuts the end of every axis."""

    channels: Size
    kernel: Sizes
    stride: Sizes = 1
    padding: Counts = 0
    output_padding: Counts = 0
    bias: bool = True
    weights: str | None = None


class BatchNormStep(Step, tag="batch_norm", frozen=True):
    """Batch normalisation by its running statistics."""

    eps: float = 1e-5
    affine: bool = True
    weights: str | None = None


class LayerNormStep(Step, tag="layer_norm", frozen=True):
    """Layer normalisation over the last axis."""

    eps: float = 1e-5
    weights: str | None = None


class ActivationStep(Step, tag="activation", frozen=True):
    """A named activation; ``slope`` is leaky_relu's below zero, or elu's alpha."""

    name: Activation
    slope: float | None = None


class FlattenStep(Step, tag="flatten", frozen=True):
    """All axes into one."""


class ReshapeStep(Step, tag="reshape", frozen=True):
    """Into a shape of the same size."""

    shape: Shape


class PermuteStep(Step, tag="permute", frozen=True):
    """Axes in another order, counted from 0 without the batch."""

    order: tuple[Count, ...]


class PoolStep(Step, tag="pool", frozen=True):
    """Pooling over windows of ``kernel``, next to each other."""

    kind: Literal["max", "average"]
    kernel: Size


class UpsampleStep(Step, tag="upsample", frozen=True):
    """Every value ``factor`` times along every axis after the channels."""

    factor: Size


class PadStep(Step, tag="pad", frozen=True):
    """Zeros (or, where negative, cuts) before and after each axis after the channels."""

    widths: tuple[tuple[int, int], ...]


class AppendStep(Step, tag="append", frozen=True):
    """Constants joined to the end of a vector: a fixed condition."""

    values: tuple[float, ...]


class ClampStep(Step, tag="clamp", frozen=True):
    """Values held between two bounds."""

    low: float
    high: float


class LogShareStep(Step, tag="log_share", frozen=True):
    """Logits to the log of their softmax times the number told in ``column``, a row's total."""

    column: Count = 0


class ConstantStep(Step, tag="constant", frozen=True):
    """Values that depend on nothing: the parameter that ``weights`` names, of the given shape."""

    shape: Shape
    weights: str | None = None


class Log1pStep(Step, tag="log1p", frozen=True):
    """log(1 + x), as counts are taken in."""


class ConditionStep(Step, tag="condition", frozen=True):
    """What the model is told of a sample, joined to a vector or as further channels.

    Attributes:
        form: ``one_hot`` over ``classes``, ``embedding`` (a row of a table ``classes`` x ``width``
            that ``weights`` names), or ``value``, the number itself.
        column: which of the things told.
        classes: how many there are.
        width: of the embedding.
        first: before what comes in, not after it.
        weights: name of the table in a foreign file.
    """

    form: Literal["one_hot", "embedding", "value"] = "one_hot"
    column: Count = 0
    classes: Count = 0
    width: Count = 0
    first: bool = False
    weights: str | None = None


AnyStep = (
    LinearStep
    | ConvStep
    | ConvTransposeStep
    | BatchNormStep
    | LayerNormStep
    | ActivationStep
    | FlattenStep
    | ReshapeStep
    | PermuteStep
    | PoolStep
    | UpsampleStep
    | PadStep
    | AppendStep
    | ConditionStep
    | ClampStep
    | LogShareStep
    | ConstantStep
    | Log1pStep
)
Steps = Annotated[tuple[AnyStep, ...], msgspec.Meta(max_length=512)]
