"""Tensors out of files that torch wrote, with nothing in them run."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.source import TORCH_KINDS, FileKind, Source
from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor


NEXT_STEP = (
    "save its state_dict() with safetensors, or build the model with "
    "--adapter factory --option target=module:function; --trust lets a pickled model's code run"
)


def load_torch(source: Source) -> Any:
    """Load a torch file with ``weights_only=True``, onto the CPU.

    Args:
        source: a zip or legacy file of torch.

    Returns:
        What was saved: a state dict, or a dictionary that holds one.

    Raises:
        CheckpointError: when the file is of another kind, pickles objects, or is damaged.
    """
    import torch

    refuse_unsafe(source)
    try:
        return torch.load(source.path, map_location="cpu", weights_only=True)
    # whatever byte a file is damaged at, torch's reader fails there in a way of its own
    except Exception as error:
        raise CheckpointError(f"{source.path} is damaged: {first_line(error)}") from error


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
    if source.kind is not FileKind.TORCH_LEGACY:
        _refuse_compressed(source)


def _refuse_compressed(source: Source) -> None:
    """Raise for compressed members: torch stores them, so these could only be a zip bomb."""
    with zipfile.ZipFile(source.path) as archive:
        for info in archive.infolist():
            if info.file_size > source.size:
                raise CheckpointError(
                    f"{source.path}: member {info.filename!r} claims {info.file_size} bytes, "
                    f"the file has {source.size}: it is damaged or hostile"
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
