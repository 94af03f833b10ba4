"""Say what a file is that is not read as it stands, and which commands will likely do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from isoprobe.checkpoints.classes import class_of
from isoprobe.checkpoints.contents import tensor_shapes
from isoprobe.checkpoints.source import WEIGHT_KINDS, FileKind, Source
from isoprobe.errors import CheckpointError, IsoprobeError, UnreadError
from isoprobe.results.reader import Result
from isoprobe.results.sweep import steps_in_name

Shape = tuple[int, ...]

_SPEC = "--data SPEC"
#: layers of a file whose widths are shown
_LONGEST = 16
#: endings of files of weights, and how many files of a folder are looked through
_ENDINGS = (".pt", ".pth", ".ckpt", ".safetensors", ".bin", ".tar", ".onnx", ".keras", ".pt2")
_LOOKED_FOR = 1000
_ARRAYS = "an archive of arrays"
_ARRAY = b"\x93NUMPY"
_TABLES = (".csv", ".tsv", ".parquet")


def unread(source: Source, typed: str | None = None) -> UnreadError:
    """Return what to say of a file that no adapter reads as it stands.

    Args:
        source: the file.
        typed: options that name data and loss as the user did, if that was done.

    Returns:
        The error: what the file is, and the one or two commands to type next.
    """
    given = typed or _SPEC
    found = (say(source, given) for say in _SAYINGS)
    return next(error for error in found if error is not None)


def described(source: Source, shapes: Mapping[str, Shape] | None = None) -> str:
    """Return what a file is: its kind, its tensors and the widths of its layers.

    Args:
        source: the file or folder.
        shapes: of its tensors by name; those of a file of weights when None.

    Returns:
        A clause that begins with its path.
    """
    shapes = weights_of(source) if shapes is None else shapes
    if not shapes:
        return f"{source.path} is {source.description}"
    widths = chain(shapes)
    shown = widths if len(widths) <= 9 else [*widths[:4], "...", *widths[-4:]]
    path = f", {' -> '.join(map(str, shown))}" if len(widths) > 2 else ""
    kind = _ARRAYS if source.kind is FileKind.ZIP else source.kind.value
    if source.pickle is not None and source.pickle.foreign:
        return f"{source.path} is {source.description}{path}"
    return f"{source.path} is {kind} of {len(shapes)} tensors{path}"


def weights_of(source: Source) -> dict[str, Shape]:
    """Return shapes of a file's tensors by name, an optimizer's left out; none where damaged."""
    try:
        shapes = tensor_shapes(source)
    except (CheckpointError, OSError, ValueError):
        return {}
    return {name: shape for name, shape in shapes.items() if "optim" not in name}


def next_for(source: Source, given: str) -> tuple[str, ...]:
    """Name commands for weights whose layers nothing tells.

    Args:
        source: the file or folder of weights.
        given: options that name data and loss.

    Returns:
        Its class filled with it, where that lies in a Python file at hand; the doctor.
    """
    path, toml = quoted(source.path), quoted(source.path.with_suffix(".toml"))
    doctor = f"isoprobe doctor {path} {given} --out {toml}"
    own = own_class(source)
    return (doctor,) if own is None else (f"isoprobe analyze {path} --class {own} {given}", doctor)


def own_class(source: Source) -> str | None:
    """Return ``FILE.py:CLASS`` that has the weights' names, as typed here; None without one."""
    names = weights_of(source)
    found = class_of(names, (source.path.parent, Path.cwd())) if names else None
    return None if found is None else f"{quoted(_here(found[0]))}:{found[1]}"


def quoted(path: Path) -> str:
    """Return a path as a shell takes it."""
    return shlex.quote(str(path))


def _here(path: Path) -> Path:
    """A path as it is typed from the working folder, where it lies in it."""
    here = Path.cwd().resolve()
    return path.relative_to(here) if path.is_relative_to(here) else Path(os.path.relpath(path))


# --------------------------------------------------------------------------- what it may be


def _folder(source: Source, given: str) -> UnreadError | None:
    if not source.is_folder:
        return None
    if not source.names():
        return UnreadError(f"{source.path} is an empty folder")
    weights = _weights_in(source.path)
    if not weights:
        return UnreadError(f"{source.path} is {source.description}; no weights lie in it")
    results = quoted(source.path.with_name(f"{source.path.name}-results"))
    every = " ".join(map(quoted, weights))
    if len({w.suffix for w in weights}) == 1 and len(weights) > 3:
        every = f"{quoted(source.path)}/*{weights[0].suffix}"
    return UnreadError(
        f"{source.path} is a folder of {len(weights)} files of weights; name one, or all of them "
        "as checkpoints of one training",
        f"isoprobe analyze {quoted(weights[-1])} {given}",
        *([f"isoprobe analyze {every} {given} --out {results}/"] if len(weights) > 1 else []),
    )


