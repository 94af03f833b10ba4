"""Turn arrays of inputs into pictures in [0, 1], where they are pictures or look like some."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from isoprobe.results.reader import Result

#: a flat input of fewer values is not taken for a picture
_LEAST_SIDE = 6
#: correlation of neighbours from which a flat input counts as a picture
_NEIGHBOURS = 0.3
#: rows looked at
_LOOKED_AT = 64
#: rows of a result that are kept to be drawn
_ROWS = tuple(f"{kind}_input" for kind in ("spread", "worst", "likely", "unlikely"))


def frames(values: np.ndarray, shape: Sequence[int] | None = None) -> np.ndarray | None:
    """Return inputs as pictures in [0, 1]: ``(rank, step, H, W, 1 or 3)``.

    Args:
        values: ``(rank, step, *input axes)``.
        shape: of a flat input as a picture, ``(H, W)``, ``(C, H, W)`` or ``(H, W, C)``; None takes
            a square where it looks like one.

    Returns:
        The pictures; None where the inputs are no images.
    """
    values = np.asarray(values, dtype=np.float32)
    if values.ndim == 3:
        side = _square(values) if shape is None else None
        shape = (side, side) if side else shape
        if shape is None or math.prod(shape) != values.shape[2]:
            return None
        values = values.reshape(*values.shape[:2], *shape)
    if values.ndim == 4:
        values = values[..., None]
    elif values.ndim == 5 and values.shape[2] in {1, 3}:
        values = np.moveaxis(values, 2, -1)
    elif values.ndim != 5 or values.shape[-1] not in {1, 3}:
        return None
    if min(values.shape[2:4]) < 2:
        return None
    low, high = _black_and_white(values)
    shown: np.ndarray = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    shown[np.isnan(shown)] = 0
    return shown


def picture_shape(result: Result) -> tuple[int, ...] | None:
    """Return as which shape a result's flat inputs are drawn, in every figure of it.

    Args:
        result: with ``examples``, or else each figure decides by what it draws.

    Returns:
        What its caller has set, else the side of the square that its rows look like together.
    """
    if result.image_shape is not None or "examples" not in result:
        return result.image_shape
    group = result["examples"]
    rows = [group[name].values for name in _ROWS if name in group]
    flat = [values for values in rows if values.ndim == 2]
    side = _square(np.concatenate(flat)[:, None]) if flat else None
    return None if side is None else (side, side)


def _square(values: np.ndarray) -> int | None:
    """Return the side of the square that flat inputs look like, None where they do not.

    In a picture a value resembles those beside it and those one line away, and the latter more than
    those a line and two places away, which in a smooth curve lie between.
    """
    rows = values.reshape(-1, values.shape[-1])
    side = math.isqrt(rows.shape[1])
    if side * side != rows.shape[1] or side < _LEAST_SIDE:
        return None
    rows = rows[:: max(1, len(rows) // _LOOKED_AT)].astype(float)
    rows = rows - rows.mean()
    power = float(np.square(rows).mean())
    if not (power > 0 and math.isfinite(power)):
        return None
    beside, line, before, after = (
        float((rows[:, :-lag] * rows[:, lag:]).mean()) / power
        for lag in (1, side, side - 2, side + 2)
    )
    alike = min(beside, line) > _NEIGHBOURS
    return side if alike and line > max(before, after) else None


def _black_and_white(values: np.ndarray) -> tuple[float, float]:
    """Return the usual range that the values lie in, else their own."""
    finite = values[np.isfinite(values)]
    low, high = float(finite.min(initial=0)), float(finite.max(initial=0))
    for bottom, top, least in ((0.0, 1.0, 0.0), (-1.0, 1.0, -1.0), (0.0, 255.0, 128.0)):
        if bottom - 0.02 <= low and least <= high <= top + 0.02:
            return bottom, top
    return float(finite.min()), float(finite.max())


def shrunk(pictures: np.ndarray, largest: int) -> np.ndarray:
    """Average blocks of pixels until a side is at most so long.

    Args:
        pictures: as :func:`frames` gives them.
        largest: pixels.

    Returns:
        The pictures, smaller.
    """
    factor = -(-max(pictures.shape[2:4]) // largest)
    if factor == 1:
        return pictures
    ranks, steps, height, width, channels = pictures.shape
    height, width = max(1, height // factor), max(1, width // factor)
    blocks = pictures[:, :, : height * factor, : width * factor].reshape(
        ranks, steps, height, factor, width, factor, channels
    )
    small: np.ndarray = blocks.mean(axis=(3, 5))
    return small


def sheet(pictures: np.ndarray) -> np.ndarray:
    """Lay pictures out in one, a row for each rank, as bytes: ``(rows, columns[, 3])``.

    Args:
        pictures: as :func:`frames` gives them.

    Returns:
        The sheet, ``uint8``.
    """
    ranks, steps, height, width, channels = pictures.shape
    laid = pictures.transpose(0, 2, 1, 3, 4).reshape(ranks * height, steps * width, channels)
    pixels: np.ndarray = np.rint(255 * laid).astype(np.uint8)
    return pixels[..., 0] if channels == 1 else pixels
