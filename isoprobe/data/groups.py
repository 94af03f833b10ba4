"""Tell groups of rows apart by a column that goes along, without keeping what stands in it."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np

from isoprobe.errors import OptionError


def group_keys(values: np.ndarray) -> np.ndarray:
    """Return a number for each value, the same in every file and process.

    Args:
        values: text or numbers, ``(B,)``; a whole number is its digits, in CSV as in Parquet.

    Returns:
        ``(B,)`` int64, of the first 63 bits of a hash: two of a million values share one with a
        chance of 5e-8.
    """
    texts = group_texts(values)
    known = {text: _key(text) for text in set(texts)}
    return np.array([known[text] for text in texts], dtype=np.int64)


def group_texts(values: np.ndarray) -> list[str]:
    """Return the name of each row's group: of a whole number its digits."""
    return [_text(value) for value in values.tolist()]


def grouping(carried: dict[str, np.ndarray], by: str, where: str) -> np.ndarray:
    """Return the column that groups rows.

    Raises:
        OptionError: when no such column goes along with the rows.
    """
    if by not in carried:
        there = f"what goes along: {', '.join(carried)}" if carried else "nothing goes along"
        raise OptionError(
            f"rows are to be grouped by '{by}', and {where} carries no such column ({there}); "
            f"name it in --data, as in FILE.csv:keep={by}"
        )
    return carried[by]


def _text(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _key(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
