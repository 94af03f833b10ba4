"""Write decoded inputs as one picture or as an animation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import OptionError
from isoprobe.results.whole import replacing
from isoprobe.show.plots.frames import frames
from isoprobe.show.plots.style import styled
from isoprobe.show.plots.walks import lines

if TYPE_CHECKING:
    from pathlib import Path

#: a small picture is enlarged to about this many pixels
_SIZE = 96
_MILLISECONDS = 120


def save_sheet(values: np.ndarray, out: Path) -> None:
    """Write rows of inputs as a PNG: pictures side by side, or vectors as lines.

    Args:
        values: ``(row, step, *input axes)``.
        out: the file.

    Raises:
        OptionError: for inputs that are neither vectors nor images.
    """
    shown = frames(values)
    if shown is not None:
        large = _enlarged(shown)
        rows, steps, height, width, channels = large.shape
        sheet = large.transpose(0, 2, 1, 3, 4).reshape(rows * height, steps * width, channels)
        image = _image(sheet)
        with replacing(out) as partial:
            image.save(partial, "PNG")
    elif values.ndim == 3:
        _lines(values, out)
    else:
        raise OptionError(
            f"inputs of shape {values.shape[2:]} are no picture; write a .npy file instead"
        )


def save_animation(values: np.ndarray, out: Path) -> None:
    """Write steps of a path as a GIF that goes there and back.

    Args:
        values: ``(step, *input axes)``.
        out: the file.

    Raises:
        OptionError: for inputs that are no images.
    """
    shown = frames(values[None])
    if shown is None:
        raise OptionError(
            f"inputs of shape {values.shape[1:]} are no pictures; write a .png or .npy file instead"
        )
    there = [_image(frame) for frame in _enlarged(shown)[0]]
    with replacing(out) as partial:
        there[0].save(
            partial,
            "GIF",
            save_all=True,
            append_images=[*there[1:], *there[-2:0:-1]],
            duration=_MILLISECONDS,
            loop=0,
        )


def _enlarged(shown: np.ndarray) -> np.ndarray:
    factor = max(1, _SIZE // max(shown.shape[2:4]))
    large: np.ndarray = shown.repeat(factor, axis=2).repeat(factor, axis=3)
    pixels: np.ndarray = np.rint(255 * large).astype(np.uint8)
    return pixels


def _image(picture: np.ndarray):  # type: ignore[no-untyped-def]  # noqa: ANN202 (Pillow's, lazy)
    from PIL import Image

    return Image.fromarray(picture[..., 0] if picture.shape[2] == 1 else picture)


def _lines(values: np.ndarray, out: Path) -> None:
    from matplotlib.figure import Figure

    with styled():
        drawn = Figure(figsize=(6, 1 + 1.2 * len(values)))
        axes = drawn.add_subplot()
        lines(values, axes)
        axes.set_xticks([])
        axes.set_yticks([])
        with replacing(out) as partial:
            drawn.savefig(partial, format="png", dpi=160, facecolor="white")
