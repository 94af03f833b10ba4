"""Shorthands for the arrays that analyses return."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.contracts import Variable

if TYPE_CHECKING:
    import numpy as np


def latent(values: np.ndarray, long_name: str, equation: str = "", units: str = "1") -> Variable:
    """One value a latent, ``(n,)``."""
    return Variable(("latent",), values, long_name, units, equation)


def sample(values: np.ndarray, long_name: str, units: str = "1", equation: str = "") -> Variable:
    """One value a sample, ``(B,)``."""
    return Variable(("sample",), values, long_name, units, equation)


def scalar(
    value: np.ndarray | float | str, long_name: str, units: str = "1", equation: str = ""
) -> Variable:
    """A single value."""
    import numpy as np

    return Variable((), np.asarray(value), long_name, units, equation)
