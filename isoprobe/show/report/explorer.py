"""Decoded walks packed for the page: a sprite for images, numbers for vectors."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.show.plots.walks import frames

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
    drawn = _image(walks) or _line(walks)
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


def _image(walks: Variable) -> dict[str, Any] | None:
    pictures = frames(walks.values)
    if pictures is None:
        return None
    pictures = _shrunk(pictures)
    ranks, steps, height, width, channels = pictures.shape
    sheet = pictures.transpose(0, 2, 1, 3, 4).reshape(ranks * height, steps * width, channels)
    return {
        "kind": "image",
        "sprite": _packed(np.rint(255 * sheet).astype(np.uint8)),
        "width": width,
        "height": height,
    }


def _line(walks: Variable) -> dict[str, Any] | None:
    if walks.values.ndim != 3:
        return None
    size = walks.values.shape[2]
    kept = np.unique(np.linspace(0, size - 1, min(size, _LONGEST)).round().astype(int))
    return {"kind": "line", "values": _rounded(walks.values[:, :, kept])}


def _shrunk(pictures: np.ndarray) -> np.ndarray:
    """Average blocks of pixels until a frame is small enough for a page."""
    factor = -(-max(pictures.shape[2:4]) // _LARGEST)
    if factor == 1:
        return pictures
    ranks, steps, height, width, channels = pictures.shape
    height, width = height // factor, width // factor
    blocks = pictures[:, :, : height * factor, : width * factor].reshape(
        ranks, steps, height, factor, width, factor, channels
    )
    small: np.ndarray = blocks.mean(axis=(3, 5))
    return small


def _packed(sheet: np.ndarray) -> str:
    """Return the sheet as a data URI, lossless while that is small."""
    from PIL import Image

    image = Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet)
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
