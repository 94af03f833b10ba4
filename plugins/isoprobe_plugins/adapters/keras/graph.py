"""Read the layers of a Keras model from its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isoprobe.errors import CheckpointError

#: models whose graph is in their configuration; ``Model`` is what Functional was called once
GRAPHS = frozenset({"Functional", "Sequential", "Model"})


@dataclass(frozen=True)
class Layer:
    """A layer of a Keras graph.

    Attributes:
        name: in the configuration.
        kind: its class.
        config: its configuration.
        stored: its name in an archive's weights file.
        parents: names of the layers it takes.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    stored: str
    parents: tuple[str, ...]


def layers_of(model: Mapping[str, Any]) -> list[Layer]:
    """List the layers of a Functional or Sequential model."""
    if model["class_name"] not in GRAPHS:
        raise CheckpointError(
            f"a Keras {model['class_name']} is code; only Functional and Sequential models, made "
            "of built-in layers, can be translated"
        )
    counts: dict[str, int] = {}
    layers: list[Layer] = []
    for entry in model["config"]["layers"]:
        kind = str(entry["class_name"])
        snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", kind).lower()
        snake = re.sub(r"(\d)_?d(_|$)", r"\1d\2", snake)
        index = counts[snake] = counts.get(snake, -1) + 1
        name = str(entry["config"]["name"])
        parents = tuple(dict.fromkeys(parents_in(entry.get("inbound_nodes", []))))
        if model["class_name"] == "Sequential" and layers and not parents:
            parents = (layers[-1].name,)
        stored = snake if index == 0 else f"{snake}_{index}"
        layers.append(Layer(name, kind, entry["config"], stored, parents))
    return layers


def parents_in(nodes: Any) -> Iterator[str]:
    """Find the names of layers in either generation's notation of connections."""
    if isinstance(nodes, Mapping):
        if "keras_history" in nodes:
            yield str(nodes["keras_history"][0])
        else:
            for value in nodes.values():
                yield from parents_in(value)
    elif isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            yield nodes[0]
        else:
            for value in nodes:
                yield from parents_in(value)


def ancestors(layers: Mapping[str, Layer], name: str, told: Sequence[str] = ()) -> list[str]:
    """Chain of layers from the input to a named one.

    Args:
        layers: of the model, by name.
        name: where the chain ends.
        told: inputs that are conditions, which may be concatenated on the way.

    Returns:
        Names, the input first.

    Raises:
        CheckpointError: for a layer that takes several others.
    """
    chain = [name]
    while layers[chain[-1]].parents:
        layer = layers[chain[-1]]
        parents = [p for p in layer.parents if not (layer.kind == "Concatenate" and p in told)]
        if len(parents) != 1 or parents[0] in chain:
            raise CheckpointError(
                f"Keras layer {chain[-1]!r} takes {len(layer.parents)} layers, not one"
            )
        chain.append(parents[0])
    return chain[::-1]


def conditions_of(model: Mapping[str, Any], layers: Mapping[str, Layer]) -> dict[str, int]:
    """Inputs beside the first that are conditions, and how many classes each codes one-hot.

    Args:
        model: class and configuration.
        layers: its layers, by name.

    Returns:
        Widths by name, in order; 0 for a single number.

    Raises:
        CheckpointError: for more than one, or one that is no vector.
    """
    names = list(parents_in(model["config"].get("input_layers", [])))[1:]
    if len(names) > 1:
        raise CheckpointError(
            f"the Keras model takes {1 + len(names)} inputs; a condition beside x is read, no more"
        )
    found = {}
    for name in names:
        shape = input_shape(layers[name])
        if len(shape) != 1:
            raise CheckpointError(
                f"the Keras input {name!r} of shape {shape} is no condition: a one-hot code or a "
                "number is a vector"
            )
        found[name] = shape[0] if shape[0] > 1 else 0
    return found


def input_shape(layer: Layer, given: tuple[int, ...] | None = None) -> tuple[int, ...]:
    """Return the shape of one input, as the layer that takes it declares.

    Args:
        layer: the input.
        given: the shape, where the layer leaves lengths free.

    Returns:
        The shape.

    Raises:
        CheckpointError: when it is not fixed, or not as given.
    """
    shape = layer.config.get("batch_input_shape", layer.config.get("batch_shape"))
    own = tuple(shape[1:]) if shape else ()
    free = not own or any(not isinstance(n, int) for n in own)
    if given is not None:
        fits = len(given) == len(own) and all(
            n == g or n is None for n, g in zip(own, given, strict=True)
        )
        if not fits:
            raise CheckpointError(
                f"the Keras input {layer.name!r} has shape {shape}; input_shape says {given}"
            )
        return given
    if free:
        raise CheckpointError(
            f"the Keras input {layer.name!r} has no fixed shape, found {shape}; say "
            "--option input_shape=AxB with the lengths of the data"
        )
    return own
