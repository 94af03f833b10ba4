"""Let one formula serve numpy arrays and torch tensors alike, without loading torch for it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    #: an array of either library, or a number
    Real = TypeVar("Real", Tensor, np.ndarray, float)
    #: an array of either library
    Array = TypeVar("Array", Tensor, np.ndarray)


def library(values: object) -> Any:
    """Return the library whose functions take the values: torch for its tensors, else numpy."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(values, torch.Tensor):
        return torch
    import numpy as np  # commands that only print formulas start without it

    return np


def log_determinant(matrix: Array) -> Array:
    """Log determinant of matrices ``(..., n, n)``: NaN where negative, -inf where zero."""
    found = library(matrix)
    sign, size = found.linalg.slogdet(matrix)
    result: Array = found.where(sign < 0, float("nan"), size)
    return result
