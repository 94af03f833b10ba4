"""Read CelebA as 64 x 64 images, from the official aligned ones or from the 64 x 64 subset.

Aligned images of 178 x 218 are cropped to the 178 x 178 in their middle and resized bilinearly.
"""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from isoprobe.errors import DataError, FileError
from isoprobe.files.archives import Archive
from isoprobe_trainers.common.files import FILES, VARIABLE, locate

if TYPE_CHECKING:
    from collections.abc import Sequence

SIDE = 64
#: left, top, right, bottom of the square in the middle of an aligned image
CROP = (0.0, 20.0, 178.0, 198.0)
#: folder and list of the official distribution
ALIGNED, PARTITION = "img_align_celeba", "list_eval_partition.txt"
#: part -> number in the official list
_PARTS = {"train": "0", "validation": "1", "test": "2"}
PARTS = tuple(_PARTS)


class Faces(Protocol):
    """Images of one part, read by number."""

    ids: Sequence[str]

    def image(self, index: int) -> np.ndarray:
        """One image, ``(64, 64, 3)`` uint8."""


def faces(part: str) -> Faces:
    """Open a part of CelebA: the official images where the data folder has them, or the subset.

    Args:
        part: one of :data:`PARTS`.

    Returns:
        The images.

    Raises:
        DataError: when neither is there, or the subset's archive is damaged or has no such part.
    """
    root = Path(os.environ.get(VARIABLE) or ".")
    if os.environ.get(VARIABLE) and (root / ALIGNED).is_dir():
        return AlignedFaces(root, part)
    return SubsetFaces(locate("celeba64"), part)


class AlignedFaces:
    """The official aligned images, with the official partition.

    Args:
        root: folder that holds ``img_align_celeba`` and ``list_eval_partition.txt``.
        part: one of :data:`PARTS`.
    """

    def __init__(self, root: Path, part: str) -> None:
        self._folder = root / ALIGNED
        try:
            lines = (root / PARTITION).read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(
                f"{root / PARTITION} cannot be read ({error}); expected the official partition "
                f"beside {ALIGNED}, from {FILES['celeba64'].page}"
            ) from error
        pairs = [line.split() for line in lines if line.strip()]
        self.ids: Sequence[str] = [pair[0] for pair in pairs if pair[1:] == [_PARTS[part]]]

    def image(self, index: int) -> np.ndarray:
        """One image, cropped and resized, ``(64, 64, 3)`` uint8."""
        path = self._folder / self.ids[index]
        try:
            return _decoded(path.read_bytes(), str(path))
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error}); fetch it again") from error


class SubsetFaces:
    """The 64 x 64 subset: a zip archive with ``index.csv`` (image_id, split).

    Args:
        path: the archive.
        part: one of :data:`PARTS`.
    """

    def __init__(self, path: Path, part: str) -> None:
        self._path = path
        try:
            self._archive = Archive(path)
            text = self._archive.read("index.csv").decode("utf-8")
            rows = list(csv.DictReader(io.StringIO(text)))
            chosen = [int(row["image_id"]) for row in rows if row["split"] == part]
        except (FileError, ValueError, KeyError, TypeError, csv.Error) as error:
            raise DataError(
                f"{path} is damaged or another archive ({error}); expected "
                f"{FILES['celeba64'].holds}"
            ) from error
        if not chosen:
            raise DataError(f"{path} has no images of the part '{part}'; use train or test")
        self.ids: Sequence[str] = [f"{number:06d}.jpg" for number in sorted(chosen)]

    def image(self, index: int) -> np.ndarray:
        """One image, ``(64, 64, 3)`` uint8."""
        name = self.ids[index]
        with self._archive.open(name) as stream:
            data = stream.read()
        return _decoded(data, f"{self._path}:{name}")


def _decoded(data: bytes, name: str) -> np.ndarray:
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(data)).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise DataError(f"{name} is no whole image ({error}); fetch it again") from error
    if picture.size == (178, 218):
        picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=CROP)
    if picture.size != (SIDE, SIDE):
        raise DataError(
            f"{name} has {picture.size[0]} x {picture.size[1]} pixels; expected aligned images of "
            f"178 x 218, or {SIDE} x {SIDE}"
        )
    return np.asarray(picture)
