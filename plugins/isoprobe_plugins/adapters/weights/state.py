"""Load the weights of any file that holds tensors by name, with wrappers taken off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.native import weights
from isoprobe.checkpoints.records import Record
from isoprobe.checkpoints.source import WEIGHT_KINDS, FileKind, Source
from isoprobe.errors import CheckpointError, FileError
from isoprobe.files.documents import parse_json
from isoprobe_plugins.adapters.weights.arrays import named_arrays
from isoprobe_plugins.adapters.weights.sets import meant, resolved, sets_in, unwrapped
from isoprobe_plugins.adapters.weights.storages import load_records, module_state
from isoprobe_plugins.adapters.weights.torch_files import load_torch

if TYPE_CHECKING:
    from torch import Tensor

#: what wrappers such as Lightning modules put before every name
PREFIXES = ("model.", "vae.", "net.", "network.", "online_model.", "ema_model.", "autoencoder.")


@dataclass(frozen=True)
class State:
    """Weights by name.

    Attributes:
        tensors: by name, wrappers taken off, half precision widened.
        notes: what was done to get at them, a sentence each.
        extras: what else the file held at its top level.
        classes: class of each module of a whole-module pickle, by its place.
    """

    tensors: Mapping[str, Tensor]
    notes: tuple[str, ...] = ()
    extras: Mapping[str, Any] = field(default_factory=dict)
    classes: Mapping[str, str] = field(default_factory=dict)


def read_state(source: Source, prefix: str | None = None, wanted: str | None = None) -> State:
    """Read the weights of a file, running nothing.

    Args:
        source: safetensors, a torch zip or legacy file, a Lightning checkpoint, a whole module
            pickled by torch.save, arrays by name (npz), or a folder with files of encoder and
            decoder, or with weights and config.json.
        prefix: keep only names that begin so, and take it off; None takes off known wrappers.
        wanted: which set of weights, where there are several; the averaged ones when None.

    Returns:
        The weights and what was done to get at them.

    Raises:
        CheckpointError: when the file is of another kind, damaged, or holds no tensors by name.
    """
    if source.is_folder:
        return _of_folder(source, prefix, wanted)
    if source.kind not in WEIGHT_KINDS and not is_arrays(source):
        raise CheckpointError(
            f"{source.path} is {source.description}, which holds no weights by name"
        )
    state = _open(source, wanted)
    notes = list(state.notes)
    if prefix is None:
        tensors = resolved(unwrapped(state.tensors, notes), notes)
        state = _strip(replace(state, tensors=tensors, notes=tuple(notes)))
    else:
        state = _select(state, prefix, source)
    if not state.tensors:
        raise CheckpointError(f"{source.path} is {source.description}: no tensors by name in it")
    return _widen(state)


def is_arrays(source: Source) -> bool:
    """Say whether a file holds arrays by name, some of them matrices of floating numbers."""
    return source.kind is FileKind.ZIP and any(n.endswith(".npy") for n in source.names())


def holds_weights(source: Source) -> bool:
    """Say whether a file or folder holds tensors by name, by a look that loads none of them."""
    if source.is_folder:
        return source.kind in {FileKind.FOLDER, FileKind.HUB_MIXIN} and bool(weights_in(source))
    if is_arrays(source):
        return True
    if source.kind not in WEIGHT_KINDS:
        return False
    if source.kind is FileKind.SAFETENSORS:
        try:
            return any(name != "__metadata__" for name in source.header)
        except CheckpointError:
            return False
    scan = source.pickle
    return scan is not None and scan.whole and scan.tensors > 0


def weights_in(folder: Source) -> tuple[str, ...]:
    """Names of the files of weights of a folder: one, or one of an encoder and one of a decoder.

    Returns:
        The names; none where the folder holds no such files, or others beside them.
    """
    names = [n for n in folder.names() if n.rpartition(".")[2].lower() in _ENDINGS]
    held = [n for n in names if (folder.path / n).is_file()]
    kinds = {n: folder.child(n).kind for n in held}
    held = [n for n in held if kinds[n] in WEIGHT_KINDS]
    if len(held) == 1:
        return tuple(held)
    pair = [[n for n in held if stem in n.lower()] for stem in ("enc", "dec")]
    if all(len(found) == 1 for found in pair):
        return pair[0][0], pair[1][0]
    return ()


_ENDINGS = frozenset({"pt", "pth", "bin", "ckpt", "safetensors", "tar", "pkl", "t7", "model"})


def _of_folder(folder: Source, prefix: str | None, wanted: str | None) -> State:
    names = weights_in(folder)
    if not names:
        raise CheckpointError(f"{folder.path} is {folder.description}: no one file of weights")
    states = [read_state(folder.child(name), prefix, wanted) for name in names]
    extras = dict(folder.json("config.json")) if folder.has("config.json") else {}
    if len(states) == 1:
        return replace(states[0], extras={**extras, **states[0].extras})
    tensors = {
        f"{key}.{name}" if not name.startswith(key) else name: tensor
        for key, state in zip(("encoder", "decoder"), states, strict=True)
        for name, tensor in state.tensors.items()
    }
    notes = (f"weights of {names[0]} and {names[1]} put together", *states[0].notes)
    return State(tensors, notes, {**extras, **states[0].extras})


def _open(source: Source, wanted: str | None) -> State:

    if is_arrays(source):
        return State(named_arrays(source))
    if source.kind is FileKind.SAFETENSORS:
        return _chosen(weights(source.path), _metadata(source), source, (), wanted)
    if source.pickle is not None and source.pickle.whole and source.pickle.foreign:
        return _from_records(source, wanted)
    return _chosen(load_torch(source), None, source, (), wanted)


def _metadata(source: Source) -> dict[str, Any]:
    """What a safetensors file says beside its tensors, numbers as numbers."""
    found: dict[str, Any] = {}
    for name, text in source.header.get("__metadata__", {}).items():
        try:
            found[name] = parse_json(str(text).encode(), name)
        except FileError:
            found[name] = text
    return found


def _chosen(
    saved: Any,
    extras: Mapping[str, Any] | None,
    source: Source,
    notes: tuple[str, ...],
    wanted: str | None,
) -> State:
    """The set of weights that is the model's, and what else there is."""
    if not isinstance(saved, Mapping | list | tuple):
        return State({}, notes)
    said = list(notes)
    sets = sets_in(saved)
    where = f"{source.path} is {source.description}"
    found = meant(sets, wanted, where, said)
    rest = _plain_values(saved) if extras is None else extras
    return State(found.tensors, tuple(said), rest)


