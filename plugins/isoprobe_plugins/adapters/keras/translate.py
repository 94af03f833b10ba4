"""Translate encoder and decoder of a Keras model to chains of the architecture ``layers``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.keras.graph import ancestors, input_shape, layers_of, parents_in
from isoprobe_plugins.adapters.keras.layers import Translation
from isoprobe_plugins.adapters.weights.named import fill_layers
from isoprobe_plugins.architectures.layers import LayersConfig
from isoprobe_plugins.heads import check_head

if TYPE_CHECKING:
    from isoprobe.contracts import Networks
    from isoprobe_plugins.adapters.keras.arrays import Arrays
    from isoprobe_plugins.adapters.keras.graph import Layer

_LOG_STD = re.compile(r"log_?(std|sigma)", re.IGNORECASE)


@dataclass(frozen=True)
class Part:
    """An encoder or a decoder.

    Attributes:
        model: its configuration, of a class of :data:`~.keras_graph.GRAPHS`.
        arrays: of the file it is in.
        prefix: groups that lead to it in that file.
    """

    model: Mapping[str, Any]
    arrays: Arrays
    prefix: tuple[str, ...] = ()


def translate(
    encoding: Part, decoding: Part, head: str | None, where: str
) -> tuple[Networks, str, str]:
    """Translate both parts and fill them.

    Args:
        encoding: the encoder.
        decoding: the decoder.
        head: form of the scale; told by its layer's name when None.
        where: how to name the file in an error.

    Returns:
        The networks, the form of the scale, and how it was told.

    Raises:
        CheckpointError: for layers without a translation, and arrays that do not fit.
    """
    encoder, mean, scale = _encoder(encoding)
    decoder = _decoder(decoding)
    form, note = _form(head, scale.place)
    last = decoder.steps[-1] if decoder.steps else {}
    sigmoid = last.get("name") == "sigmoid"
    if sigmoid:
        decoder.steps.pop()
    decoder.leave()
    fields = {
        "input_shape": input_shape(layers_of(encoding.model)[0]),
        "latent_size": mean.shape[0],
        "encoder": encoder.steps,
        "head": {"form": form, "mean": mean.steps, "scale": scale.steps},
        "decoder": decoder.steps,
        "output": "sigmoid" if sigmoid else "linear",
    }
    weights = encoder.weights | mean.weights | scale.weights | decoder.weights
    tensors = {k: torch.tensor(v).contiguous() for k, v in weights.items()}
    networks = fill_layers(msgspec.convert(fields, LayersConfig), tensors, where)
    return networks, form, note


def _form(head: str | None, name: str) -> tuple[str, str]:
    if head is not None:
        return check_head(head), ""
    form = "logstd" if _LOG_STD.search(name) else "logvar"
    return form, f"layer {name!r} is read as {form}"


def _encoder(part: Part) -> tuple[Translation, Translation, Translation]:
    """Translate the trunk and the two heads of an encoder's outputs."""
    layers = {layer.name: layer for layer in layers_of(part.model)}
    outputs = list(parents_in(part.model["config"].get("output_layers", [])))
    if len(outputs) < 2:
        raise CheckpointError(
            f"the Keras encoder has {len(outputs)} output; needed are mean and log variance"
        )
    chains = [ancestors(layers, name) for name in outputs[:2]]
    common = 0
    while common < min(map(len, chains)) and chains[0][common] == chains[1][common]:
        common += 1
    trunk = Translation("encoder", input_shape(layers[chains[0][0]]))
    trunk.enter()
    for name in chains[0][:common]:
        _add(trunk, layers[name], part)
    heads = []
    for chain in chains:
        head = Translation(chain[-1], trunk.shape)
        for name in chain[common:]:
            _add(head, layers[name], part)
        heads.append(head)
    return trunk, heads[0], heads[1]


def _decoder(part: Part) -> Translation:
    layers = {layer.name: layer for layer in layers_of(part.model)}
    last = next(iter(parents_in(part.model["config"].get("output_layers", []))), None)
    chain = ancestors(layers, last if last is not None else list(layers)[-1])
    decoder = Translation("decoder", input_shape(layers[chain[0]]))
    decoder.enter()
    for name in chain:
        _add(decoder, layers[name], part)
    return decoder


def _add(chain: Translation, layer: Layer, part: Part) -> None:
    chain.add(layer.kind, layer.config, part.arrays.of(part.prefix, layer))
