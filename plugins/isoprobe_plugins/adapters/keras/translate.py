"""Translate encoder and decoder of a Keras model to chains of the architecture ``layers``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
import torch

from isoprobe.checkpoints.native import compare_state
from isoprobe.contracts import Networks
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.keras.graph import (
    ancestors,
    conditions_of,
    input_shape,
    layers_of,
    parents_in,
)
from isoprobe_plugins.adapters.keras.layers import Translation
from isoprobe_plugins.adapters.weights.named import built_without_memory, fill_layers
from isoprobe_plugins.architectures.chain import Chain, ChainDecoder, SigmoidChainDecoder
from isoprobe_plugins.architectures.layers import LayersConfig
from isoprobe_plugins.architectures.steps import Steps
from isoprobe_plugins.heads import check_head

if TYPE_CHECKING:
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
    encoding: Part,
    decoding: Part,
    head: str | None,
    where: str,
    given: tuple[int, ...] | None = None,
) -> tuple[Networks, str, str]:
    """Translate both parts and fill them.

    Args:
        encoding: the encoder.
        decoding: the decoder.
        head: form of the scale; told by its layer's name when None.
        where: how to name the file in an error.
        given: shape of one input, where the file leaves it free.

    Returns:
        The networks, the form of the scale, and how it was told.

    Raises:
        CheckpointError: for layers without a translation, and arrays that do not fit.
    """
    encoder, mean, scale = _encoder(encoding, given)
    decoder = _decoder(decoding)
    form, note = _form(head, scale.place)
    last = decoder.steps[-1] if decoder.steps else {}
    sigmoid = last.get("name") == "sigmoid"
    if sigmoid:
        decoder.steps.pop()
    decoder.leave()
    fields = {
        "input_shape": _first(encoding, given),
        "latent_size": mean.shape[0],
        "encoder": encoder.steps,
        "head": {"form": form, "mean": mean.steps, "scale": scale.steps},
        "decoder": decoder.steps,
        "output": "sigmoid" if sigmoid else "linear",
        "condition": _told(encoding, decoding),
    }
    weights = encoder.weights | mean.weights | scale.weights | decoder.weights
    tensors = {k: torch.tensor(v).contiguous() for k, v in weights.items()}
    networks = fill_layers(msgspec.convert(fields, LayersConfig), tensors, where)
    return networks, form, note


def translate_decoder(part: Part, where: str) -> Networks:
    """Translate a decoder alone and fill it.

    Args:
        part: the decoder.
        where: how to name the file in an error.

    Returns:
        The networks, of which the encoder is none.

    Raises:
        CheckpointError: for layers without a translation, and arrays that do not fit.
    """
    layers = {layer.name: layer for layer in layers_of(part.model)}
    told = list(conditions_of(part.model, layers).values())
    decoder, latent = _decoder(part), _first(part, None)
    sigmoid = bool(decoder.steps) and decoder.steps[-1].get("name") == "sigmoid"
    if sigmoid:
        decoder.steps.pop()
    decoder.leave()
    steps = msgspec.convert(decoder.steps, Steps)
    kind = SigmoidChainDecoder if sigmoid else ChainDecoder

    def build() -> Networks:
        network = kind(Chain(steps, latent, "decoder"), "linear")
        words = "class" if told and told[0] else "number"
        shape = decoder.shape
        return Networks(torch.nn.Identity(), network, shape, latent, tuple(told), words)

    networks = built_without_memory(build, where)
    tensors = {
        f"body.{name.removeprefix('decoder.')}": torch.tensor(values).contiguous()
        for name, values in decoder.weights.items()
    }
    counters = [n for n in networks.decoder.state_dict() if n.endswith("num_batches_tracked")]
    tensors |= {name: torch.zeros((), dtype=torch.long) for name in counters}
    compare_state(networks.decoder, tensors, where)
    networks.decoder.load_state_dict(tensors, assign=True)
    return networks


def _form(head: str | None, name: str) -> tuple[str, str]:
    if head is not None:
        return check_head(head), ""
    form = "logstd" if _LOG_STD.search(name) else "logvar"
    return form, f"layer {name!r} is read as {form}"


def _first(part: Part, given: tuple[int, ...] | None) -> tuple[int, ...]:
    """Shape of the first input, in the model's own order."""
    layers = layers_of(part.model)
    names = list(parents_in(part.model["config"].get("input_layers", [])))
    first = next((layer for layer in layers if names and layer.name == names[0]), layers[0])
    return input_shape(first, given)


def _told(*parts: Part) -> dict[str, Any] | None:
    """What both are told of each sample."""
    found = []
    for part in parts:
        layers = {layer.name: layer for layer in layers_of(part.model)}
        found.append(list(conditions_of(part.model, layers).values()))
    first, second = found
    if first and second and first != second:
        raise CheckpointError(
            f"the Keras encoder takes a condition of width {first[0]}, the decoder of {second[0]}"
        )
    classes = first or second
    return {"classes": classes, "words": "class" if classes[0] else "number"} if classes else None


def _encoder(
    part: Part, given: tuple[int, ...] | None
) -> tuple[Translation, Translation, Translation]:
    """Translate the trunk and the two heads of an encoder's outputs."""
    layers = {layer.name: layer for layer in layers_of(part.model)}
    told = conditions_of(part.model, layers)
    outputs = list(parents_in(part.model["config"].get("output_layers", [])))
    if len(outputs) < 2:
        raise CheckpointError(
            f"the Keras encoder has {len(outputs)} output; needed are mean and log variance"
        )
    chains = [ancestors(layers, name, tuple(told)) for name in outputs[:2]]
    common = 0
    while common < min(map(len, chains)) and chains[0][common] == chains[1][common]:
        common += 1
    trunk = Translation("encoder", input_shape(layers[chains[0][0]], given))
    trunk.enter()
    for name in chains[0][:common]:
        _add(trunk, layers[name], part, told)
    heads = []
    for chain in chains:
        head = Translation(chain[-1], trunk.shape)
        for name in chain[common:]:
            _add(head, layers[name], part, told)
        heads.append(head)
    return trunk, heads[0], heads[1]


def _decoder(part: Part) -> Translation:
    layers = {layer.name: layer for layer in layers_of(part.model)}
    last = next(iter(parents_in(part.model["config"].get("output_layers", []))), None)
    told = conditions_of(part.model, layers)
    chain = ancestors(layers, last if last is not None else list(layers)[-1], tuple(told))
    decoder = Translation("decoder", input_shape(layers[chain[0]]))
    decoder.enter()
    for name in chain:
        _add(decoder, layers[name], part, told)
    return decoder


def _add(chain: Translation, layer: Layer, part: Part, told: Mapping[str, int]) -> None:
    joined = [name for name in layer.parents if name in told]
    if layer.kind == "Concatenate" and joined:
        chain.join(told[joined[0]], first=layer.parents[0] == joined[0])
        return
    chain.add(layer.kind, layer.config, part.arrays.of(part.prefix, layer))
