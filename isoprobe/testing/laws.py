"""Define a law: a name that says what must hold, and a check that raises when it does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

L = TypeVar("L")


class LawError(AssertionError):
    """A plugin does not obey a law; the message says what was expected and what was found."""


@dataclass(frozen=True)
class Law:
    """A named check of one plugin.

    Attributes:
        name: what must hold, as a sentence.
        check: raises :class:`LawError`, or whatever the plugin raises.
    """

    name: str
    check: Callable[[], None]

    def __call__(self) -> None:
        """Run the check.

        Raises:
            LawError: when the law does not hold, or the plugin fails while it is tried.
        """
        try:
            self.check()
        except LawError as broken:
            raise LawError(f"{self.name}: {broken}") from broken
        except Exception as error:
            raise LawError(f"{self.name}: {type(error).__name__}: {error}") from error

    def __str__(self) -> str:
        return self.name


def law(
    name: str, when: Callable[[Any], bool] = lambda _: True
) -> Callable[[Callable[[L], None]], Callable[[L], None]]:
    """Mark a method of :class:`Laws` as the check of a law.

    Args:
        name: what must hold.
        when: says for an instance whether the law applies to its plugin.

    Returns:
        The decorator.
    """

    def mark(method: Callable[[L], None]) -> Callable[[L], None]:
        method.law = (name, when)  # type: ignore[attr-defined]
        return method

    return mark


class Laws:
    """A plugin under test and its laws, methods marked by :func:`law`."""

    def collect(self) -> list[Law]:
        """Return the laws that apply, in the order they are written."""
        marked = [m for m in vars(type(self)).values() if hasattr(m, "law")]
        return [Law(m.law[0], partial(m, self)) for m in marked if m.law[1](self)]


def require(condition: object, message: str) -> None:
    """Hold a plugin to a condition.

    Raises:
        LawError: when the condition is not true.
    """
    if not condition:
        raise LawError(message)
