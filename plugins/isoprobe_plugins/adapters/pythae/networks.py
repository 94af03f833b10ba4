"""Declare pythae's networks: the default ones and its benchmarks' convolutional ones.

The folder says which are the default; of any other network it holds only pickled code. Where that
code bears the name of one of pythae's own convolutional networks, the weights can be read as that
network without running it. The residual ones are no plain chain of layers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

_NAME = re.compile(r"(?:En|De)coder_(?:Conv|ResNet)_\w*?_(?:MNIST|CIFAR|CELEBA)$")
#: data set -> side of the decoder's first map, and stride, padding and output padding of each
#: transposed convolution; kernels are read off the weights
_DECODERS: dict[str, tuple[int, tuple[tuple[int, int, int], ...]]] = {
    "MNIST": (4, ((2, 1, 0), (2, 1, 1), (2, 1, 1))),
    "CIFAR": (8, ((2, 1, 0), (2, 1, 1), (1, 2, 0))),
    "CELEBA": (8, ((2, 2, 0), (2, 1, 0), (2, 2, 1), (1, 1, 0))),
}
_CHANNELS = 1024
_KNOWN = {
    **{f"Encoder_Conv_VAE_{name}": name for name in _DECODERS},
    **{f"Decoder_Conv_AE_{name}": name for name in _DECODERS},
}

Chain = list[Any]


def network_named(pickled: Source) -> str | None:
    """Return the name of a pythae network that a pickle of code bears; nothing in it is run.

    Args:
        pickled: encoder.pkl or decoder.pkl.

    Returns:
        The name, None where there is none or more than one.
    """
    scan = pickled.pickle
    names = {text for text in (scan.strings if scan is not None else ()) if _NAME.match(text)}
    return names.pop() if len(names) == 1 else None


def encoder_chain(network: str | None) -> Chain | None:
    """Return the layers of an encoder up to its heads.

    Args:
        network: name of the network; None for the default one.

    Returns:
        Brief steps; None for a network that is not known.
    """
    if network is None:
        return ["flatten", {"linear": "encoder.layers.0.0"}, "relu"]
    if network not in _KNOWN or not network.startswith("Encoder"):
        return None
    steps: Chain = []
    for index in range(4):
        place = f"encoder.layers.{index}"
        steps += [{"conv": f"{place}.0", "stride": 2, "padding": 1}, {"batch_norm": f"{place}.1"}]
        steps.append("relu")
    return [*steps, "flatten"]


def decoder_chain(network: str | None, input_shape: tuple[int, ...]) -> Chain | None:
    """Return the layers of a decoder up to its sigmoid.

    Args:
        network: name of the network; None for the default one.
        input_shape: shape of one input.

    Returns:
        Brief steps; None for a network that is not known.
    """
    if network is None:
        return [
            {"linear": "decoder.layers.0.0"},
            "relu",
            {"linear": "decoder.layers.1.0"},
            {"reshape": list(input_shape)},
        ]
    if network not in _KNOWN or not network.startswith("Decoder"):
        return None
    side, layers = _DECODERS[_KNOWN[network]]
    first = "decoder.layers.0.0" if _KNOWN[network] == "CELEBA" else "decoder.layers.0"
    return [{"linear": first}, {"reshape": [_CHANNELS, side, side]}, *_upwards(layers)]


def _upwards(layers: tuple[tuple[int, int, int], ...]) -> Iterator[Any]:
    """Yield transposed convolutions, a norm and a ReLU after all but the last."""
    for index, (stride, padding, extra) in enumerate(layers, start=1):
        place = f"decoder.layers.{index}"
        yield {
            "conv_transpose": f"{place}.0",
            "stride": stride,
            "padding": padding,
            "output_padding": extra,
        }
        if index < len(layers):
            yield from ({"batch_norm": f"{place}.1"}, "relu")
