"""Shorten the arrays that analyses return; everything after values and text is named.

Built-in analyses hold many arrays, so theirs are shown only where they say so with ``show``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, Unpack

from isoprobe.contracts import Variable
from isoprobe.theory.stated import cite

if TYPE_CHECKING:
    import numpy as np


_AXES = {1: ("input",), 2: ("row", "column"), 3: ("channel", "row", "column")}


class Metadata(TypedDict):
    """What a variable may say of itself, see :class:`isoprobe.contracts.Variable`."""

    units: NotRequired[str]
    equation: NotRequired[str]
    formula: NotRequired[str]
    theory: NotRequired[str]
    show: NotRequired[str]
    label: NotRequired[str]
    form: NotRequired[str]


def latent(values: np.ndarray, long_name: str, **metadata: Unpack[Metadata]) -> Variable:
    """One value a latent, ``(n,)``."""
    return Variable(("latent",), values, long_name, **_quiet(metadata))


def sample(values: np.ndarray, long_name: str, **metadata: Unpack[Metadata]) -> Variable:
    """One value a sample, ``(B,)``."""
    return Variable(("sample",), values, long_name, **_quiet(metadata))


def scalar(
    value: np.ndarray | float | str, long_name: str, **metadata: Unpack[Metadata]
) -> Variable:
    """A single value."""
    import numpy as np

    return Variable((), np.asarray(value), long_name, **_quiet(metadata))


def input_axes(shape: Sequence[int]) -> tuple[str, ...]:
    """Names of the axes of one input: ``("channel", "row", "column")`` for ``(C, H, W)``."""
    return _AXES.get(len(shape), tuple(f"axis_{i}" for i in range(len(shape))))


def sourced(variables: Mapping[str, Variable], formula: Callable[..., Any]) -> dict[str, Variable]:
    """Say of variables which name no function that their values come from this one."""
    source = cite(formula)
    return {n: v if v.formula else replace(v, **source) for n, v in variables.items()}


def headed(variables: Mapping[str, Variable], heading: str) -> dict[str, Variable]:
    """Say of variables that no formula gives which heading of the page explains them."""
    return {n: v if v.theory else replace(v, theory=heading) for n, v in variables.items()}


def _quiet(metadata: Metadata) -> Metadata:
    return {"show": "none", **metadata}
