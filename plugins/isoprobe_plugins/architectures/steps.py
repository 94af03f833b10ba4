"""Define the steps that a chain of layers is written in."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from isoprobe_plugins.architectures.activations import Activation  # noqa: TC001  # a field's type
from isoprobe_plugins.architectures.configuration import Shape, Size

Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 16)]
#: what single precision can hold
Small = Annotated[float, msgspec.Meta(ge=0, le=1e30)]
Slope = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
Sizes = Size | tuple[Size, ...]
Counts = Count | tuple[Count, ...]


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="op"):
    """A step of a chain; each subclass is one ``op``."""


class WeightedStep(Step, frozen=True, kw_only=True):
    """A step with tensors of its own.

    Attributes:
        weights: where they stand in a foreign file: ``fc1`` for ``fc1.weight``, ``fc1.bias``.
        weight: the foreign name of its weight, where that is no ``.weight`` below ``weights``.
        bias_name: the same of its bias.
        transposed: the foreign weight is kept inputs first: ``(in, out)``, ``(*kernel, in, out)``.
        member: which of several networks, where the foreign tensors hold one each along axis 0.
    """

    weights: str | None = None
    weight: str | None = None
    bias_name: str | None = None
    transposed: bool = False
    member: Count | None = None


class LinearStep(WeightedStep, tag="linear", frozen=True, kw_only=True):
    """``y = W x + b`` over the last axis."""

    width: Size
    bias: bool = True


class _ConvolvingStep(WeightedStep, frozen=True, kw_only=True):
    """What both convolutions have; as many axes as the incoming shape has after its channels."""

    channels: Size
    kernel: Sizes
    stride: Sizes = 1
    padding: Counts = 0
    dilation: Sizes = 1
    groups: Size = 1
    bias: bool = True


class ConvStep(_ConvolvingStep, tag="conv", frozen=True, kw_only=True):
    """Convolution over 1, 2 or 3 axes."""


class ConvTransposeStep(_ConvolvingStep, tag="conv_transpose", frozen=True, kw_only=True):
    """Transposed convolution over 1, 2 or 3 axes; pad with negative widths to cut its output."""

    output_padding: Counts = 0


class BatchNormStep(WeightedStep, tag="batch_norm", frozen=True, kw_only=True):
    """Batch normalisation by its running statistics."""

    eps: Small = 1e-5
    affine: bool = True


class LayerNormStep(WeightedStep, tag="layer_norm", frozen=True, kw_only=True):
    """Layer normalisation over the last axis."""

    eps: Small = 1e-5


class GroupNormStep(WeightedStep, tag="group_norm", frozen=True, kw_only=True):
    """Normalisation over groups of channels; as many groups as channels are instance norm."""

    groups: Size = 32
    eps: Small = 1e-5


class PreluStep(WeightedStep, tag="prelu", frozen=True, kw_only=True):
    """A ReLU with a learnt slope below zero, one for all channels or one each."""

    count: Size = 1


class RecurrentStep(WeightedStep, frozen=True, kw_only=True):
    """A recurrent network over a sequence, its weights named as torch names them.

    Attributes:
        hidden: width of its state.
        layers: how many lie on top of each other.
        bidirectional: a second one reads from the end.
        feed: what reaches it: ``sequence``, the incoming one, ``(steps, width)``; or a vector z:
            ``repeat``, z is the input of every step; ``state``, z is the first state and the
            inputs are zero; ``beside``, z stands beside its own last output at every step;
            ``own``, z is the first state and the inputs are its own last output.
        steps: length of the sequence that a vector becomes.
        width: of an input that is no incoming value: zeros, or its own last output.
        give: ``all`` steps, ``(steps, hidden)``; the ``last`` state, ``(hidden,)``; or the last
            ``cell`` of an LSTM.
        out: chain from a state to the output that is fed back.
        z_first: with ``beside``, z stands before the output.
    """

    hidden: Size
    layers: Size = 1
    bidirectional: bool = False
    bias: bool = True
    feed: Literal["sequence", "repeat", "state", "beside", "own"] = "sequence"
    steps: Size | None = None
    width: Count = 0
    give: Literal["all", "last", "cell"] = "all"
    out: Steps = ()
    z_first: bool = False


class LstmStep(RecurrentStep, tag="lstm", frozen=True, kw_only=True):
    """Long short-term memory."""


class GruStep(RecurrentStep, tag="gru", frozen=True, kw_only=True):
    """Gated recurrent unit."""


class RnnStep(RecurrentStep, tag="rnn", frozen=True, kw_only=True):
    """A plain recurrent network with tanh."""


class AttentionStep(WeightedStep, tag="attention", frozen=True, kw_only=True):
    """Self-attention over a sequence ``(steps, width)``, as torch's MultiheadAttention."""

    heads: Size
    bias: bool = True


