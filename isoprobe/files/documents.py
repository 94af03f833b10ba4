"""Parse JSON and TOML of strangers: no NaN, no key twice, no depth or length without end."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

from isoprobe.errors import FileError

#: longest TOML; its parser takes time that grows as the square of a dotted key
TOML_LIMIT = 64 << 10
#: parts of a dotted key
TOML_PARTS = 64
_DOTTED = re.compile(r"(?:[^.,=\[\]{}\n]*\.){%d}" % TOML_PARTS)  # noqa: UP031 - braces abound


def parse_json(data: bytes, where: str) -> Any:
    """Parse JSON, refusing NaN, duplicate keys and bottomless nesting.

    Args:
        data: UTF-8 text.
        where: how to name the place in an error.

    Returns:
        The parsed value.

    Raises:
        FileError: with the place and the reason.
    """
    try:
        return json.loads(
            data.decode(), object_pairs_hook=_without_duplicates, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise FileError(f"{where} is not readable JSON: {reason}") from error


def parse_toml(data: bytes, where: str) -> dict[str, Any]:
    """Parse TOML, refusing what takes time or memory out of proportion.

    Args:
        data: UTF-8 text.
        where: how to name the place in an error.

    Returns:
        The parsed table.

    Raises:
        FileError: with the place and the reason.
    """
    if len(data) > TOML_LIMIT:
        raise FileError(f"{where} is longer than the {TOML_LIMIT} bytes a declaration may have")
    try:
        text = data.decode()
        if _DOTTED.search(text):
            raise FileError(f"{where} has a key of over {TOML_PARTS} parts")
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise FileError(f"{where} is no TOML: {reason}") from error


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} stands twice")
    return result


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")
