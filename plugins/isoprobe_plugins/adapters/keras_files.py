"""Keras archives whose encoder and decoder are made of built-in layers, translated to torch."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoprobe.contracts import VAE, Adapter, Facts
from isoprobe.errors import CheckpointError, OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.source import FileKind
from isoprobe.specs import construct
from isoprobe_plugins.heads import check_head

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Networks
    from isoprobe.source import Source
    from isoprobe_plugins.adapters.keras_layers import Translation

WEIGHTS_LIMIT = 1 << 30
_LOG_STD = re.compile(r"log_?(std|sigma)", re.IGNORECASE)


@dataclass(frozen=True)
class KerasOptions:
    """Options of ``keras``.

    Attributes:
        head: form of the scale; told by the layer's name when left out.
        metric: metric spec of the training loss, which is code and so not in the file.
        beta: KL weight in the units of that metric; the file's own ``beta`` when left out.
    """

    head: str | None = None
    metric: str | None = None
    beta: float | None = None


@dataclass(frozen=True)
class Layer:
    """A layer of a Keras graph.

    Attributes:
        name: in the configuration.
        kind: its class.
        config: its configuration.
        stored: its name in the weights file.
        parents: names of the layers it takes.
    """

    name: str
    kind: str
    config: Mapping[str, Any]
    stored: str
    parents: tuple[str, ...]


class Keras(Adapter):
    """Reads the configuration's JSON and the arrays; custom code and Lambda layers are refused."""

    name = "keras"
    summary = "Keras archives of an encoder and a decoder made of built-in layers"

    def matches(self, source: Source) -> bool:
        """Return True for a Keras archive."""
        return source.kind is FileKind.KERAS

    def load(self, source: Source, options: Mapping[str, str]) -> VAE:
        """Translate encoder and decoder.

        Args:
            source: the archive.
            options: fields of :class:`KerasOptions`.

        Returns:
            The model; inputs keep Keras' channels-last shape.

        Raises:
            CheckpointError: for custom layers, and arrays that do not fit the configuration.
        """
        from isoprobe.checkpoint import vae_from_networks

        settings = construct(KerasOptions, options, f"adapter '{self.name}'")
        config = _config(source)
        try:
            networks, form, note = _translate(source, config, settings.head)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise CheckpointError(
                f"{source.path}: its configuration does not fit its weights ({error!r})"
            ) from error
        return vae_from_networks(
            networks,
            _facts(config, settings, form, note, networks),
            name=source.path.stem,
            adapter=self.name,
            sha256=source.sha256(),
        )

    def describe(self, source: Source) -> Mapping[str, Any]:
        """Return classes and layers."""
        config = _config(source)
        parts = {
            part: [f"{layer.name}: {layer.kind}" for layer in _layers(config[part])]
            for part in ("encoder", "decoder")
        }
        return {"architecture": f"Keras {source.json('config.json').get('class_name')}", **parts,
                "beta": config.get("beta")}  # fmt: skip


def _config(source: Source) -> dict[str, Any]:
    """Return the configuration of a model with an encoder and a decoder.

    Raises:
        CheckpointError: when it has no such parts.
    """
    whole = source.json("config.json")
    config = whole.get("config") if isinstance(whole, dict) else None
    if not isinstance(config, dict) or not {"encoder", "decoder"} <= set(config):
        raise CheckpointError(
            f"{source.path} is a Keras {whole.get('class_name', 'file')} whose configuration has "
            "no encoder and decoder; save them as parts of one model, or build it with "
            "--adapter factory"
        )
    return config


def _layers(model: Mapping[str, Any]) -> list[Layer]:
    """List the layers of a Functional or Sequential model."""
    if model["class_name"] not in {"Functional", "Sequential"}:
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
        parents = tuple(dict.fromkeys(_parents(entry.get("inbound_nodes", []))))
        if model["class_name"] == "Sequential" and layers and not parents:
            parents = (layers[-1].name,)
        stored = snake if index == 0 else f"{snake}_{index}"
        layers.append(Layer(name, kind, entry["config"], stored, parents))
    return layers


def _parents(nodes: Any) -> Iterator[str]:
    """Find the names of layers in either generation's notation of connections."""
    if isinstance(nodes, Mapping):
        if "keras_history" in nodes:
            yield str(nodes["keras_history"][0])
        else:
            for value in nodes.values():
                yield from _parents(value)
    elif isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int):
            yield nodes[0]
        else:
            for value in nodes:
                yield from _parents(value)


# --------------------------------------------------------------------------- translation


def _translate(
    source: Source, config: Mapping[str, Any], head: str | None
) -> tuple[Networks, str, str]:
    """Translate both parts and fill them.

    Returns:
        The networks, the form of the scale, and how it was told.
    """
    import msgspec
    import torch

    from isoprobe_plugins.adapters.named_weights import fill_layers
    from isoprobe_plugins.architectures.layers import LayersConfig

    arrays = _Arrays(source)
    encoder, mean, scale = _encoder(config["encoder"], arrays)
    decoder = _decoder(config["decoder"], arrays)
    form, note = _form(head, scale.place)
    last = decoder.steps[-1] if decoder.steps else {}
    sigmoid = last.get("name") == "sigmoid"
    if sigmoid:
        decoder.steps.pop()
    decoder.leave()
    fields = {
        "input_shape": _input_shape(_layers(config["encoder"])[0]),
        "latent_size": mean.shape[0],
        "encoder": encoder.steps,
        "head": {"form": form, "mean": mean.steps, "scale": scale.steps},
        "decoder": decoder.steps,
        "output": "sigmoid" if sigmoid else "linear",
    }
    weights = encoder.weights | mean.weights | scale.weights | decoder.weights
    tensors = {k: torch.tensor(v).contiguous() for k, v in weights.items()}
    networks = fill_layers(msgspec.convert(fields, LayersConfig), tensors, str(source.path))
    return networks, form, note


