"""Fit samples as stored to a model's inputs: shape and values, nothing that loses anything.

Only bytes are mapped unasked (0..255 can mean nothing else), and only images resized when asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import DataError, OptionError

if TYPE_CHECKING:
    from torch import Tensor

Shape = tuple[int, ...]
Range = tuple[float, float]

#: a value may lie outside a range by this part of its width (of 1 where an end is open):
#: rounding, which is clipped away
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Fit:
    """One thing done to every sample.

    Attributes:
        apply: ``(B, *shape) -> (B, *new shape)``.
        note: what it does, in words.
    """

    apply: Callable[[Tensor], Tensor]
    note: str


@dataclass(frozen=True)
class Limit:
    """Values that a model or metric accepts.

    Attributes:
        low: lowest value.
        high: highest value.
        demand: who needs this, ending before "; row ...".
        remedy: what the user can do.
    """

    low: float
    high: float
    demand: str
    remedy: str

    def clip(self, x: Tensor, rows: np.ndarray, name: str) -> Tensor:
        """Clip rounding errors away.

        Args:
            x: ``(B, *shape)``.
            rows: row number of each sample in the data, ``(B,)``.
            name: name of the data.

        Returns:
            x within the range, ``(B, *shape)``.

        Raises:
            DataError: naming the first row that lies outside by more than rounding.
        """
        flat = x.reshape(len(x), -1)
        lowest, highest = flat.amin(1), flat.amax(1)
        width = self.high - self.low
        slack = TOLERANCE * (width if math.isfinite(width) else 1.0)
        outside = (lowest < self.low - slack) | (highest > self.high + slack)
        if outside.any():
            first = int(outside.nonzero()[0, 0])
            found = f"[{float(lowest[first]):.4g}, {float(highest[first]):.4g}]"
            raise DataError(
                f"{self.demand}; row {rows[first]} of {name} has {found}. {self.remedy}"
            )
        return x.clamp(self.low, self.high)


def fit_values(dtype: str, input_range: Range | None, scale: Range | None) -> Fit | None:
    """Map stored values linearly to those the model takes.

    Args:
        dtype: numpy name of the stored type; ``uint8`` marks image bytes.
        input_range: values the model takes; 0..1 where unknown.
        scale: stored values to map to the ends of that range.

    Returns:
        The mapping, or None when values are left alone.

    Raises:
        OptionError: when the scale is empty or infinite.
    """
    if scale is None and dtype != "uint8":
        return None
    low, high = (0.0, 255.0) if scale is None else scale
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise OptionError(f"--scale LOW:HIGH needs LOW below HIGH; found {low:g}:{high:g}")
    bottom, top = (0.0, 1.0)
    if input_range is not None and all(map(math.isfinite, input_range)):
        bottom, top = input_range
    what = "bytes" if scale is None else "values"
    return Fit(
        lambda x: (x - low) / (high - low) * (top - bottom) + bottom,
        f"{what} {low:g}..{high:g} read as {bottom:g}..{top:g}",
    )


def fit_shape(
    shape: Shape,
    input_shape: Shape,
    resize: int | Sequence[int] | None,
    columns: Sequence[str] = (),
) -> list[Fit]:
    """Find what turns stored samples into inputs of the model.

    Args:
        shape: shape of a stored sample.
        input_shape: shape of one input of the model.
        resize: height and width (one number: both) to resize images to first; None: never.
        columns: names of a table's columns, for the message.

    Returns:
        What to do, in order; empty when the shapes agree.

    Raises:
        DataError: when no lossless reshape makes the shapes agree.
        OptionError: when the size to resize to is none.
    """
    fits = []
    if resize is not None:
        size = resized_shape(shape, resize, input_shape)
        if size != shape:
            fits.append(Fit(resizer(shape, size), f"{_size(shape)} resized to {_size(size)}"))
        shape = size
    if shape == input_shape:
        return fits
    return [*fits, _reshape(shape, input_shape, columns)]


def _reshape(shape: Shape, input_shape: Shape, columns: Sequence[str]) -> Fit:
    thin, wanted = _squeezed(shape), _squeezed(input_shape)
    same_size = math.prod(shape) == math.prod(input_shape)
    if thin == wanted:
        return Fit(_to(input_shape), f"{shape} read as {input_shape}")
    if len(shape) == 3 and (shape[2], *shape[:2]) == input_shape:
        return Fit(lambda x: x.movedim(-1, 1), f"{shape}, channels last, read as {input_shape}")
    if len(shape) == 3 and (*shape[1:], shape[0]) == input_shape:
        return Fit(lambda x: x.movedim(1, -1), f"{shape}, channels first, read as {input_shape}")
    if same_size and len(wanted) == 1:
        return Fit(_to(input_shape), f"{shape} flattened to {math.prod(shape)} in stored order")
    # rows of a grey image have one order only; with channels there would be two
    if same_size and len(thin) == 1 and len(wanted) == 2:
        return Fit(_to(input_shape), f"{shape} read row by row as {input_shape}")
    raise DataError(
        f"expected samples of shape {input_shape}, found {shape}; "
        + (_of_columns(columns, math.prod(input_shape)) or _remedy(shape, input_shape))
    )


def _of_columns(columns: Sequence[str], wanted: int) -> str:
    """How to choose a table's columns where it has more than the model takes; else nothing."""
    more = len(columns) - wanted
    if not columns or more <= 0:
        return ""
    if more == 1 and "" in columns:
        place = list(columns).index("")
        return f"column {place} has no name, as a saved index has none: add ':id={place}'"
    return (
        f"the table has {more} more column{'s' * (more > 1)}: name the inputs with ':columns=A,B', "
        f"or what is none with ':label=C' or ':id=D' (the first is '{columns[0]}')"
    )


