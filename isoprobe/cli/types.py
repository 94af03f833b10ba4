"""Values of options that click has no type for: callbacks from text to value, or a usage error."""

from __future__ import annotations

import math
import re

import click

_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "KI": 2**10, "MI": 2**20, "GI": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?I?)B?", re.IGNORECASE)


def auto_or_positive(_: click.Context, __: click.Parameter, text: str) -> float | str:
    """Return ``auto``, or a positive number.

    Raises:
        BadParameter: for anything else.
    """
    if text == "auto":
        return "auto"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise click.BadParameter(f"expected auto or a positive number, found '{text}'.")
    return number


def all_or_count(_: click.Context, __: click.Parameter, text: str) -> int | None:
    """Return a count, None for ``all``.

    Raises:
        BadParameter: for anything else.
    """
    return _word_or_count(text, "all")


def auto_or_count(_: click.Context, __: click.Parameter, text: str) -> int | None:
    """Return a count, None for ``auto``.

    Raises:
        BadParameter: for anything else.
    """
    return _word_or_count(text, "auto")


def size_in_bytes(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Return the bytes of a size such as ``500MB`` or ``2GiB``.

    Raises:
        BadParameter: for anything else.
    """
    if text is None:
        return None
    match = _SIZE.fullmatch(text)
    if match is None or not float(match[1]):
        raise click.BadParameter(f"expected a size such as 500MB or 2GiB, found '{text}'.")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def _word_or_count(text: str, word: str) -> int | None:
    if text == word:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise click.BadParameter(f"expected {word} or a count of at least 1, found '{text}'.")
    return int(text)
