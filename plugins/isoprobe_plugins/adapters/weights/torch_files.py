"""Read weights from files that torch wrote: state dicts and what loops keep beside them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import TORCH_KINDS, Source
from isoprobe.errors import CheckpointError
from isoprobe_plugins.adapters.weights.storages import load_records

if TYPE_CHECKING:
    from torch import Tensor


NEXT_STEP = (
    "save its state_dict() with safetensors, or build the model with "
    "--adapter factory --option target=module:function; --trust lets a pickled model's code run"
)


def load_torch(source: Source) -> Any:
    """Read a torch file that holds tensors and plain values, onto the CPU.

    Args:
        source: a zip or legacy file of torch.

    Returns:
        What was saved: a state dict, or a dictionary that holds one.

    Raises:
        CheckpointError: when the file is of another kind, pickles objects, or is damaged.
    """
    refuse_unsafe(source)
    return load_records(source)


def refuse_unsafe(source: Source) -> None:
    """Raise unless a torch file holds nothing but tensors and plain containers.

    Raises:
        CheckpointError: naming the kind of file, the first foreign class, or the damage.
    """
    if source.kind not in TORCH_KINDS:
        raise CheckpointError(f"{source.path} is {source.description}, not a torch file")
    scan = source.pickle
    if scan is None or not scan.whole:
        raise CheckpointError(f"{source.path} is {source.description}; fetch it again")
    if scan.foreign:
        raise CheckpointError(
            f"{source.path} pickles objects of {scan.foreign[0]}, and unpickling runs code: "
            f"{NEXT_STEP}"
        )


def tensors_of(source: Source) -> dict[str, Tensor]:
    """Return the tensors of a torch file that holds a plain state dict.

    Raises:
        CheckpointError: when it holds something else.
    """
    import torch

    state = load_torch(source)
    if not isinstance(state, Mapping) or not state:
        raise CheckpointError(f"{source.path} holds a {type(state).__name__}, not a state dict")
    for name, value in state.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(
                f"{source.path}: entry {name!r} is a {type(value).__name__}, not a tensor"
            )
    return dict(state)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its type where there is none."""
    text = str(error).strip()
    return text.splitlines()[0].rstrip(".:") if text else type(error).__name__
