"""Shorthands for the arrays that analyses return; everything after values and text is named.

Built-in analyses hold many arrays, so theirs are shown only where they say so with ``show``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, TypeVar, Unpack

from isoprobe.contracts import Variable

if TYPE_CHECKING:
    import numpy as np

Method = TypeVar("Method", bound=Callable[..., "Mapping[str, Variable] | None"])


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


def sourced(formula: str, theory: str) -> Callable[[Method], Method]:
    """Decorate a method that returns variables: those that name no formula of their own get this.

    Args:
        formula: dotted name of the function that most of them come from.
        theory: heading of the page on theory.

    Returns:
        The decorator.
    """

    def mark(method: Method) -> Method:
        @functools.wraps(method)
        def marked(*arguments: Any) -> Mapping[str, Variable] | None:
            found = method(*arguments)
            if found is None:
                return None
            return {
                name: v if v.formula else replace(v, formula=formula, theory=v.theory or theory)
                for name, v in found.items()
            }

        return marked  # type: ignore[return-value]

    return mark


def _quiet(metadata: Metadata) -> Metadata:
    return {"show": "none", **metadata}