def _form(head: str | None, name: str) -> tuple[str, str]:
    if head is not None:
        return check_head(head), ""
    form = "logstd" if _LOG_STD.search(name) else "logvar"
    return form, f"layer {name!r} is read as {form}"


def _encoder(
    model: Mapping[str, Any], arrays: _Arrays
) -> tuple[Translation, Translation, Translation]:
    """Translate the trunk and the two heads of an encoder's outputs."""
    from isoprobe_plugins.adapters.keras_layers import Translation

    layers = {layer.name: layer for layer in _layers(model)}
    outputs = list(_parents(model["config"]["output_layers"]))
    if len(outputs) < 2:
        raise CheckpointError(
            f"the Keras encoder has {len(outputs)} output; needed are mean and log variance"
        )
    chains = [_ancestors(layers, name) for name in outputs[:2]]
    common = 0
    while common < min(map(len, chains)) and chains[0][common] == chains[1][common]:
        common += 1
    trunk = Translation("encoder", _input_shape(layers[chains[0][0]]))
    trunk.enter()
    for name in chains[0][:common]:
        _add(trunk, layers[name], arrays, "encoder")
    heads = []
    for chain in chains:
        head = Translation(chain[-1], trunk.shape)
        for name in chain[common:]:
            _add(head, layers[name], arrays, "encoder")
        heads.append(head)
    return trunk, heads[0], heads[1]


def _decoder(model: Mapping[str, Any], arrays: _Arrays) -> Translation:
    from isoprobe_plugins.adapters.keras_layers import Translation

    layers = {layer.name: layer for layer in _layers(model)}
    last = next(iter(_parents(model["config"].get("output_layers", []))), None)
    chain = _ancestors(layers, last if last is not None else list(layers)[-1])
    decoder = Translation("decoder", _input_shape(layers[chain[0]]))
    decoder.enter()
    for name in chain:
        _add(decoder, layers[name], arrays, "decoder")
    return decoder


def _add(chain: Translation, layer: Layer, arrays: _Arrays, part: str) -> None:
    chain.add(layer.kind, layer.config, arrays.of(part, layer.stored))


def _ancestors(layers: Mapping[str, Layer], name: str) -> list[str]:
    """Chain of layers from the input to a named one."""
    chain = [name]
    while layers[chain[-1]].parents:
        parents = layers[chain[-1]].parents
        if len(parents) != 1 or parents[0] in chain:
            raise CheckpointError(f"Keras layer {chain[-1]!r} takes {len(parents)} layers, not one")
        chain.append(parents[0])
    return chain[::-1]


def _input_shape(layer: Layer) -> tuple[int, ...]:
    shape = layer.config.get("batch_input_shape", layer.config.get("batch_shape"))
    if not shape or any(not isinstance(n, int) for n in shape[1:]):
        raise CheckpointError(f"the Keras input {layer.name!r} has no fixed shape, found {shape}")
    return tuple(shape[1:])


class _Arrays:
    """The arrays of an archive's weights file, read with limits."""

    def __init__(self, source: Source) -> None:
        import h5py

        data = source.read("model.weights.h5", min(WEIGHTS_LIMIT, 64 * source.size))
        self.size = len(data)
        self.path = source.path
        try:
            self.file = h5py.File(io.BytesIO(data), "r")
        except OSError as error:
            raise CheckpointError(f"{source.path}: model.weights.h5 is damaged: {error}") from error

    def of(self, part: str, layer: str) -> list[np.ndarray]:
        """Return the arrays of a layer in Keras' order; none for a layer without."""
        for group in ("layers", "_layer_checkpoint_dependencies"):
            node = self._own(self.file, part, group, layer, "vars")
            if node is not None:
                return [self._read(node, str(i)) for i in range(len(node))]
        return []

    def _own(self, node: Any, *names: str) -> Any:
        """Walk down hard links only: others may lead out of the file."""
        import h5py

        for name in names:
            if name not in node or not isinstance(node.get(name, getlink=True), h5py.HardLink):
                return None
            node = node[name]
        return node

    def _read(self, node: Any, name: str) -> np.ndarray:
        dataset = self._own(node, name)
        if dataset is None or not hasattr(dataset, "shape"):
            raise CheckpointError(f"{self.path}: an array of model.weights.h5 is missing")
        if dataset.external or dataset.is_virtual or dataset.nbytes > self.size:
            raise CheckpointError(
                f"{self.path}: array {dataset.name} of {dataset.nbytes} bytes does not lie in the "
                "file"
            )
        array: np.ndarray = dataset[()]
        return array


def _facts(
    config: Mapping[str, Any], settings: KerasOptions, form: str, note: str, networks: Networks
) -> Facts:
    own = config.get("beta")
    own = float(own) if isinstance(own, int | float) and not isinstance(own, bool) else None
    beta = settings.beta if settings.beta is not None else own
    if beta is not None and not beta > 0:
        raise OptionError(f"beta must be positive, found {beta}")
    source = "--option beta" if settings.beta is not None else "the file's 'beta'"
    return Facts(
        output_range=(0.0, 1.0) if hasattr(networks.decoder, "logits") else None,
        metric=settings.metric,
        beta=beta,
        beta_source=None if beta is None else source,
        scale_head=form,
        assumptions=tuple(filter(None, (note, "the loss is code and not in the file"))),
    )


@hookimpl
def isoprobe_adapters() -> list[type[Adapter]]:
    """Return the adapters of this module."""
    return [Keras]
