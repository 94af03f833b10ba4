"""Say what a file is that no adapter reads as it stands, and which commands will likely do."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.checkpoints.contents import tensor_shapes
from isoprobe.checkpoints.source import WEIGHT_KINDS, FileKind
from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    from isoprobe.checkpoints.source import Source

Shape = tuple[int, ...]

_SPEC = "--data SPEC"
#: layers of a file whose widths are shown
_LONGEST = 16


def unread(source: Source, data: str | None = None) -> str:
    """Return what to say of a file that no adapter reads as it stands.

    Args:
        source: the file.
        data: the data spec that the user typed, if one was.

    Returns:
        What the file is, and the one or two commands to type next with the names in them.
    """
    what = f"{source.path} is {source.description}{_chain(source)}, which no adapter reads"
    if source.kind is FileKind.LFS_POINTER:
        return f"{what}; fetch the file itself with 'git lfs pull'"
    path = shlex.quote(str(source.path))
    given = _SPEC if data is None else f"--data {shlex.quote(data)}"
    toml = shlex.quote(source.path.with_suffix(".toml").name)
    doctor = f"find out its layers with 'isoprobe doctor {path} {given} --out {toml}'"
    own = f"name its class: 'isoprobe analyze {path} --class FILE.py:CLASS {given}'"
    trust = f"if you trust whoever wrote it, 'isoprobe analyze {path} {given} --trust'"
    foreign = source.pickle is not None and bool(source.pickle.foreign)
    if source.kind in WEIGHT_KINDS and foreign:
        return (
            f"{what}: unpickling it would run code; {doctor}, save its state_dict() where its "
            f"class is at hand, or, {trust}"
        )
    if source.kind in WEIGHT_KINDS:
        return f"{what} as it stands; {doctor}, or {own}"
    if foreign:
        return (
            f"{what}: unpickling it would run code; save its state_dict() where its class is at "
            f"hand, or, {trust}"
        )
    return (
        f"{what}; name a function of yours that builds its model: 'isoprobe analyze {path} "
        f"--adapter factory --option target=FILE.py:FUNCTION {given}'"
    )


def _chain(source: Source) -> str:
    """The widths that a file's layers lead through, as ``, 784 -> 256 -> 16 -> 256 -> 784``."""
    try:
        shapes = tensor_shapes(source)
    except (CheckpointError, OSError, ValueError):
        return ""
    widths = chain(shapes)
    if len(widths) < 3:
        return ""
    shown = widths if len(widths) <= 9 else [*widths[:4], "...", *widths[-4:]]
    return f" ({' -> '.join(map(str, shown))})"


def chain(shapes: Mapping[str, Shape]) -> list[int]:
    """Return the widths that a file's matrices lead through.

    Args:
        shapes: of the tensors by name, ``(out, in)`` for a layer's weight.

    Returns:
        Widths from the input to the output; two heads that take the same and give as much count
        once. Empty where the matrices make no such path, or there are others than matrices.
    """
    layers = [shape for shape in shapes.values() if len(shape) > 1]
    if not layers or len(layers) > _LONGEST or any(len(shape) > 2 for shape in layers):
        return []
    doubles = [k for k in range(1, len(layers)) if layers[k] == layers[k - 1]]
    for left in ([], doubles[:1], doubles):
        kept = [shape for k, shape in enumerate(layers) if k not in left]
        path = _path(kept[:1], kept[1:])
        if path and path[0][1] == path[-1][0]:
            return [path[0][1], *(given for given, _ in path)]
    return []


def _path(path: list[Shape], rest: list[Shape]) -> list[Shape]:
    """Order layers so that each takes what the one before gives, the file's order first."""
    if not rest:
        return path
    tried: set[Shape] = set()
    for k, layer in enumerate(rest):
        if layer[1] == path[-1][0] and layer not in tried:
            tried.add(layer)
            whole = _path([*path, layer], rest[:k] + rest[k + 1 :])
            if whole:
                return whole
    return []