def _remedy(shape: Shape, input_shape: Shape) -> str:
    stored, wanted = plane(shape), _wanted_plane(shape, input_shape)
    if stored is None or wanted is None:
        return "choose data of the model's shape with --data, or reshape them before"
    if _channels(shape) != _channels(input_shape) and len(_squeezed(input_shape)) > 1:
        have, need = _channels(shape), _channels(input_shape)
        return f"the images have {have} channels and the model takes {need}: convert them before"
    height, width = wanted
    size = str(height) if height == width else f"{height}x{width}"
    if stored[0] <= height and stored[1] <= width:
        return f"pad the images with --pad {size} if the training did, or take --resize {size}"
    return f"resize the images with --resize {size}"


def _wanted_plane(shape: Shape, input_shape: Shape) -> tuple[int, int] | None:
    """Height and width the model wants; of a flat model those of a square image, if one fits."""
    if len(_squeezed(input_shape)) > 1:
        return plane(input_shape)
    pixels, rest = divmod(math.prod(input_shape), _channels(shape))
    side = math.isqrt(pixels)
    return (side, side) if rest == 0 and side * side == pixels and side > 1 else None


def resized_shape(
    shape: Shape, resize: int | Sequence[int], input_shape: Shape | None = None
) -> Shape:
    """Return the shape of images of a shape, once resized.

    Args:
        shape: of one image as stored.
        resize: height and width (one number: both).
        input_shape: that a model takes, for the message.

    Raises:
        OptionError: when the size to resize to is none.
        DataError: when the shape is no image's.
    """
    height, width = (resize, resize) if isinstance(resize, int) else resize
    if min(height, width) < 1:
        raise OptionError(f"--resize needs a height and width of at least 1; found {resize}")
    if plane(shape) is None:
        raise DataError(
            f"--resize needs images, and a sample has shape {shape}; leave it out, "
            f"or choose {'images' if input_shape is None else f'data of shape {input_shape}'}"
        )
    return with_plane(shape, (height, width))


def with_plane(shape: Shape, size: tuple[int, int]) -> Shape:
    """Return the shape of an image once it has another height and width.

    Args:
        shape: of one image as stored.
        size: height and width.
    """
    if len(shape) == 2:
        return size
    return (*size, shape[2]) if _channel_axis(shape) == 2 else (shape[0], *size)


def resizer(shape: Shape, resized: Shape) -> Callable[[Tensor], Tensor]:
    """Resize bilinearly as Pillow and torchvision do: centres aligned, smoothed when shrinking.

    Args:
        shape: of one image.
        resized: of one image once resized.

    Returns:
        A function of images, ``(B, *shape) -> (B, *resized)``.
    """
    last = len(shape) == 3 and _channel_axis(shape) == 2

    def apply(x: Tensor) -> Tensor:
        from torch.nn.functional import interpolate

        images = x.movedim(-1, 1) if last else x.reshape(len(x), -1, *shape[-2:])
        size = plane(resized)
        images = interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
        return images.movedim(1, -1) if last else images.reshape(len(x), *resized)

    return apply


def _to(shape: Shape) -> Callable[[Tensor], Tensor]:
    return lambda x: x.reshape(len(x), *shape)


def _squeezed(shape: Shape) -> Shape:
    return tuple(length for length in shape if length != 1)


def _channel_axis(shape: Shape) -> int:
    """Channel axis of an image of three axes: the first, unless only the last is short."""
    return 2 if shape[2] <= 4 < shape[0] else 0


def _channels(shape: Shape) -> int:
    return shape[_channel_axis(shape)] if len(shape) == 3 else 1


def plane(shape: Shape) -> tuple[int, int] | None:
    """Return height and width of an image, None when the shape is no image's."""
    if len(shape) not in {2, 3}:
        return None
    height, width = shape if len(shape) == 2 else np.delete(shape, _channel_axis(shape)).tolist()
    return height, width


def _size(shape: Shape) -> str:
    height, width = plane(shape) or (0, 0)
    return f"{height}x{width}"
