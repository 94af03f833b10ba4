"""Open images of one size: a folder, searched recursively, or a zip archive, never unpacked."""

from __future__ import annotations

import hashlib
import io
import math
import os
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from isoprobe.contracts import Dataset, DataSource
from isoprobe.data.files import check_file, first_bytes, short_digest, split_spec
from isoprobe.data.fitting import resizer
from isoprobe.errors import DataError, FileError
from isoprobe.files.archives import Archive, member_names
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.data.parts import holds_parquet
from isoprobe_plugins.data.zarr import is_zarr

if TYPE_CHECKING:
    from PIL.Image import Image

    from isoprobe.contracts import VAE

SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm"}
)
#: decoders that run no other program, as Pillow's for PostScript does
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")
MAX_PIXELS = 1 << 26
MAX_FILE_BYTES = 1 << 26
#: decoded images that are kept
KEPT_BYTES = 1 << 24
GREY_MODES = frozenset({"1", "L", "LA"})
#: grey of 16 bits
DEEP_MODES = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
COLOUR_MODES = frozenset({"RGB", "RGBA", "P", "PA", "CMYK", "YCbCr"})


class ImageSource(DataSource):
    """Folders and zip archives of images."""

    name: ClassVar[str] = "images"
    summary: ClassVar[str] = "images of one size, a FOLDER (with those below it) or FILE.zip"

    def matches(self, spec: str) -> bool:
        """Return True for a folder, and for a zip archive that holds an image."""
        path, member = split_spec(spec)
        if member is not None:
            return False
        other = holds_parquet(path) or is_zarr(path)
        return (path.is_dir() and not other) or _holds_images(path)

    def open(self, spec: str, vae: VAE | None = None) -> Dataset:
        """Return it opened; decodes the first image only.

        Raises:
            DataError: when there are no images, or the first cannot be read.
        """
        path, _ = split_spec(spec)
        # without a model to say otherwise images are what the file says
        colours = vae is None or _takes_colours(tuple(vae.input_shape))
        if path.is_dir():
            return ImageDataset(path.name or str(path), _Folder(path), colours=colours)
        check_file(path)
        return ImageDataset(path.name, _Archive(path), colours=colours)


class _Files(Protocol):
    names: list[str]

    def read(self, number: int) -> bytes: ...

    def digest(self) -> bytes: ...

    def close(self) -> None: ...


