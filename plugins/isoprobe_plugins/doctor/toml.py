"""Write a declaration as TOML, which the standard library reads and does not write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_toml(fields: Mapping[str, Any]) -> str:
    """Write fields as TOML, a line each, chains a step a line.

    Args:
        fields: numbers, texts, booleans, lists and tables; nothing is null.

    Returns:
        The text, ending in a line break.
    """
    return "".join(f"{key} = {_lines(value)}\n" for key, value in fields.items())


def _lines(value: Any) -> str:
    if isinstance(value, list) and any(isinstance(item, Mapping | str) for item in value):
        return "[\n" + "".join(f"  {_inline(item)},\n" for item in value) + "]"
    return _inline(value)


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{k} = {_inline(v)}" for k, v in value.items()) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    return json.dumps(value)  # TOML's numbers, texts and booleans are written like JSON's
