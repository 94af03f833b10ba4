"""The arrays of Keras files, read from HDF5 with limits and without leaving the file."""

from __future__ import annotations

import io
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.headers import parse_json
from isoprobe.checkpoints.source import FileKind
from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.checkpoints.source import Source
    from isoprobe_plugins.adapters.keras.graph import Layer

WEIGHTS_LIMIT = 1 << 30
#: how deep layers of a legacy file may lie, and how many arrays it may have
_DEPTH, _COUNT = 8, 4096
#: variables of a layer in Keras' order
_ORDER = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")


class Arrays(ABC):
    """The arrays of a file of either generation.

    Args:
        source: the archive or HDF5 file.
        content: what h5py opens.
        size: bytes of the HDF5 content; no array may be longer.
    """

    def __init__(self, source: Source, content: Any, size: int) -> None:
        import h5py

        self.path, self.size = source.path, size
        try:
            self.file = h5py.File(content, "r")
        except (OSError, RuntimeError) as error:
            raise CheckpointError(f"{source.path}: its weights are damaged: {error}") from error

    @abstractmethod
    def of(self, prefix: tuple[str, ...], layer: Layer) -> list[np.ndarray]:
        """Return the arrays of a layer in Keras' order; none for a layer without.

        Args:
            prefix: groups that lead to the model the layer belongs to.
            layer: the layer.
        """

    def walk(self, *names: str) -> Any:
        """Walk down from the root over hard links only, as others may lead out of the file."""
        node: Any = self.file
        for name in names:
            node = _hard(node, name)
            if node is None:
                return None
        return node

    def read(self, dataset: Any) -> np.ndarray:
        """Return an array.

        Raises:
            CheckpointError: when it is missing or does not lie in the file.
        """
        if dataset is None or not hasattr(dataset, "shape"):
            raise CheckpointError(f"{self.path}: an array of its weights is missing")
        if dataset.external or dataset.is_virtual or dataset.nbytes > self.size:
            raise CheckpointError(
                f"{self.path}: array {dataset.name} of {dataset.nbytes} bytes does not lie in the "
                "file"
            )
        array: np.ndarray = dataset[()]
        return array


class ArchiveArrays(Arrays):
    """Arrays of a .keras archive, numbered in each layer."""

    def __init__(self, source: Source) -> None:
        data = source.read("model.weights.h5", min(WEIGHTS_LIMIT, 64 * source.size))
        super().__init__(source, io.BytesIO(data), len(data))

    def of(self, prefix: tuple[str, ...], layer: Layer) -> list[np.ndarray]:
        """Return the arrays of a layer, by the name its place in the graph gives it."""
        for group in ("layers", "_layer_checkpoint_dependencies"):
            node = self.walk(*prefix, group, layer.stored, "vars")
            if node is not None:
                return [self.read(_hard(node, str(i))) for i in range(len(node))]
        return []


class LegacyArrays(Arrays):
    """Arrays of an HDF5 model file, named in each layer."""

    def __init__(self, source: Source) -> None:
        super().__init__(source, str(source.path), source.size)

    def of(self, prefix: tuple[str, ...], layer: Layer) -> list[np.ndarray]:
        """Return the arrays whose group bears the layer's name."""
        root = self.walk("model_weights", *prefix)
        named = {
            leaf: dataset
            for place, leaf, dataset in _datasets(root, "", _DEPTH)
            if place == layer.name and leaf in _ORDER
        }
        return [self.read(named[leaf]) for leaf in _ORDER if leaf in named]


def _hard(node: Any, name: str) -> Any:
    """Return a member that a hard link leads to, else None."""
    import h5py

    if not isinstance(node, h5py.Group) or name not in node:
        return None
    return node[name] if isinstance(node.get(name, getlink=True), h5py.HardLink) else None


def _datasets(node: Any, place: str, depth: int) -> Iterator[tuple[str, str, Any]]:
    """Yield the group's name, the variable's name and the data set of every array below a group."""
    if node is None or depth == 0 or len(node) > _COUNT:
        return
    for name in node:
        member = _hard(node, name)
        if hasattr(member, "keys"):
            yield from _datasets(member, name, depth - 1)
        elif member is not None:
            yield place, name.partition(":")[0], member


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
    import h5py

    try:
        with h5py.File(source.path, "r") as file:
            bare = "layer_names" in file.attrs or {"layers", "vars"} <= set(file)
            return file.attrs.get("model_config"), bare
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(f"{source.path} is damaged: {error}") from error
