"""Look at a checkpoint without running or loading it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from isoprobe.checkpoints.source import Source
from isoprobe.errors import CheckpointError
from isoprobe.registry.lookup import installed


def look(model: str | Path, *, adapter: str | None = None, trust: bool = False) -> dict[str, Any]:
    """Tell what a checkpoint is, which adapter reads it, what is known; nothing in it is run.

    Args:
        model: file or folder.
        adapter: adapter to ask; the one that matches by default.
        trust: count adapters that would run code of the checkpoint.

    Returns:
        ``model``, ``file`` (what it is), ``bytes``, ``sha256``, ``damage``, ``adapter``,
        ``declared`` (what that adapter tells of it), ``tensors`` (shapes by name), and, where no
        adapter reads it, the reason as ``refused``.

    Raises:
        CheckpointError: when no adapter reads the file and it holds no tensors to show either.
    """
    from isoprobe.checkpoints.contents import tensor_shapes

    source = Source(Path(model), trusted=trust)
    tensors = tensor_shapes(source)
    reader, refused = None, None
    try:
        reader = installed().adapter_for(source, adapter)
    except CheckpointError as error:
        if not tensors:
            raise
        refused = str(error)
    return {
        "model": str(model),
        "file": source.description,
        "bytes": source.size,
        "sha256": source.sha256(),
        "damage": source.integrity,
        "adapter": None if reader is None else reader.name,
        "declared": {} if reader is None else dict(reader.describe(source)),
        "refused": refused,
        "tensors": {name: list(shape) for name, shape in tensors.items()},
    }
