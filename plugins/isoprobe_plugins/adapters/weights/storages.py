"""Tensors and constructor arguments out of whole-module pickles, without the module's code."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO

from isoprobe.checkpoints.headers import ZIP_ERRORS
from isoprobe.checkpoints.pickles import SCAN_BYTES
from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.weights.records import Record, StoredTensor, read_records

if TYPE_CHECKING:
    from torch import Tensor


def load_records(source: Source) -> Any:
    """Read a torch file with nothing unpickled.

    Args:
        source: a zip or legacy file of torch.

    Returns:
        Plain containers and :class:`~isoprobe_plugins.adapters.weights.records.Record`, with
        tensors in their places.

    Raises:
        CheckpointError: when the file is damaged.
    """
    try:
        if source.kind is FileKind.TORCH_LEGACY:
            with source.path.open("rb") as stream:
                return _read_legacy(stream)
        with zipfile.ZipFile(source.path) as archive:
            return _read_zip(archive, source)
    except (*ZIP_ERRORS, KeyError, TypeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{source.path} is damaged: {error}") from error


def _read_zip(archive: zipfile.ZipFile, source: Source) -> Any:
    name = next(n for n in source.names() if n.rsplit("/", 1)[-1] == "data.pkl")
    root = name.removesuffix("data.pkl")
    with archive.open(name) as stream:
        tree = read_records(io.BytesIO(stream.read(SCAN_BYTES)))
    storages: dict[str, bytes] = {}

    def elements(key: str, size: int) -> bytes:
        if key not in storages:
            info = archive.getinfo(f"{root}data/{key}")
            if info.file_size > source.size or info.file_size < size:
                raise ValueError(f"storage {key} has a forged length")
            storages[key] = archive.read(info)
        return storages[key]

    return _materialise(tree, elements)


def _read_legacy(stream: BinaryIO) -> Any:
    """Read magic, version and machine, the object, the keys, and then the storages in order."""
    for _ in range(3):
        read_records(stream)
    tree = read_records(stream)
    keys = [str(key) for key in read_records(stream)]
    sizes = {t.key: _itemsize(t.dtype) for t in _tensors(tree)}
    storages: dict[str, bytes] = {}
    for key in keys:
        (numel,) = struct.unpack("<q", stream.read(8))
        if not 0 <= numel < 1 << 40:
            raise ValueError(f"storage {key} has a forged length")
        storages[key] = stream.read(numel * sizes.get(key, 1))
    return _materialise(tree, lambda key, _: storages[key])


def _materialise(tree: Any, elements: Any) -> Any:
    """Put tensors where their descriptions stand."""
    if isinstance(tree, StoredTensor):
        return _tensor(tree, elements)
    if isinstance(tree, Record):
        state = _materialise(tree.state, elements)
        return Record(tree.name, tree.arguments, state, tree.items)
    if isinstance(tree, dict):
        return {key: _materialise(value, elements) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(_materialise(value, elements) for value in tree)
    return tree


def _tensors(tree: Any) -> Iterator[StoredTensor]:
    if isinstance(tree, StoredTensor):
        yield tree
    elif isinstance(tree, Record):
        yield from _tensors(tree.state)
    elif isinstance(tree, Mapping):
        for value in tree.values():
            yield from _tensors(value)
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _tensors(value)


def _tensor(stored: StoredTensor, elements: Any) -> Tensor:
    import torch

    data = elements(stored.key, stored.numel * _itemsize(stored.dtype))
    flat = (
        torch.frombuffer(bytearray(data), dtype=getattr(torch, stored.dtype))
        if data
        else (torch.empty(0, dtype=getattr(torch, stored.dtype)))
    )
    last = stored.offset + sum((n - 1) * s for n, s in zip(stored.size, stored.stride, strict=True))
    empty = 0 in stored.size
    count = 1
    for n in stored.size:
        count *= n
    if not empty and (last >= len(flat) or count > len(flat)):
        raise ValueError("a tensor reaches beyond its storage")
    return flat.as_strided(stored.size, stored.stride, stored.offset).clone()


def _itemsize(dtype: str) -> int:
    import torch

    return int(getattr(torch, dtype).itemsize)


def module_state(record: Record) -> dict[str, Tensor]:
    """Collect the state dict of a pickled ``nn.Module``.

    Args:
        record: of the module.

    Returns:
        Tensors named as ``state_dict`` would; empty when the record is no module.
    """
    return dict(_module_state(record, ""))


def _module_state(record: Any, prefix: str) -> Iterator[tuple[str, Tensor]]:
    import torch

    if not isinstance(record, Record) or not isinstance(record.state, dict):
        return
    left_out = record.get("_non_persistent_buffers_set") or set()
    for group in ("_parameters", "_buffers"):
        for name, value in (record.get(group) or {}).items():
            if isinstance(value, torch.Tensor) and name not in left_out:
                yield f"{prefix}{name}", value
    for name, child in (record.get("_modules") or {}).items():
        yield from _module_state(child, f"{prefix}{name}.")
