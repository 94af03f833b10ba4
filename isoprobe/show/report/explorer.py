"""Pack decoded walks for the page: a sprite for images, numbers for vectors."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.show.plots.frames import frames, picture_shape, sheet, shrunk

if TYPE_CHECKING:
    from isoprobe.contracts import Variable
    from isoprobe.results.reader import Result

#: longest side of a frame in the page, pixels; larger ones are averaged down
_LARGEST = 96
#: a lossless sprite may take this many bytes, then it is packed with loss
_LOSSLESS = 400_000
#: numbers of a vector that are drawn
_LONGEST = 200


def explorer(result: Result) -> dict[str, Any] | None:
    """Return what the explorer shows, ready for JSON but for the sprite.

    Args:
        result: any.

    Returns:
        ``kind`` (``image`` or ``line``), latents, shares, z and y of the steps, and the frames or
        values; None where the result has no walks, or inputs that are neither.
    """
    if "traversal" not in result:
        return None
    group = result["traversal"]
    walks = group["images_equal_y"]
    drawn = _image(walks, picture_shape(result)) or _line(walks)
    if drawn is None:
        return None
    latents = group["latents"].values
    return {
        **drawn,
        "latents": latents.tolist(),
        "weights": _weights(result, latents),
        "z": _rounded(group["z_equal_y"].values),
        "y": _rounded(group["y_equal_y"].values),
        "digits": _digits(group["y_equal_y"].values),
        "steps": int(walks.values.shape[1]),
    }


def _image(walks: Variable, shape: Sequence[int] | None) -> dict[str, Any] | None:
    pictures = frames(walks.values, shape)
    if pictures is None:
        return None
    pictures = shrunk(pictures, _LARGEST)
    height, width = pictures.shape[2:4]
    return {
        "kind": "image",
        "sprite": packed(sheet(pictures)),
        "width": width,
        "height": height,
    }


def _line(walks: Variable) -> dict[str, Any] | None:
    if walks.values.ndim != 3:
        return None
    size = walks.values.shape[2]
    kept = np.unique(np.linspace(0, size - 1, min(size, _LONGEST)).round().astype(int))
    return {"kind": "line", "values": _rounded(walks.values[:, :, kept])}


def packed(pixels: np.ndarray) -> str:
    """Return bytes of pixels as a data URI, lossless while that is small.

    Args:
        pixels: as :func:`isoprobe.show.plots.frames.sheet` gives them.

    Returns:
        The URI.
    """
    from PIL import Image

    image = Image.fromarray(pixels)
    data, kind = io.BytesIO(), "png"
    image.save(data, "PNG", optimize=True)
    if data.tell() > _LOSSLESS:
        data, kind = io.BytesIO(), "jpeg"
        image.save(data, "JPEG", quality=88)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def _weights(result: Result, latents: np.ndarray) -> list[float]:
    """Return the leading latents' importance relative to the first's, for the bars."""
    values = result["importance"]["exact"].values[latents]
    values = np.nan_to_num(values, posinf=0.0).clip(0)
    relative: list[float] = _rounded(values / max(values.max(initial=0.0), 1e-300))
    return relative


def _digits(values: np.ndarray) -> list[int]:
    """Return how many decimals tell the steps of each walk apart."""
    step = np.nan_to_num(np.abs(values[:, -1] - values[:, 0]) / max(values.shape[1] - 1, 1))
    digits: list[int] = np.ceil(-np.log10(np.maximum(step, 1e-9))).clip(0, 9).astype(int).tolist()
    return digits


def _rounded(values: np.ndarray) -> list[Any]:
    """Return nested lists of numbers of four digits; what is not finite becomes 0."""
    finite = np.nan_to_num(values.astype(float), posinf=0.0, neginf=0.0)
    scale = 10.0 ** (3 - np.floor(np.log10(np.maximum(np.abs(finite), 1e-30))))
    rounded: list[Any] = (np.rint(finite * scale) / scale).tolist()
    return rounded
