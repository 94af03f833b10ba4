"""Write Keras' built-in layers as the chains of the architecture ``layers``.

Keras keeps channels last; the chains keep them first inside and turn them at either end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
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
        if kind != "Activation" and name is not None:
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
    if len(t.shape) != 1:
        raise CheckpointError(f"Keras layer {config.get('name')}: Dense over several axes")
    width = int(config["units"])
    bias = bool(config.get("use_bias", True))
    named = {"weight": arrays[0].T, **({"bias": arrays[1]} if bias else {})}
    t.weighted({"op": "linear", "width": width, "bias": bias}, named)
    t.shape = (width,)


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


_Layer = Callable[[Translation, Mapping[str, Any], list["np.ndarray"]], None]
_LAYERS: dict[str, _Layer] = {
    "InputLayer": _nothing,
    "Dropout": _nothing,
    "Dense": _dense,
    **dict.fromkeys(("Conv1D", "Conv2D", "Conv3D"), _conv),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), _conv_transpose),
    "BatchNormalization": _batch_norm,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Activation": _activation,
    "ReLU": lambda t, _, __: t.activate("relu"),
    "ELU": lambda t, _, __: t.activate("elu"),
    "LeakyReLU": _leaky_relu,
}
