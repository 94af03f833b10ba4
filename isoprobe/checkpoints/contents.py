"""The tensors of a weights file by name and shape, without building anything the file names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import TORCH_KINDS, FileKind

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source


def tensor_shapes(source: Source) -> dict[str, tuple[int, ...]]:
    """List the tensors of a safetensors or torch file.

    Args:
        source: the file.

    Returns:
        Shapes by name, wrapping keys such as ``state_dict`` included, in the order of the file;
        empty for other kinds of file and for those that hold more than tensors and plain values.
    """
    if source.kind is FileKind.SAFETENSORS:
        entries = ((k, v) for k, v in source.header.items() if k != "__metadata__")
        return {name: tuple(entry["shape"]) for name, entry in entries}
    if source.kind in TORCH_KINDS and source.pickle is not None and not source.pickle.foreign:
        return dict(_tensors(_without_values(source)))
    return {}


def _without_values(source: Source) -> Any:
    """The file's objects with tensors on the device that holds no values; None when damaged."""
    import torch

    try:
        return torch.load(source.path, map_location="meta", weights_only=True)
    # A damaged archive fails anywhere in torch's reader; what it holds is then not known.
    except Exception:
        return None


def _tensors(value: Any, prefix: str = "") -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _tensors(inner, f"{prefix}{name}.")
    elif hasattr(value, "shape"):
        yield prefix.removesuffix("."), tuple(value.shape)
