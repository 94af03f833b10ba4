"""Read the arrays of Keras files from HDF5, with limits and without leaving the file."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import FileKind
from isoprobe.errors import CheckpointError
from isoprobe.files.documents import parse_json
from isoprobe.files.hdf5 import Hdf5File

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.keras.graph import Layer

WEIGHTS_LIMIT = 1 << 30
#: variables of a layer in Keras' order
_ORDER = ("kernel", "recurrent_kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
#: where layers that hold others keep their variables in an archive
_INNER: dict[str, tuple[tuple[str, ...], ...]] = {
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN"), (("cell",),)),
    "Bidirectional": (("forward_layer", "cell"), ("backward_layer", "cell")),
    "TimeDistributed": (("layer",),),
}


class Arrays(ABC):
    """The arrays of a file of either generation.

    Args:
        source: the archive or HDF5 file.
        content: the HDF5 file's bytes, where they lie in an archive.
    """

    def __init__(self, source: Source, content: bytes | None = None) -> None:
        self.path = source.path
        stream = None if content is None else io.BytesIO(content)
        self.file = Hdf5File(source.path, stream, None if content is None else len(content))

    @abstractmethod
    def of(self, prefix: tuple[str, ...], layer: Layer) -> list[np.ndarray]:
        """Return the arrays of a layer in Keras' order; none for a layer without.

        Args:
            prefix: groups that lead to the model the layer belongs to.
            layer: the layer.
        """

    def walk(self, *names: str) -> Any:
        """Walk down from the root; None where a name is not there."""
        node: Any = self.file.file
        for name in names:
            node = self.file.child(node, name)
        return node

    def read(self, dataset: Any) -> np.ndarray:
        """Return an array.

        Raises:
            CheckpointError: when it is missing or does not lie in the file.
        """
        if dataset is None or not hasattr(dataset, "shape"):
            raise CheckpointError(f"{self.path}: an array of its weights is missing")
        self.file.meter.charge(dataset.nbytes, str(dataset.name))
        return self.file.read(dataset)


class ArchiveArrays(Arrays):
    """Arrays of a .keras archive, numbered in each layer."""

    def __init__(self, source: Source) -> None:
        data = source.read("model.weights.h5", min(WEIGHTS_LIMIT, 64 * source.size))
        super().__init__(source, data)

    def of(self, prefix: tuple[str, ...], layer: Layer) -> list[np.ndarray]:
        """Return the arrays of a layer, by the name its place in the graph gives it."""
        for group in ("layers", "_layer_checkpoint_dependencies"):
            if self.walk(*prefix, group, layer.stored) is None:
                continue
            found: list[np.ndarray] = []
            for inner in _INNER.get(layer.kind, ((),)):
                node = self.walk(*prefix, group, layer.stored, *inner, "vars")
                names = [] if node is None else self.file.names(node)
                each = [str(i) for i in range(len(names))]
                found += [self.read(self.file.child(node, name)) for name in each]
            return found
        return []


class LegacyArrays(Arrays):
    """Arrays of an HDF5 model file, named in each layer."""

    def __init__(self, source: Source) -> None:
        super().__init__(source)

    def of(self, prefix: tuple[str, ...], layer: Layer) -> list[np.ndarray]:
        """Return the arrays whose group bears the layer's name."""
        root = self.walk("model_weights", *prefix)
        named: dict[tuple[bool, int], Any] = {}
        for path, dataset in self.file.walk(root) if root is not None else ():
            *places, name = path.split("/")
            leaf = name.partition(":")[0]
            if leaf in _ORDER and _belongs(places, layer):
                backward = any(place.startswith("backward_") for place in places)
                named[backward, _ORDER.index(leaf)] = dataset
        return [self.read(named[key]) for key in sorted(named)]


def _belongs(places: list[str], layer: Layer) -> bool:
    """Whether groups lead to a layer's own arrays: its name last, or what it wraps below it."""
    if not places or layer.kind not in _INNER:
        return bool(places) and places[-1] == layer.name
    return layer.name in places


def is_legacy(source: Source) -> bool:
    """Return True for an HDF5 file that Keras wrote: a model, or weights alone."""
    if source.kind is not FileKind.HDF5:
        return False
    try:
        text, bare = _stored(source)
    except CheckpointError:
        return False
    return text is not None or bare


def legacy_config(source: Source) -> dict[str, Any]:
    """Return the architecture in an HDF5 file's attributes.

    Args:
        source: the file.

    Returns:
        Class and configuration of the model.

    Raises:
        CheckpointError: for a file without an architecture, and for damage.
    """
    text, bare = _stored(source)
    if text is None:
        what = "Keras weights and no architecture" if bare else "no Keras model"
        raise CheckpointError(
            f"{source.path} holds {what}; save the whole model (model.save), or build it with "
            "--adapter factory"
        )
    encoded = text if isinstance(text, bytes) else str(text).encode()
    config = parse_json(encoded, f"{source.path}: model_config")
    if not isinstance(config, dict):
        raise CheckpointError(f"{source.path}: model_config is {json.dumps(config)[:40]}")
    return config


def _stored(source: Source) -> tuple[Any, bool]:
    """Return the architecture's text, if there is one, and whether there are Keras weights."""
    file = Hdf5File(source.path)
    try:
        root = file.file
        bare = "layer_names" in root.attrs or {"layers", "vars"} <= set(file.names())
        return file.attribute(root, "model_config"), bare
    finally:
        file.close()