class ImageDataset(Dataset):
    """Images in the order of their names, bytes, grey ``(H, W)`` or colour ``(3, H, W)``.

    Grey stored in three equal channels or in a palette is grey. Sixteen bits are read as 0..65535,
    and come in the range of bytes.

    Args:
        name: name for summaries.
        files: the encoded images.
        colours: what is grey in three channels stays so, as a model of colours takes it.

    Raises:
        DataError: when the first image cannot be read.
    """

    dtype = "uint8"

    def __init__(self, name: str, files: _Files, *, colours: bool = False) -> None:
        self.name, self._files = name, files
        self._target: tuple[int, int] | None = None
        self._notes: list[str] = []
        try:
            with self._open(0) as image:
                width, height = image.size
                self._grey = image.mode in GREY_MODES | DEEP_MODES
                if image.mode in DEEP_MODES:
                    self._notes.append("pixels of 16 bits read as 0..65535")
            self._first = (height, width)
            if not self._grey and not colours and all(map(self._looks_grey, self._a_few())):
                self._grey = True
                self._notes.append("images hold grey in three equal channels, read as one")
        except DataError:
            files.close()
            raise
        self.resized(None)

    def resized(self, size: tuple[int, int] | None) -> bool:
        """Bring images to a height and width, each from its own; with None they are of one size."""
        self._target = size
        plane = self._first if size is None else size
        self.shape = plane if self._grey else (3, *plane)
        # checks, pilot and trials look at the same rows, and decoding is dear
        each = math.prod(self.shape) * (1 if size is None else 8)
        self._kept = lru_cache(max(KEPT_BYTES // each, 1))(self._pixels)
        which = "images" if size != self._first else "images of another size"
        more = [] if size is None else [f"{which} resized to {size[0]}x{size[1]}"]
        self.notes = (*self._notes, *more)
        return size is not None

    def _a_few(self) -> list[int]:
        """Numbers of the first image, one in the middle and the last."""
        last = len(self._files.names) - 1
        return sorted({0, last // 2, last})

    def _looks_grey(self, number: int) -> bool:
        with self._open(number) as image:
            return image.mode in GREY_MODES | DEEP_MODES or _equal(self._decoded(image, number))

    def __len__(self) -> int:
        return len(self._files.names)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images at the indices, ``(len(indices), *shape)``; uint8, or floats of that range."""
        return np.stack([self._kept(int(number)) for number in indices])

    def fingerprint(self) -> str:
        """Hash of every name and size, with checksums (zip) or sampled content (folder)."""
        return short_digest(self._files.digest())

    def close(self) -> None:
        """Close the archive."""
        self._files.close()

    def _open(self, number: int) -> Image:
        """Open an image without decoding it; refuse what decodes to too much."""
        from PIL import Image, UnidentifiedImageError

        where = f"image {self._files.names[number]} of {self.name}"
        data = self._files.read(number)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                image = Image.open(io.BytesIO(data), formats=FORMATS)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise DataError(f"{where} is far too large to be a sample ({error})") from error
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
            raise DataError(
                f"{where} is no image that can be read; remove or replace it"
            ) from error
        if image.width * image.height > MAX_PIXELS:
            raise DataError(f"{where} has {image.width}x{image.height} pixels; too large")
        if image.mode not in GREY_MODES | DEEP_MODES | COLOUR_MODES:
            raise DataError(
                f"{where} has pixels of type {image.mode}, not bytes; store such images as .npy"
            )
        return image

    def _pixels(self, number: int) -> np.ndarray:
        with self._open(number) as image:
            where = f"image {self._files.names[number]} of {self.name}"
            if self._target is None and (image.height, image.width) != self._first:
                raise DataError(
                    f"{where} is {image.height}x{image.width} and the first is "
                    f"{self._first[0]}x{self._first[1]}; expected one size: add --resize "
                    "HEIGHTxWIDTH"
                )
            deep = image.mode in DEEP_MODES
            pixels = self._decoded(image, number)
        if self._grey and pixels.ndim == 3:
            if not _equal(pixels):
                raise DataError(
                    f"{where} has colours and the first is grey; convert them to one kind before"
                )
            pixels = pixels[0]
        elif not self._grey and pixels.ndim == 2:
            if deep:
                raise DataError(
                    f"{where} has grey of 16 bits and the first colours; convert them to one kind "
                    "before"
                )
            pixels = np.repeat(pixels[None], 3, 0)
        return pixels if self._target is None else _resized(pixels, self._target)

    def _decoded(self, image: Image, number: int) -> np.ndarray:
        try:
            return _decode(image)
        except (OSError, ValueError, SyntaxError, EOFError) as error:
            where = f"image {self._files.names[number]} of {self.name}"
            raise DataError(f"{where} is damaged ({error}); remove or replace it") from error


class _Folder:
    """Image files below a folder; links may lead to files inside it only."""

    def __init__(self, folder: Path) -> None:
        self._root = folder
        self.names = _names_below(folder)
        if not self.names:
            raise DataError(
                f"folder {folder} holds no images ({', '.join(sorted(SUFFIXES))}), expected at "
                "least one"
            )

    def read(self, number: int) -> bytes:
        path = self._root / self.names[number]
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise DataError(f"{path} is far too large to be an image of a data set")
            return path.read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror}") from error

    def digest(self) -> bytes:
        """Hash names and sizes of all files, and the content of 64 spaced evenly."""
        digest = hashlib.sha256()
        count = len(self.names)
        sampled = {i * count // 64 for i in range(64)} if count > 64 else set(range(count))
        for number, name in enumerate(self.names):
            digest.update(f"{name}\0{(self._root / name).stat().st_size}\0".encode())
            if number in sampled:
                digest.update(hashlib.sha256(self.read(number)).digest())
        return digest.digest()

    def close(self) -> None:
        return


class _Archive:
    """Image members of a zip archive, read into memory one by one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._archive = Archive(path)
        self.names = [name for name in self._archive.names if _is_image(name)]
        if not self.names:
            self.close()
            raise DataError(f"{path} holds no images; expected a zip archive of some")

    def read(self, number: int) -> bytes:
        name = self.names[number]
        if self._archive.size_of(name) > MAX_FILE_BYTES:
            raise DataError(
                f"{self._path}: member {name} is far too large to be an image of a data set"
            )
        with self._archive.open(name) as stream:  # one at a time: none is kept, so none is counted
            return stream.read(MAX_FILE_BYTES + 1)

    def digest(self) -> bytes:
        """Hash names, sizes and checksums of all images."""
        digest = hashlib.sha256()
        for name in self.names:
            info = self._archive.members[name]
            digest.update(f"{info.filename}\0{info.file_size}\0{info.CRC}\0".encode())
        return digest.digest()

    def close(self) -> None:
        self._archive.close()


def _names_below(folder: Path) -> list[str]:
    root = folder.resolve()
    names = []
    for place, _, files in os.walk(folder):
        for file in files:
            path = Path(place, file)
            if not _is_image(path.name):
                continue
            if path.is_symlink() and not path.resolve().is_relative_to(root):
                raise DataError(f"link {path} leads out of the folder; replace it by the file")
            names.append(path.relative_to(folder).as_posix())
    return sorted(names)


def _holds_images(path: Path) -> bool:
    if not first_bytes(path, 4).startswith(b"PK"):
        return False
    try:
        return any(_is_image(name) for name in member_names(path))
    except FileError:
        return False


def _is_image(name: str) -> bool:
    path = Path(name)
    # macOS adds "._" and "__MACOSX" shadows of every file to its archives
    shadow = path.name.startswith(".") or "__MACOSX" in path.parts
    return path.suffix.lower() in SUFFIXES and not shadow


def _takes_colours(shape: tuple[int, ...]) -> bool:
    """Whether a model of inputs of this shape takes three channels, flattened or not."""
    wide = [length for length in shape if length != 1]
    if len(wide) == 1 and math.isqrt(wide[0]) ** 2 == wide[0]:
        return False
    return 3 in {wide[0], wide[-1]} if len(wide) == 3 else len(wide) == 1 and wide[0] % 3 == 0


def _equal(pixels: np.ndarray) -> bool:
    """Whether channels ``(3, H, W)`` hold the same."""
    return bool((pixels == pixels[:1]).all())


def _resized(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    import torch

    shape, wide = tuple(pixels.shape), pixels.astype(np.float64)
    if shape[-2:] == size:
        return wide
    resize = resizer(shape, (*shape[:-2], *size))
    found: np.ndarray = resize(torch.from_numpy(wide)[None])[0].numpy()
    return found


def _decode(image: Image) -> np.ndarray:
    """Decode to grey ``(H, W)`` or ``(3, H, W)``; refuse transparency, which would be lost."""
    if image.mode in DEEP_MODES:
        if "transparency" in image.info:
            raise ValueError("it is partly transparent: flatten it onto a background")
        deep: np.ndarray = np.asarray(image).astype(np.float32) / 257
        return deep
    grey = image.mode in GREY_MODES
    if image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info:
        opacity = np.asarray(image.convert("RGBA"))[..., 3]
        if opacity.min() < 255:
            raise ValueError("it is partly transparent: flatten it onto a background")
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels if grey else pixels.transpose(2, 0, 1)


@hookimpl
def isoprobe_data_sources() -> Sequence[type[DataSource]]:
    """Return the source of images."""
    return [ImageSource]
