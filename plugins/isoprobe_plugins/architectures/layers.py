"""Any chain of ordinary layers, written down: what declared and converted checkpoints use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from isoprobe.contracts import Architecture, Networks
from isoprobe.errors import CheckpointError
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.architectures.configuration import Shape, Size, read_config
from isoprobe_plugins.architectures.steps import Steps  # noqa: TC001  # a field's type
from isoprobe_plugins.heads import check_head

if TYPE_CHECKING:
    from isoprobe_plugins.architectures.chain import Chain


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where mean and scale stand, and what the scale is.

    Attributes:
        layout: ``separate`` chains ``mean`` and ``scale`` on top of the encoder; or the encoder's
            own 2n outputs: ``halves`` (mean first), ``swapped`` (scale first), ``interleaved``
            (mean at even places).
        form: see :data:`isoprobe_plugins.heads.HEADS`.
        mean: chain of the mean, for ``separate``.
        scale: chain of the scale, for ``separate``.
    """

    layout: Literal["separate", "halves", "swapped", "interleaved"] = "separate"
    form: str = "logvar"
    mean: Steps = ()
    scale: Steps = ()


class LayersConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of ``layers``.

    Attributes:
        input_shape: shape of one input.
        latent_size: number of latents n.
        encoder: steps from the input to the head.
        head: how mean and scale are read.
        decoder: steps from the latent vector to the output.
        output: ``sigmoid`` or ``tanh`` squeezes the output; ``linear`` leaves it alone.
    """

    input_shape: Shape
    latent_size: Size
    encoder: Steps
    decoder: Steps
    head: Head = Head()
    output: Literal["linear", "sigmoid", "tanh"] = "linear"


class Layers(Architecture):
    """Encoder, head and decoder as chains of steps."""

    name = "layers"
    summary = "chains of dense, convolution, normalisation and activation layers"

    def build(self, config: Mapping[str, Any]) -> Networks:
        """Build the untrained networks.

        Args:
            config: fields of :class:`LayersConfig`.

        Returns:
            Encoder ``(B, *input_shape) -> (mean, std)`` and decoder ``(B, n) -> x_hat``.

        Raises:
            CheckpointError: naming the field or the step that does not fit.
        """
        return build_layers(read_config(config, LayersConfig, self.name))


def build_layers(config: LayersConfig) -> Networks:
    """Build the networks of a checked configuration.

    Args:
        config: the configuration.

    Returns:
        Encoder and decoder, untrained.

    Raises:
        CheckpointError: naming the step that does not fit.
    """
    from isoprobe_plugins.architectures.chain import (
        Chain,
        ChainDecoder,
        ChainEncoder,
        SigmoidChainDecoder,
    )

    check_head(config.head.form)
    n = config.latent_size
    body = Chain(config.encoder, config.input_shape, "encoder")
    heads = None
    if config.head.layout == "separate":
        mean = Chain(config.head.mean, body.shape, "head.mean")
        scale = Chain(config.head.scale, body.shape, "head.scale")
        heads = (mean, scale)
    for chain, size in ((mean, n), (scale, n)) if heads else ((body, 2 * n),):
        _expect(chain, size)
    encoder = ChainEncoder(body, heads, config.head.layout, config.head.form)
    chain = Chain(config.decoder, (n,), "decoder")
    if chain.shape != config.input_shape:
        raise CheckpointError(
            f"architecture 'layers': the decoder gives shape {chain.shape}, "
            f"the input has {config.input_shape}"
        )
    kind = SigmoidChainDecoder if config.output == "sigmoid" else ChainDecoder
    encoder.config = config
    return Networks(encoder, kind(chain, config.output), config.input_shape, (n,))


def plain_config(config: LayersConfig) -> dict[str, Any]:
    """Return a configuration for a manifest, without the names weights had in a foreign file."""
    plain: dict[str, Any] = _without_names(msgspec.to_builtins(config))
    return plain


def _without_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_names(v) for k, v in value.items() if k != "weights"}
    if isinstance(value, list | tuple):
        return [_without_names(item) for item in value]
    return value


def _expect(chain: Chain, size: int) -> None:
    if chain.size != size:
        raise CheckpointError(
            f"architecture 'layers': {chain.place} gives {chain.size} values, "
            f"latent_size asks for {size}"
        )


@hookimpl
def isoprobe_architectures() -> list[type[Architecture]]:
    """Return the architectures of this module."""
    return [Layers]