def _plain_values(saved: Any) -> dict[str, Any]:
    """What a training loop saved beside its tensors, by key."""
    import torch

    if not isinstance(saved, Mapping):
        return {}
    return {str(k): v for k, v in saved.items() if not isinstance(v, torch.Tensor)}


def _from_records(source: Source, wanted: str | None) -> State:
    tree = load_records(source)
    scan = source.pickle
    note: tuple[str, ...] = ()
    if scan is not None and scan.foreign:
        note = (f"objects of {scan.foreign[0]} were not built, only tensors taken",)
    if isinstance(tree, Record):
        return State(module_state(tree), note, classes=module_classes(tree))
    if isinstance(tree, Mapping):
        modules = [v for v in tree.values() if isinstance(v, Record) and module_state(v)]
        if len(modules) == 1:
            return State(
                module_state(modules[0]), note, _plain_values(tree), module_classes(modules[0])
            )
    return _chosen(tree, None, source, note, wanted)


def module_classes(record: Any, place: str = "") -> dict[str, str]:
    """Return the class of every module inside a pickled module, by its place."""
    if not isinstance(record, Record):
        return {}
    found = {place: record.name}
    for name, child in (record.get("_modules") or {}).items():
        found |= module_classes(child, f"{place}.{name}" if place else name)
    return found


def _strip(state: State) -> State:
    """Take off what every name begins with, as long as it is a known wrapper."""
    tensors, notes = dict(state.tensors), list(state.notes)
    while tensors:
        prefix = next((p for p in PREFIXES if all(k.startswith(p) for k in tensors)), None)
        if prefix is None:
            break
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items()}
        notes.append(f"prefix {prefix!r} taken off every name")
    return replace(state, tensors=tensors, notes=tuple(notes))


def _select(state: State, prefix: str, source: Source) -> State:
    kept = {k.removeprefix(prefix): v for k, v in state.tensors.items() if k.startswith(prefix)}
    if not kept:
        raise CheckpointError(
            f"{source.path}: no tensor's name begins with {prefix!r}; the first is "
            f"{next(iter(state.tensors), 'none')!r}"
        )
    return replace(state, tensors=kept)


def _widen(state: State) -> State:
    """Turn half precision into float32, which every operator on the CPU has."""
    import torch

    def is_odd(tensor: Tensor) -> bool:
        return tensor.is_complex() or (tensor.is_floating_point() and tensor.itemsize < 2)

    odd = next((name for name, tensor in state.tensors.items() if is_odd(tensor)), None)
    if odd is not None:
        raise CheckpointError(
            f"tensor {odd!r} has type {str(state.tensors[odd].dtype).removeprefix('torch.')}; "
            "expected real numbers of 16 bits or more: convert it before"
        )
    half = {torch.float16, torch.bfloat16}
    if not any(t.dtype in half for t in state.tensors.values()):
        return state
    tensors = {k: v.float() if v.dtype in half else v for k, v in state.tensors.items()}
    return replace(state, tensors=tensors, notes=(*state.notes, "half precision read as float32"))
