"""Build the convolutional VAE with GDN and IGDN, as the paper has for CelebA (Appendix C.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from isoprobe.contracts import Architecture, Networks
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.architectures.configuration import Size, Widths, read_config
from isoprobe_plugins.heads import check_head

Kernels = Annotated[list[Size], msgspec.Meta(min_length=1, max_length=16)]


class GdnConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of ``gdn``.

    Attributes:
        input_shape: (C, H, W), H and W divisible by 2 for each kernel.
        latent_size: number of latents n.
        channels: of every convolution.
        kernels: sides of the kernels, odd, from the image inwards; each halves the image.
        encoder_widths: dense layers after the encoder's convolutions.
        decoder_widths: dense layers before the one the decoder's convolutions start from.
        head: form of the scale head, see :data:`isoprobe_plugins.heads.HEADS`.
    """

    input_shape: tuple[Size, Size, Size]
    latent_size: Size
    channels: Size = 64
    kernels: Kernels = msgspec.field(default_factory=lambda: [9, 5, 5, 5])
    encoder_widths: Widths = msgspec.field(default_factory=lambda: [1024])
    decoder_widths: Widths = msgspec.field(default_factory=lambda: [1024])
    head: str = "logvar"


class GdnConvolutional(Architecture):
    """Strided convolutions with GDN, dense layers with softplus, and the mirror image of both."""

    name = "gdn"
    summary = "convolutions with generalised divisive normalisation (Appendix C.2)"

    def build(self, config: Mapping[str, Any]) -> Networks:
        """Build the untrained networks from fields of :class:`GdnConfig`; kernels fit the image."""
        from isoprobe_plugins.architectures.convolutional_layers import GdnDecoder, GdnEncoder

        c = read_config(config, GdnConfig, self.name)
        check_head(c.head)
        even = [k for k in c.kernels if k % 2 == 0]
        if even:
            raise CheckpointError(
                f"architecture 'gdn' needs kernels of odd side; found {even[0]} in {c.kernels}"
            )
        steps = 2 ** len(c.kernels)
        _, height, width = c.input_shape
        if height % steps or width % steps:
            raise CheckpointError(
                f"architecture 'gdn' with {len(c.kernels)} kernels needs height and width "
                f"divisible by {steps}; found {height} x {width}"
            )
        n, image = c.latent_size, c.input_shape
        encoder = GdnEncoder(image, c.kernels, c.channels, c.encoder_widths, n, c.head)
        decoder = GdnDecoder(image, c.kernels, c.channels, c.decoder_widths, n)
        return Networks(encoder, decoder, image, (n,))


@hookimpl
def isoprobe_architectures() -> list[type[Architecture]]:
    """Return the architectures of this module."""
    return [GdnConvolutional]
