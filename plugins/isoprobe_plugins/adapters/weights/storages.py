"""Read tensors and plain values from files that torch wrote, with nothing unpickled."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator, Mapping
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.pickles import SCAN_BYTES
from isoprobe.checkpoints.records import ITEM_SIZES, Record, StoredTensor, read_records
from isoprobe.checkpoints.source import FileKind, Source
from isoprobe.errors import CheckpointError
from isoprobe.files.archives import Archive
from isoprobe.files.meter import OBJECT, Meter

if TYPE_CHECKING:
    from torch import Tensor

#: how deep modules may lie in each other
MODULE_DEPTH = 100
#: the bytes of a storage, given its key
Elements = Callable[[str], bytes]


def load_records(source: Source) -> Any:
    """Read a torch file with nothing unpickled.

    Args:
        source: a zip or legacy file of torch.

    Returns:
        Plain containers and :class:`~isoprobe.checkpoints.records.Record`, with tensors in their
        places.

    Raises:
        CheckpointError: when the file is damaged, or builds more than its size allows.
    """
    meter = Meter(source.path, source.size)
    try:
        if source.kind is FileKind.TORCH_LEGACY:
            # a mapped file reads no more than it has, whatever length is asked of it
            with source.path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as held:
                return _read_legacy(held, meter)
        with Archive(source.path, meter) as archive:
            return _read_zip(archive)
    except (OSError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{source.path} is damaged: {error}") from error
    except (RuntimeError, struct.error, OverflowError) as error:  # also of bottomless nesting
        raise CheckpointError(f"{source.path} is damaged: {error}") from error


def _read_zip(archive: Archive) -> Any:
    name = next(n for n in archive.names if n.rsplit("/", 1)[-1] == "data.pkl")
    root = name.removesuffix("data.pkl")
    order = f"{root}byteorder"
    if order in archive.names and archive.read(order, 16).strip() != b"little":
        raise ValueError("its numbers are stored with the last byte first, which is not read")
    tree = read_records(io.BytesIO(archive.read(name, SCAN_BYTES)), archive.meter)
    kept: dict[str, bytes] = {}

    def elements(key: str) -> bytes:
        if key not in kept:
            kept[key] = archive.read(f"{root}data/{key}")
        return kept[key]

    return _Tensors(elements, archive.meter).of(tree)


def _read_legacy(stream: mmap, meter: Meter) -> Any:
    """Read magic, version and machine, the object, the keys, and then the storages in order."""
    for _ in range(3):
        read_records(stream, meter)
    tree = read_records(stream, meter)
    keys = [str(key) for key in read_records(stream, meter)]
    sizes = {t.key: ITEM_SIZES[t.dtype] for t in _tensors(tree, set())}
    storages: dict[str, bytes] = {}
    for key in keys:
        (numel,) = struct.unpack("<q", stream.read(8))
        length = numel * sizes.get(key, 1)
        if not 0 <= length <= meter.size:
            raise ValueError(f"storage {key} has a forged length")
        storages[key] = stream.read(length)
    return _Tensors(storages.__getitem__, meter).of(tree)


class _Tensors:
    """Puts tensors where their descriptions stand; what is shared stays shared.

    Args:
        elements: gives the bytes of storages.
        meter: counts what is copied.
    """

    def __init__(self, elements: Elements, meter: Meter) -> None:
        self._elements, self._meter = elements, meter
        self._made: dict[int, Any] = {}
        self._held: list[Any] = []  # so that no id is given twice

    def of(self, tree: Any) -> Any:
        """Return the tree with tensors in it."""
        if not isinstance(tree, StoredTensor | Record | dict | list | tuple):
            return tree
        if id(tree) not in self._made:
            self._meter.charge(OBJECT, "its pickle")
            self._held.append(tree)
            self._make(tree)
        return self._made[id(tree)]

    def _make(self, tree: Any) -> None:
        """Build a node, entered before its members, which may hold it themselves."""
        if isinstance(tree, StoredTensor):
            self._made[id(tree)] = self._tensor(tree)
        elif isinstance(tree, Record):
            record = self._made[id(tree)] = Record(tree.name, tree.arguments, None, tree.items)
            record.state = self.of(tree.state)
        elif isinstance(tree, dict):
            table: dict[Any, Any] = {}
            self._made[id(tree)] = table
            table.update((key, self.of(value)) for key, value in tree.items())
        elif isinstance(tree, list):
            items: list[Any] = []
            self._made[id(tree)] = items
            items.extend(self.of(value) for value in tree)
        else:
            self._made[id(tree)] = tuple(self.of(value) for value in tree)

    def _tensor(self, stored: StoredTensor) -> Tensor:
        import torch

        dtype, width = getattr(torch, stored.dtype), ITEM_SIZES[stored.dtype]
        count = 1
        for length in stored.size:
            count *= length
            self._meter.check(count * width, "a tensor")
        data = self._elements(stored.key)
        if stored.numel * width > len(data):
            raise ValueError(f"storage {stored.key} has a forged length")
        last = stored.offset + sum(
            (n - 1) * s for n, s in zip(stored.size, stored.stride, strict=True)
        )
        if count == 0:
            return torch.empty(stored.size, dtype=dtype)
        if (last + 1) * width > len(data) or count * width > len(data):
            raise ValueError("a tensor reaches beyond its storage")
        self._meter.charge(count * width, "its tensors")
        view = memoryview(data)[stored.offset * width : (last + 1) * width]
        flat = torch.frombuffer(bytearray(view), dtype=dtype)
        if count == last + 1 - stored.offset and _is_contiguous(stored):
            return flat.reshape(stored.size)
        return flat.as_strided(stored.size, stored.stride).clone()


def _is_contiguous(stored: StoredTensor) -> bool:
    expected = 1
    for length, stride in zip(reversed(stored.size), reversed(stored.stride), strict=True):
        if length != 1 and stride != expected:
            return False
        expected *= length
    return True


def _tensors(tree: Any, seen: set[int]) -> Iterator[StoredTensor]:
    """Yield every description of a tensor, each node of the tree once."""
    if id(tree) in seen:
        return
    if isinstance(tree, StoredTensor):
        yield tree
        return
    if not isinstance(tree, Record | Mapping | list | tuple):
        return
    seen.add(id(tree))
    if isinstance(tree, Record):
        yield from _tensors(tree.state, seen)
    else:
        for value in tree.values() if isinstance(tree, Mapping) else tree:
            yield from _tensors(value, seen)


def module_state(record: Record) -> dict[str, Tensor]:
    """Collect the state dict of a pickled ``nn.Module``.

    Args:
        record: of the module.

    Returns:
        Tensors named as ``state_dict`` would; empty when the record is no module.
    """
    return dict(_module_state(record, "", Meter("a pickled module", 0)))


def _module_state(record: Any, prefix: str, meter: Meter) -> Iterator[tuple[str, Tensor]]:
    import torch

    if not isinstance(record, Record) or not isinstance(record.state, dict):
        return
    meter.charge(OBJECT + len(prefix), "its list of modules")  # one may be the child of many
    if prefix.count(".") > MODULE_DEPTH:  # or its own
        raise CheckpointError(f"modules of a pickled model lie deeper than {MODULE_DEPTH} levels")
    left_out = record.get("_non_persistent_buffers_set") or set()
    for group in ("_parameters", "_buffers"):
        for name, value in _table(record.get(group)):
            if isinstance(value, torch.Tensor) and name not in left_out:
                yield f"{prefix}{name}", value
    for name, child in _table(record.get("_modules")):
        yield from _module_state(child, f"{prefix}{name}.", meter)


def _table(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield what a pickled module keeps by name; nothing of what is no such table."""
    if isinstance(value, Mapping):
        yield from ((str(name), item) for name, item in value.items())
