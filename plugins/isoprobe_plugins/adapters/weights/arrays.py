"""Read arrays by name from a zip file, as numpy.savez writes them: nothing in it is unpickled."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import CheckpointError
from isoprobe.files.archives import Archive

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.checkpoints.source import Source


def named_arrays(source: Source) -> dict[str, Tensor]:
    """Read the arrays of numbers of an npz file.

    Args:
        source: the file.

    Returns:
        Tensors by name, others left out.

    Raises:
        CheckpointError: for a file that is damaged, or an array that holds objects.
    """
    import torch

    found: dict[str, Tensor] = {}
    with Archive(source.path) as archive:
        for member in archive.names:
            if not member.endswith(".npy"):
                continue
            try:
                array = _array(archive.read(member))
            except (ValueError, EOFError, TypeError, SyntaxError, OverflowError) as error:
                raise CheckpointError(f"{source.path}: {member} cannot be read: {error}") from error
            if array is not None:
                found[member.removesuffix(".npy")] = torch.from_numpy(array)
    return found


def _array(data: bytes) -> np.ndarray | None:
    """Read an array of numbers whose bytes are all there, None for one of anything else."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0
    shape, turned, dtype = (
        read(stream) if version == (1, 0) else np.lib.format.read_array_header_2_0(stream)
    )
    if dtype.kind not in "fiu":
        return None
    rest = data[stream.tell() :]
    count = 1
    for length in shape:
        count *= length
    if count < 0 or count * dtype.itemsize != len(rest):
        raise ValueError(f"shape {shape} does not fit its {len(rest)} bytes")
    array = np.frombuffer(rest, dtype).reshape(shape, order="F" if turned else "C")
    return np.ascontiguousarray(array.astype(dtype.newbyteorder("="))).reshape(shape)