def _cut(source: Source, _: str) -> UnreadError | None:
    if source.kind is FileKind.LFS_POINTER:
        return UnreadError(f"{source.path} is {source.description}", "git lfs pull")
    if source.size == 0:
        return UnreadError(f"{source.path} is an empty file: fetch or copy it again")
    if source.pickle is not None and not source.pickle.whole:
        return UnreadError(f"{source.path} is {source.description}: fetch or copy it again")
    if source.kind is FileKind.ZIP and not source.names():
        return UnreadError(f"{source.path} is a zip archive cut short: fetch or copy it again")
    return None


def _code(source: Source, given: str) -> UnreadError | None:
    if source.pickle is None or not source.pickle.foreign:
        return None
    return UnreadError(
        f"{source.path} is {source.description}; unpickling it would run code. Save its "
        "state_dict() where its class is at hand, or, if you trust whoever wrote it",
        f"isoprobe analyze {quoted(source.path)} {given} --trust",
    )


def _weights(source: Source, given: str) -> UnreadError | None:
    if source.kind not in WEIGHT_KINDS and source.kind is not FileKind.PICKLE:
        return None
    if not weights_of(source):
        return UnreadError(f"{source.path} is {source.kind.value} without weights by name")
    return UnreadError(f"{described(source)}: no adapter reads it", *next_for(source, given))


def _archive(source: Source, _: str) -> UnreadError | None:
    if source.kind is not FileKind.ZIP:
        return None
    return UnreadError(f"{source.path} is {source.description}: unpack it, and name the weights")


def _result(source: Source, _: str) -> UnreadError | None:
    if source.kind is not FileKind.HDF5:
        return None

    try:
        Result.open(source.path).close()
    except (IsoprobeError, OSError):
        return None
    page = quoted(source.path.with_suffix(".html"))
    said = f"{source.path} is a result, not a model"
    return UnreadError(said, f"isoprobe report {quoted(source.path)} --out {page}")


def _python(source: Source, given: str) -> UnreadError | None:
    """A file of code in place of the weights: its class goes with weights that lie beside it."""
    path = source.path
    if path.suffix != ".py" or source.kind is not FileKind.TEXT:
        return None
    beside = ((w, own_class(Source(w))) for w in reversed(_weights_in(path.parent)))
    place = quoted(path)
    for weights, own in beside:
        if own is not None and own.rpartition(":")[0] == place:
            command = f"isoprobe analyze {quoted(weights)} --class {own} {given}"
            return UnreadError(f"{path} is Python, not weights; its class goes with them", command)
    return UnreadError(f"{path} is Python, not weights: name these, and its class by --class")


def _table(source: Source, _: str) -> UnreadError | None:
    if source.path.suffix not in _TABLES:
        return None
    train = f"isoprobe train table {quoted(source.path)}"
    return UnreadError(f"{source.path} is a table, not a model; a model of it is trained by", train)


def _array(source: Source, _: str) -> UnreadError | None:
    """Data in place of the model: it goes with weights that lie beside it."""
    if source.head(len(_ARRAY)) != _ARRAY:
        return None
    beside = _weights_in(source.path.parent)
    model = [f"isoprobe analyze {quoted(w)} --data {quoted(source.path)}" for w in beside]
    said = f"{source.path} is an array, not a model: it is data"
    return UnreadError(said, *(model if len(model) == 1 else []))


def _other(source: Source, given: str) -> UnreadError:
    what = f"{source.path} is {source.description}, which no adapter reads"
    if source.kind is FileKind.TEXT:
        return UnreadError(f"{what}: name the weights")
    path = quoted(source.path)
    return UnreadError(
        f"{what}; a function build(path) of yours, in build.py, that gives its model is used by",
        f"isoprobe analyze {path} --adapter factory --option target=build.py:build {given}",
    )


#: asked one after the other; the last one always has an answer
_SAYINGS: tuple[Callable[[Source, str], UnreadError | None], ...] = (
    *(_folder, _cut, _code, _weights, _archive, _result, _python, _table, _array, _other),
)


def _weights_in(folder: Path) -> list[Path]:
    """Files of a folder that end as weights do, the last one written last."""
    found = [folder / e.name for e in _entries(folder) if e.name.endswith(_ENDINGS)]
    return sorted(found, key=_step)


def _step(path: Path) -> tuple[float, str]:
    return max(steps_in_name(path.stem).values(), default=-1.0), path.name


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [e for _, e in zip(range(_LOOKED_FOR), entries, strict=False) if e.is_file()]
    except OSError:
        return []


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
