"""Give each formula its equation and its place on the published page, which its values carry on.

A variable of a result says where it comes from by :func:`cite`; nothing is typed a second time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypedDict, TypeVar

Formula = TypeVar("Formula", bound=Callable[..., Any])


class Source(TypedDict):
    """What a variable says of where its values come from."""

    equation: str
    formula: str
    theory: str


@dataclass(frozen=True)
class _Statement:
    equation: str
    heading: str


def stated(heading: str, equation: str = "") -> Callable[[Formula], Formula]:
    """Decorate a formula with where it is stated; the function is otherwise as it was.

    Args:
        heading: of the page ``docs/theory.md``.
        equation: the paper's number, such as ``Eq. 23``; empty where it is not the paper's.

    Returns:
        The decorator.
    """

    def mark(formula: Formula) -> Formula:
        formula.__stated__ = _Statement(equation, heading)  # type: ignore[attr-defined]
        return formula

    return mark


def cite(formula: Callable[..., Any]) -> Source:
    """Say where values come from, as keyword arguments of a variable.

    Args:
        formula: decorated with :func:`stated`; its values, or their mean or deviation, are shown.

    Returns:
        Equation, dotted name of the function, and heading of the page on theory.
    """
    statement: _Statement = formula.__stated__  # type: ignore[attr-defined]
    name = f"{formula.__module__}.{formula.__qualname__}"
    return {"equation": statement.equation, "formula": name, "theory": statement.heading}
