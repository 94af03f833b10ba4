"""The weights of any file that holds tensors by name, with wrappers taken off."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.records import Record
from isoprobe.checkpoints.source import WEIGHT_KINDS, FileKind, Source
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.weights.storages import load_records, module_state
from isoprobe_plugins.adapters.weights.torch_files import load_torch

if TYPE_CHECKING:
    from torch import Tensor

#: keys under which training loops keep the state dict, the most specific first
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "vae", "weights")
#: what wrappers such as DataParallel, torch.compile and Lightning put before every name
PREFIXES = ("module.", "_orig_mod.", "model.", "vae.", "net.")


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


def read_state(source: Source, prefix: str | None = None) -> State:
    """Read the weights of a file, running nothing.

    Args:
        source: safetensors, a torch zip or legacy file, a Lightning checkpoint, or a whole
            module pickled by torch.save.
        prefix: keep only names that begin so, and take it off; None takes off known wrappers.

    Returns:
        The weights and what was done to get at them.

    Raises:
        CheckpointError: when the file is of another kind, damaged, or holds no tensors by name.
    """
    if source.kind not in WEIGHT_KINDS:
        raise CheckpointError(
            f"{source.path} is {source.description}, which holds no weights by name"
        )
    state = _open(source)
    state = _strip(state) if prefix is None else _select(state, prefix, source)
    if not state.tensors:
        raise CheckpointError(f"{source.path} is {source.description}: no tensors by name in it")
    return _widen(state)


def _open(source: Source) -> State:
    from isoprobe.checkpoints.native import weights

    if source.kind is FileKind.SAFETENSORS:
        return State(weights(source.path))
    if source.pickle is not None and source.pickle.whole and source.pickle.foreign:
        return _from_records(source)
    return _unwrap(load_torch(source), ())


def _from_records(source: Source) -> State:
    tree = load_records(source)
    note = (
        (f"objects of {source.pickle.foreign[0]} were not built, only tensors taken",)
        if (source.pickle is not None)
        else ()
    )
    if isinstance(tree, Record):
        return State(module_state(tree), note, classes=module_classes(tree))
    if isinstance(tree, Mapping):
        modules = [v for v in tree.values() if isinstance(v, Record) and module_state(v)]
        if len(modules) == 1:
            return State(module_state(modules[0]), note, classes=module_classes(modules[0]))
    return _unwrap(tree, note)


def module_classes(record: Any, place: str = "") -> dict[str, str]:
    """Return the class of every module inside a pickled module, by its place."""
    if not isinstance(record, Record):
        return {}
    found = {place: record.name}
    for name, child in (record.get("_modules") or {}).items():
        found |= module_classes(child, f"{place}.{name}" if place else name)
    return found


def _unwrap(saved: Any, notes: tuple[str, ...]) -> State:
    """Find the state dict among what a training loop saved."""
    import torch

    if not isinstance(saved, Mapping):
        return State({}, notes)
    own = {k: v for k, v in saved.items() if isinstance(k, str) and isinstance(v, torch.Tensor)}
    if own and not any(isinstance(v, Mapping) and _holds_tensors(v) for v in saved.values()):
        extras = {str(k): v for k, v in saved.items() if k not in own}
        return State(own, notes, extras)
    for key in WRAPPERS:
        if isinstance(saved.get(key), Mapping) and _holds_tensors(saved[key]):
            inner = _unwrap(saved[key], (*notes, f"weights found under {key!r}"))
            extras = {str(k): v for k, v in saved.items() if k != key}
            return replace(inner, extras=extras)
    return State({}, notes)


def _holds_tensors(value: Mapping[Any, Any]) -> bool:
    import torch

    return any(isinstance(v, torch.Tensor) for v in value.values())


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
