"""Build dense layers beside a linear map each, so that a linear VAE is where they start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from isoprobe.contracts import Architecture, Networks
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.architectures.configuration import Shape, Size, Widths, read_config


class SkipConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of ``skip``.

    Attributes:
        input_shape: shape of one input, flattened at the entrance and restored at the exit.
        widths: hidden widths of the encoder from input to heads; the decoder's in reverse.
        latent_size: number of latents n.
    """

    input_shape: Shape
    widths: Widths
    latent_size: Size


class Skip(Architecture):
    """Mean, log sigma and output are each a linear map plus layers with tanh."""

    name = "skip"
    summary = "dense layers with tanh beside a linear map, in encoder and decoder"

    def build(self, config: Mapping[str, Any]) -> Networks:
        """Build the untrained networks from fields of :class:`SkipConfig`."""
        from isoprobe_plugins.architectures.skip_layers import SkipDecoder, SkipEncoder

        c = read_config(config, SkipConfig, self.name)
        encoder = SkipEncoder(c.input_shape, c.widths, c.latent_size)
        decoder = SkipDecoder(c.latent_size, c.widths[::-1], c.input_shape)
        return Networks(encoder, decoder, c.input_shape, (c.latent_size,))


@hookimpl
def isoprobe_architectures() -> list[type[Architecture]]:
    """Return the architecture of this module."""
    return [Skip]
