"""Say choices in words."""

from __future__ import annotations

from typing import Any


def word(act: Any) -> str:
    """Return an activation in words, as it is typed in an option.

    Args:
        act: its brief form in a declaration, or a number; None for none.
    """
    if act is None:
        return "nothing"
    if isinstance(act, str | int):
        return str(act)
    ((name, slope),) = act.items()
    return f"{name}:{slope}"
