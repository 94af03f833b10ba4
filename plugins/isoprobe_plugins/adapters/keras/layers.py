"""Write Keras' built-in layers as the chains of the architecture ``layers``.

Keras keeps channels last; the chains keep them first inside and turn them at either end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

_ACTIVATIONS = {
    "linear": None, "relu": "relu", "elu": "elu", "selu": "selu", "gelu": "gelu",
    "sigmoid": "sigmoid", "tanh": "tanh", "softplus": "softplus", "swish": "silu", "silu": "silu",
}  # fmt: skip

Shape = tuple[int, ...]


@dataclass
class Translation:
    """A chain under construction.

    Attributes:
        place: prefix of its weights' names.
        shape: of what has come out so far, channels first where there are axes.
        steps: the chain.
        weights: by name.
    """

    place: str
    shape: Shape
    steps: list[dict[str, Any]] = field(default_factory=list)
    weights: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, kind: str, config: Mapping[str, Any], arrays: list[np.ndarray]) -> None:
        """Append a Keras layer.

        Args:
            kind: its class.
            config: its configuration.
            arrays: its weights in Keras' order.

        Raises:
            CheckpointError: for a layer without a translation.
        """
        translate = _LAYERS.get(kind)
        if translate is None:
            raise CheckpointError(
                f"Keras layer {kind} ({config.get('name')}) has no translation: it is custom code "
                "or not supported; build the model with --adapter factory"
            )
        translate(self, config, arrays)
        name = config.get("activation", "linear")
        if kind not in _ACTIVATED and name is not None:
            self.activate(name)

    def activate(self, name: Any) -> None:
        """Append a named activation."""
        if not isinstance(name, str) or name not in _ACTIVATIONS:
            raise CheckpointError(f"Keras activation {name!r} has no translation")
        if _ACTIVATIONS[name] is not None:
            self.steps.append({"op": "activation", "name": _ACTIVATIONS[name]})

    def weighted(self, step: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Append a step and its weights."""
        name = f"{self.place}.{len(self.steps)}"
        self.steps.append({**step, "weights": name})
        self.weights |= {f"{name}.{leaf}": array for leaf, array in arrays.items()}

    def on_last_axis(self, step: dict[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
        """Append a step that works on channels where they stand last, and its weights."""
        self.leave()
        self.weighted(step, arrays)
        self.shape = (*self.shape[:-1], step.get("width", self.shape[-1]))
        self.enter()

    def join(self, classes: int, *, first: bool) -> None:
        """Append a condition to a vector: a one-hot code, or a number where there is no class."""
        if len(self.shape) != 1:
            raise CheckpointError(
                f"a condition is concatenated to a Keras layer of shape {self.shape}, not to a "
                "vector; build the model with --adapter factory"
            )
        form = "one_hot" if classes else "value"
        self.steps.append({"op": "condition", "form": form, "classes": classes, "first": first})
        self.shape = (self.shape[0] + max(classes, 1),)

    def enter(self) -> None:
        """Turn channels to the front."""
        axes = len(self.shape) - 1
        if axes >= 1:
            self._permute((axes, *range(axes)))

    def leave(self) -> None:
        """Turn channels to the back."""
        axes = len(self.shape) - 1
        if axes >= 1:
            self._permute((*range(1, axes + 1), 0))

    def _permute(self, order: Shape) -> None:
        self.steps.append({"op": "permute", "order": order})
        self.shape = tuple(self.shape[i] for i in order)


def _dense(t: Translation, config: Mapping[str, Any], arrays: list[np.ndarray]) -> None:
    bias = bool(config.get("use_bias", True))
    named = {"weight": arrays[0].T, **({"bias": arrays[1]} if bias else {})}
    t.on_last_axis({"op": "linear", "width": int(config["units"]), "bias": bias}, named)


def _each_step(t: Translation, config: Mapping[str, Any], arrays: list[np.ndarray]) -> None:
    inner = config["layer"]
    if inner["class_name"] not in {"Dense", "Activation"}:
        raise CheckpointError(
            f"Keras layer {config.get('name')}: TimeDistributed of {inner['class_name']} has no "
            "translation"
        )
    t.add(str(inner["class_name"]), inner["config"], arrays)


#: what a recurrent layer has to be, as torch's are
_RECURRENT = {
    "activation": "tanh",
    "recurrent_activation": "sigmoid",
    "go_backwards": False,
    "return_state": False,
    "unit_forget_bias": None,
    "reset_after": True,
}


def _recurrent(
    t: Translation, config: Mapping[str, Any], arrays: list[np.ndarray], kind: str
) -> None:
    _along(t, [config], [arrays], kind)


def _along(
    t: Translation,
    configs: list[Mapping[str, Any]],
    directions: list[list[np.ndarray]],
    kind: str,
) -> None:
    """Append a recurrent layer, read from one end or from both."""
    config = configs[0]
    for name, value in _RECURRENT.items():
        if value is not None and config.get(name, value) != value:
            raise CheckpointError(
                f"Keras layer {config.get('name')}: {name} = {config[name]} has no translation"
            )
    bias, hidden = bool(config.get("use_bias", True)), int(config["units"])
    named: dict[str, np.ndarray] = {}
    for side, arrays in zip(("", "_reverse"), directions, strict=False):
        named |= _gates(arrays, kind, hidden, side, bias=bias)
    every = bool(config.get("return_sequences", False))
    t.leave()
    step = {"op": kind, "hidden": hidden, "bias": bias, "bidirectional": len(directions) == 2}
    t.weighted({**step, "give": "all" if every else "last"}, named)
    width = hidden * len(directions)
    t.shape = (t.shape[0], width) if every else (width,)
    t.enter()


def _gates(
    arrays: list[np.ndarray], kind: str, hidden: int, side: str, *, bias: bool
) -> dict[str, np.ndarray]:
    """Weights of one direction under torch's names, gates in torch's order."""
    import numpy as np

    def ordered(array: np.ndarray) -> np.ndarray:
        if kind != "gru":
            return array
        update, reset, new = np.split(array, 3)  # torch has reset first
        return np.concatenate([reset, update, new])

    found = {
        f"weight_ih_l0{side}": ordered(arrays[0].T),
        f"weight_hh_l0{side}": ordered(arrays[1].T),
    }
    if bias:
        given = arrays[2] if arrays[2].ndim == 2 else np.stack([arrays[2], 0 * arrays[2]])
        for name, values in zip(("ih", "hh"), given, strict=True):
            found[f"bias_{name}_l0{side}"] = ordered(values)
    return found


def _both_ways(t: Translation, config: Mapping[str, Any], arrays: list[np.ndarray]) -> None:
    inner = config["layer"]
    kind = _RECURRENT_KINDS.get(str(inner["class_name"]))
    if kind is None or config.get("merge_mode") != "concat":
        raise CheckpointError(
            f"Keras layer {config.get('name')}: Bidirectional of {inner['class_name']} merged by "
            f"{config.get('merge_mode')} has no translation"
        )
    half = len(arrays) // 2
    _along(t, [inner["config"]] * 2, [arrays[:half], arrays[half:]], kind)


def _repeat(t: Translation, config: Mapping[str, Any], _: list[np.ndarray]) -> None:
    steps = int(config["n"])
    t.steps.append({"op": "repeat", "steps": steps})
    t.shape = (steps, *t.shape)
    t.enter()


def _layer_norm(t: Translation, config: Mapping[str, Any], arrays: list[np.ndarray]) -> None:
    import numpy as np

    axis = config.get("axis", -1)
    if axis not in (-1, [-1], len(t.shape), [len(t.shape)]):
        raise CheckpointError(f"Keras layer {config.get('name')}: a norm over axis {axis}")
    rest, width = list(arrays), t.shape[0] if len(t.shape) > 1 else t.shape[-1]
    gamma = rest.pop(0) if config.get("scale", True) else np.ones(width, np.float32)
    beta = rest.pop(0) if config.get("center", True) else np.zeros(width, np.float32)
    eps = float(config.get("epsilon", 1e-3))
    t.on_last_axis({"op": "layer_norm", "eps": eps}, {"weight": gamma, "bias": beta})


def _upsampling(t: Translation, config: Mapping[str, Any], _: list[np.ndarray]) -> None:
    factor = _one(config, "size")
    mode = str(config.get("interpolation", "nearest"))
    t.steps.append({"op": "upsample", "factor": factor, "mode": mode})
    t.shape = (t.shape[0], *(n * factor for n in t.shape[1:]))


def _pooling(t: Translation, config: Mapping[str, Any], _: list[np.ndarray], kind: str) -> None:
    kernel = _one(config, "pool_size")
    stride = kernel if config.get("strides") is None else _one(config, "strides")
    even = kernel == stride and all(n % stride == 0 for n in t.shape[1:])
    if config.get("padding", "valid") != "valid" and not even:
        raise CheckpointError(
            f"Keras layer {config.get('name')}: pooling over a padded edge has no translation"
        )
    t.steps.append({"op": "pool", "kind": kind, "kernel": kernel, "stride": stride})
    t.shape = (t.shape[0], *((n - kernel) // stride + 1 for n in t.shape[1:]))


def _global_pooling(
    t: Translation, config: Mapping[str, Any], _: list[np.ndarray], kind: str
) -> None:
    if config.get("keepdims", False):
        raise CheckpointError(f"Keras layer {config.get('name')}: keepdims has no translation")
    t.steps.append({"op": "global_pool", "kind": kind})
    t.shape = t.shape[:1]


def _one(config: Mapping[str, Any], name: str) -> int:
    """A size that is the same along all axes."""
    sizes = config[name] if isinstance(config[name], list) else [config[name]]
    if len(set(sizes)) != 1:
        raise CheckpointError(f"Keras layer {config.get('name')}: {name} {sizes} differs by axis")
    return int(sizes[0])


def _margins(t: Translation, config: Mapping[str, Any], name: str) -> None:
    """Zeros around, or a part cut off, along each axis."""
    given = config[name]
    pairs = [given] if len(t.shape) == 2 else given
    widths = [(int(p[0]), int(p[1])) for p in pairs]
    sign = -1 if name == "cropping" else 1
    _pad(t, [(sign * low, sign * high) for low, high in widths])


def _conv(t: Translation, config: Mapping[str, Any], arrays: list[np.ndarray]) -> None:
    kernel, stride = _sizes(config)
    if config["padding"] == "same":
        totals = [
            max((math.ceil(n / s) - 1) * s + k - n, 0)
            for n, k, s in zip(t.shape[1:], kernel, stride, strict=True)
        ]
        _pad(t, [(total // 2, total - total // 2) for total in totals])
    step: dict[str, Any] = {
        "op": "conv",
        "channels": int(config["filters"]),
        "kernel": kernel,
        "stride": stride,
    }
    axes = len(kernel)
    _convolution(t, step, config, arrays, (axes + 1, axes, *range(axes)))
    t.shape = (
        int(config["filters"]),
        *((n - k) // s + 1 for n, k, s in zip(t.shape[1:], kernel, stride, strict=True)),
    )


def _conv_transpose(t: Translation, config: Mapping[str, Any], arrays: list[np.ndarray]) -> None:
    kernel, stride = _sizes(config)
    same = config["padding"] == "same"
    extra = [max(s - k, 0) for k, s in zip(kernel, stride, strict=True)]
    step: dict[str, Any] = {
        "op": "conv_transpose",
        "channels": int(config["filters"]),
        "kernel": kernel,
        "stride": stride,
        "output_padding": extra,
    }
    axes = len(kernel)
    _convolution(t, step, config, arrays, (axes + 1, axes, *range(axes)))
    sides = [(n - 1) * s + k + e
             for n, k, s, e in zip(t.shape[1:], kernel, stride, extra, strict=True)]  # fmt: skip
    t.shape = (int(config["filters"]), *sides)
    if same:
        totals = [max(k - s, 0) for k, s in zip(kernel, stride, strict=True)]
        _pad(t, [(-(total // 2), -(total - total // 2)) for total in totals])


def _convolution(
    t: Translation,
    step: dict[str, Any],
    config: Mapping[str, Any],
    arrays: list[np.ndarray],
    order: Shape,
) -> None:
    plain = {"data_format": "channels_last", "groups": 1}
    for name, value in plain.items():
        if config.get(name, value) != value:
            raise CheckpointError(f"Keras layer {config.get('name')}: {name} {config[name]}")
    if set(config.get("dilation_rate", [1])) != {1}:
        raise CheckpointError(f"Keras layer {config.get('name')}: dilated")
    bias = bool(config.get("use_bias", True))
    named = {"weight": arrays[0].transpose(order), **({"bias": arrays[1]} if bias else {})}
    t.weighted({**step, "bias": bias}, named)


def _pad(t: Translation, widths: list[tuple[int, int]]) -> None:
    if any(any(pair) for pair in widths):
        t.steps.append({"op": "pad", "widths": widths})
        sides = zip(t.shape[1:], widths, strict=True)
        t.shape = (t.shape[0], *(n + sum(pair) for n, pair in sides))


def _sizes(config: Mapping[str, Any]) -> tuple[list[int], list[int]]:
    return list(config["kernel_size"]), list(config["strides"])


def _batch_norm(t: Translation, config: Mapping[str, Any], arrays: list[np.ndarray]) -> None:
    import numpy as np

    rest = list(arrays)
    size = len(arrays[-1])
    gamma = rest.pop(0) if config.get("scale", True) else np.ones(size, np.float32)
    beta = rest.pop(0) if config.get("center", True) else np.zeros(size, np.float32)
    names = ("weight", "bias", "running_mean", "running_var")
    named = dict(zip(names, (gamma, beta, *rest), strict=True))
    t.weighted({"op": "batch_norm", "eps": float(config.get("epsilon", 1e-3))}, named)


def _flatten(t: Translation, _: Mapping[str, Any], __: list[np.ndarray]) -> None:
    t.leave()
    t.steps.append({"op": "flatten"})
    t.shape = (math.prod(t.shape),)


def _reshape(t: Translation, config: Mapping[str, Any], _: list[np.ndarray]) -> None:
    t.leave()
    target = tuple(int(n) for n in config["target_shape"])
    t.steps.append({"op": "reshape", "shape": target})
    t.shape = target
    t.enter()


def _activation(t: Translation, config: Mapping[str, Any], _: list[np.ndarray]) -> None:
    t.activate(config["activation"])


def _leaky_relu(t: Translation, config: Mapping[str, Any], _: list[np.ndarray]) -> None:
    slope = config.get("negative_slope", config.get("alpha", 0.3))
    t.steps.append({"op": "activation", "name": "leaky_relu", "slope": float(slope)})


def _nothing(_: Translation, __: Mapping[str, Any], ___: list[np.ndarray]) -> None:
    """Do nothing: the layer acts in training only, or marks the input."""


_POOLS = {"Max": "max", "Average": "average"}
_RECURRENT_KINDS = {"LSTM": "lstm", "GRU": "gru", "SimpleRNN": "rnn"}
#: layers whose activation is their own affair
_ACTIVATED = frozenset({"Activation", *_RECURRENT_KINDS})
_Layer = Callable[[Translation, Mapping[str, Any], list["np.ndarray"]], None]
_LAYERS: dict[str, _Layer] = {
    "InputLayer": _nothing,
    **dict.fromkeys(("Dropout", "SpatialDropout1D", "SpatialDropout2D"), _nothing),
    **dict.fromkeys(("GaussianNoise", "GaussianDropout", "ActivityRegularization"), _nothing),
    "Dense": _dense,
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _conv),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _conv_transpose),
    "BatchNormalization": _batch_norm,
    "LayerNormalization": _layer_norm,
    **{name: partial(_recurrent, kind=kind) for name, kind in _RECURRENT_KINDS.items()},
    "Bidirectional": _both_ways,
    "RepeatVector": _repeat,
    "TimeDistributed": _each_step,
    **dict.fromkeys(("UpSampling1D", "UpSampling2D", "UpSampling3D"), _upsampling),
    **{
        f"{name}Pooling{axes}D": partial(_pooling, kind=kind)
        for name, kind in _POOLS.items()
        for axes in (1, 2, 3)
    },
    **{
        f"Global{name}Pooling{axes}D": partial(_global_pooling, kind=kind)
        for name, kind in _POOLS.items()
        for axes in (1, 2, 3)
    },
    **{f"ZeroPadding{n}D": lambda t, c, _: _margins(t, c, "padding") for n in (1, 2, 3)},
    **{f"Cropping{n}D": lambda t, c, _: _margins(t, c, "cropping") for n in (1, 2, 3)},
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Activation": _activation,
    "ReLU": lambda t, _, __: t.activate("relu"),
    "ELU": lambda t, _, __: t.activate("elu"),
    "LeakyReLU": _leaky_relu,
}
