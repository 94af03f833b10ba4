"""Look at a checkpoint without running or loading it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.contents import tensor_shapes
from isoprobe.checkpoints.remote import fetched
from isoprobe.checkpoints.source import Source
from isoprobe.errors import CheckpointError, UnreadError
from isoprobe.registry.lookup import installed

if TYPE_CHECKING:
    from isoprobe.contracts import Adapter


def look(model: str | Path, *, adapter: str | None = None, trust: bool = False) -> dict[str, Any]:
    """Tell what a checkpoint is, which adapter reads it, what is known; nothing in it is run.

    Args:
        model: file, folder or ``hf://owner/name``.
        adapter: adapter to ask; the one that matches by default.
        trust: count adapters that would run code of the checkpoint.

    Returns:
        ``model``, ``file`` (what it is), ``bytes``, ``sha256``, ``damage``, ``adapter``,
        ``declared`` (what that adapter tells of it), ``tensors`` (shapes by name), ``next`` (the
        command that is most likely right), and, where no adapter reads it, the reason as
        ``refused``.

    Raises:
        CheckpointError: when no adapter reads the file and it holds no tensors to show either.
    """
    source = Source(fetched(model, trusted=trust)[0], trusted=trust)
    tensors = tensor_shapes(source)
    reader, refused = None, None
    following: str | None = None
    try:
        reader = installed().adapter_for(source, adapter)
    except CheckpointError as error:
        if not tensors:
            raise
        refused = error.what if isinstance(error, UnreadError) else str(error)
        following = next(iter(getattr(error, "commands", ())), None)
    declared = {} if reader is None else dict(reader.describe(source))
    if reader is not None and not tensors:
        tensors = dict(reader.tensors(source))
    if "not_read" in declared:
        reader, refused = None, f"{source.path} holds {declared.pop('not_read')}"
    return {
        "model": str(model),
        "file": source.description,
        "bytes": source.size,
        "sha256": source.sha256(),
        "damage": source.integrity,
        "adapter": None if reader is None else reader.name,
        "declared": declared,
        "refused": refused,
        "tensors": {name: list(shape) for name, shape in tensors.items()},
        "next": following if reader is None else _next(source, reader, declared, adapter),
    }


def _next(source: Source, reader: Adapter, declared: Mapping[str, Any], asked: str | None) -> str:
    """The command to type next."""
    told = declared.get("next")
    if isinstance(told, str):
        return told
    words = ["isoprobe", "analyze", shlex.quote(str(source.path))]
    words += [] if asked is None else ["--adapter", asked]
    words += [] if _says(declared, "dataset") else ["--data", "SPEC"]
    words += [] if _says(declared, "metric") or reader.last_resort else ["--metric", "NAME"]
    return " ".join(words)


def _says(declared: Mapping[str, Any], name: str) -> bool:
    """Whether a fact is given, at any depth."""
    for key, value in declared.items():
        if isinstance(value, Mapping):
            if _says(value, name):
                return True
        elif key == name and value is not None and value != "":
            return True
    return False
