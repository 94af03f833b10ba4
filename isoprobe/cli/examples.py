"""Put examples at the end of a command's help."""

from __future__ import annotations


def examples(*lines: str) -> str:
    """Return an epilog that shows commands as they are typed, unwrapped."""
    # click keeps the lines of a paragraph that starts with a backspace
    return "\n".join(["\b", "Examples:", *(f"  {line}" for line in lines)])
