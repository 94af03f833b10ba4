"""Build fully connected encoder and decoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from isoprobe.contracts import Architecture, Networks
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.architectures.activations import Activation, activation
from isoprobe_plugins.architectures.configuration import Shape, Size, Widths, read_config
from isoprobe_plugins.heads import check_head

if TYPE_CHECKING:
    from torch import nn


class MlpConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of ``mlp``.

    Attributes:
        input_shape: shape of one input, flattened at the entrance and restored at the exit.
        encoder_widths: hidden widths from input to heads.
        decoder_widths: hidden widths from latent to output.
        latent_size: number of latents n.
        activation: after every hidden layer.
        decoder_activation: after the decoder's hidden layers, where it differs.
        output: ``sigmoid`` squeezes the output into (0, 1); ``linear`` leaves it alone.
        head: form of the scale head, see :data:`isoprobe_plugins.heads.HEADS`.
    """

    input_shape: Shape
    encoder_widths: Widths
    decoder_widths: Widths
    latent_size: Size
    activation: Activation = "relu"
    decoder_activation: Activation | None = None
    output: Literal["linear", "sigmoid"] = "linear"
    head: str = "logvar"


class Mlp(Architecture):
    """A shared trunk with linear heads for mean and scale, and a decoder of dense layers."""

    name = "mlp"
    summary = "dense encoder with mean and scale heads, dense decoder"

    def build(self, config: Mapping[str, Any]) -> Networks:
        """Build the untrained networks from fields of :class:`MlpConfig`."""
        from isoprobe_plugins.architectures.dense import (
            DenseDecoder,
            DenseEncoder,
            SigmoidDenseDecoder,
        )

        c = read_config(config, MlpConfig, self.name)
        check_head(c.head)
        encoder = DenseEncoder(
            c.input_shape, _hidden(c.encoder_widths, c.activation), c.latent_size, c.head
        )
        decoder_kind = SigmoidDenseDecoder if c.output == "sigmoid" else DenseDecoder
        decoder = decoder_kind(
            c.latent_size,
            _hidden(c.decoder_widths, c.decoder_activation or c.activation),
            c.input_shape,
        )
        return Networks(encoder, decoder, c.input_shape, (c.latent_size,))


def _hidden(widths: list[int], name: Activation) -> list[tuple[int, nn.Module]]:
    return [(width, activation(name)) for width in widths]


@hookimpl
def isoprobe_architectures() -> list[type[Architecture]]:
    """Return the architectures of this module."""
    return [Mlp]
