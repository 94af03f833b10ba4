"""Name the activations that architectures share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

Activation = Literal[
    "relu", "leaky_relu", "elu", "selu", "gelu", "silu", "tanh", "sigmoid", "softplus", "identity",
    "mish", "hardswish", "hardtanh", "relu6", "celu", "hardsigmoid", "softsign",
]  # fmt: skip

_MODULES = {
    "relu": "ReLU",
    "leaky_relu": "LeakyReLU",
    "elu": "ELU",
    "selu": "SELU",
    "gelu": "GELU",
    "silu": "SiLU",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softplus": "Softplus",
    "identity": "Identity",
    "mish": "Mish",
    "hardswish": "Hardswish",
    "hardtanh": "Hardtanh",
    "relu6": "ReLU6",
    "celu": "CELU",
    "hardsigmoid": "Hardsigmoid",
    "softsign": "Softsign",
}


def activation(name: Activation) -> nn.Module:
    """Return a new module of a named activation, with torch's own defaults."""
    from torch import nn

    module: nn.Module = getattr(nn, _MODULES[name])()
    return module