class ResidualStep(Step, tag="residual", frozen=True):
    """``y = shortcut(x) + body(x)``, the shortcut x itself where it has no steps."""

    body: Steps = ()
    shortcut: Steps = ()


class ActivationStep(Step, tag="activation", frozen=True):
    """A named activation; ``slope`` is leaky_relu's below zero, or elu's alpha."""

    name: Activation
    slope: Slope | None = None


class FlattenStep(Step, tag="flatten", frozen=True):
    """All axes into one."""


class ReshapeStep(Step, tag="reshape", frozen=True):
    """Into a shape of the same size."""

    shape: Shape


class PermuteStep(Step, tag="permute", frozen=True):
    """Axes in another order, counted from 0 without the batch."""

    order: tuple[Count, ...]


class PoolStep(Step, tag="pool", frozen=True):
    """Pooling over windows of ``kernel``, next to each other or ``stride`` apart."""

    kind: Literal["max", "average"]
    kernel: Size
    stride: Size | None = None
    padding: Count = 0


class GlobalPoolStep(Step, tag="global_pool", frozen=True):
    """Mean or maximum over all axes after the channels."""

    kind: Literal["max", "average"]


class UpsampleStep(Step, tag="upsample", frozen=True):
    """``factor`` times the size along every axis after the channels, by copies or between them."""

    factor: Size
    mode: Literal["nearest", "bilinear", "bicubic", "linear", "trilinear"] = "nearest"
    align_corners: bool = False


class ResizeStep(Step, tag="resize", frozen=True):
    """Interpolation to a size in pixels, along every axis after the channels."""

    size: Sizes
    mode: Literal["nearest", "bilinear", "bicubic", "linear", "trilinear"] = "bilinear"
    align_corners: bool = False


class SoftmaxStep(Step, tag="softmax", frozen=True):
    """Softmax along an axis, counted from 0 without the batch."""

    axis: int = -1


class FunctionStep(Step, tag="function", frozen=True):
    """A function of each value: ``exp``, ``abs``, ``square`` or ``sqrt``."""

    name: Literal["exp", "abs", "square", "sqrt"]


class StandardiseStep(Step, tag="standardise", frozen=True):
    """``(x - mean) / scale``; one number for all values, one a channel, or one each."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]


class TakeStep(Step, tag="take", frozen=True):
    """The part ``start`` to ``stop`` of an axis, counted from 0 without the batch."""

    start: Count
    stop: Size
    axis: Count = 0


class RepeatStep(Step, tag="repeat", frozen=True):
    """A vector at each step of a sequence: ``(n,)`` becomes ``(steps, n)``."""

    steps: Size


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
    | GroupNormStep
    | PreluStep
    | LstmStep
    | GruStep
    | RnnStep
    | AttentionStep
    | ResidualStep
    | ActivationStep
    | FunctionStep
    | SoftmaxStep
    | StandardiseStep
    | TakeStep
    | RepeatStep
    | FlattenStep
    | ReshapeStep
    | PermuteStep
    | PoolStep
    | GlobalPoolStep
    | UpsampleStep
    | ResizeStep
    | PadStep
    | AppendStep
    | ConditionStep
    | ClampStep
    | LogShareStep
    | ConstantStep
    | Log1pStep
)
Steps = Annotated[tuple[AnyStep, ...], msgspec.Meta(max_length=512)]
