"""List the tensors of a weights file by name and shape, building nothing that the file names."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from mmap import ACCESS_READ, mmap
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.pickles import SCAN_BYTES
from isoprobe.checkpoints.records import Record, StoredTensor, read_records
from isoprobe.checkpoints.source import TORCH_KINDS, FileKind
from isoprobe.errors import CheckpointError, FileError
from isoprobe.files.documents import parse_json
from isoprobe.files.meter import OBJECT, Meter
from isoprobe.results.sweep import KINDS

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

#: how deep tables of tensors may lie in each other
_DEPTH = 64
#: where a pickled module keeps its tensors and parts
_OF_MODULES = ("_parameters", "_buffers", "_modules")


def tensor_shapes(source: Source) -> dict[str, tuple[int, ...]]:
    """List the tensors of a safetensors or torch file.

    Args:
        source: the file.

    Returns:
        Shapes by name, wrapping keys such as ``state_dict`` included, in the order of the file, of
        a pickled module as its ``state_dict`` would name them; empty for other kinds of file.
    """
    if source.kind is FileKind.SAFETENSORS:
        entries = ((k, v) for k, v in source.header.items() if k != "__metadata__")
        return {name: tuple(entry["shape"]) for name, entry in entries}
    if source.kind in TORCH_KINDS and source.pickle is not None:
        meter = Meter(source.path, source.size)
        return dict(_tensors(_described(source, meter), meter))
    return {}


def steps_told(source: Source) -> dict[str, float]:
    """Read how far a training was from what a checkpoint keeps beside its weights.

    Args:
        source: a file of torch.save, a safetensors file of isoprobe's, or a folder with a trainer's
            ``trainer_state.json``.

    Returns:
        Numbers by kind, see :data:`isoprobe.results.sweep.KINDS`; none where nothing is told.
    """
    kept = _kept(source)
    return {
        kind: float(kept[kind])
        for kind in KINDS
        if isinstance(kept.get(kind), int | float)
        and not isinstance(kept[kind], bool)
        and math.isfinite(kept[kind])
    }


def _kept(source: Source) -> Mapping[str, Any]:
    """What lies beside the weights, by name."""
    kept: Any = {}
    try:
        if source.kind is FileKind.SAFETENSORS:
            told = source.header.get("__metadata__", {}).get("isoprobe")
            manifest = {} if told is None else parse_json(str(told).encode(), str(source.path))
            kept = manifest.get("training") if isinstance(manifest, Mapping) else None
        elif source.is_folder and source.has("trainer_state.json"):
            kept = source.json("trainer_state.json")
        elif source.kind in TORCH_KINDS and source.pickle is not None:
            kept = _described(source, Meter(source.path, source.size))
    except (CheckpointError, FileError, OSError):  # whoever loads it says what is wrong
        return {}
    return kept if isinstance(kept, Mapping) else {}


def _described(source: Source, meter: Meter) -> Any:
    """The file's objects with tensors described, not read; None when damaged."""
    try:
        if source.kind is FileKind.TORCH_LEGACY:
            with source.path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as held:
                for _ in range(3):
                    read_records(held, meter)
                return read_records(held, meter)
        name = next(n for n in source.names() if n.rsplit("/", 1)[-1] == "data.pkl")
        return read_records(io.BytesIO(source.read(name, SCAN_BYTES)), meter)
    # damaged anywhere: what it holds is then not known
    except (CheckpointError, OSError, ValueError, LookupError, EOFError, RecursionError):
        return None


def _tensors(value: Any, meter: Meter, prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name every tensor; a table that stands in many places is named in each, and counted."""
    if prefix.count(".") > _DEPTH:
        return
    if isinstance(value, Mapping):
        for name, inner in value.items():
            meter.charge(OBJECT + len(prefix), "the list of its tensors")
            yield from _tensors(inner, meter, f"{prefix}{name}.")
    elif isinstance(value, StoredTensor):
        yield prefix.removesuffix("."), value.size
    elif isinstance(value, Record):
        for group in _OF_MODULES:
            yield from _tensors(value.get(group), meter, prefix)
