"""Open Zarr stores: ``FOLDER.zarr`` or ``FOLDER.zarr:/DATA[,/LABELS ...]``, of version 2 or 3.

The description of an array names the codecs of its chunks, and some run what they find (pickle), so
that those known to hold numbers alone are listed here. Chunks are unpacked into as many bytes as
the description says, and never more.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import zlib
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
import numpy as np

from isoprobe.contracts import Dataset, DataSource
from isoprobe.data.files import BLOCKS, fingerprint, short_digest, split_spec
from isoprobe.errors import DataError
from isoprobe.files.documents import parse_json
from isoprobe.files.meter import OBJECT, Meter
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.data.arrays import open_chosen

if TYPE_CHECKING:
    from isoprobe.contracts import VAE

#: what describes a node, by version
V2, V3 = ".zarray", "zarr.json"
#: longest description
_LONGEST = 1 << 20
#: deepest group, and axes of an array
_DEPTH, _AXES = 16, 32
#: codecs that numcodecs takes off, into memory that is lent to it
_LENT = {"blosc", "zstd", "lz4"}
#: numbers as version 2 names them
_NUMBERS = re.compile(r"\|b1|[|<>][iu]1|[<>](?:[iu][248]|f[248])")
#: numbers as version 3 names them, which numpy does too
_TYPES = {
    "bool", "float16", "float32", "float64",
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}  # fmt: skip
#: streams of zlib, and how each begins for :func:`zlib.decompressobj`
_DEFLATED = {"zlib": zlib.MAX_WBITS, "gzip": zlib.MAX_WBITS | 16}


class _Named(msgspec.Struct):
    """A part of a description of version 3."""

    name: str
    configuration: dict[str, Any] = {}


class _Bytes(msgspec.Struct):
    """How version 3 writes numbers."""

    endian: Literal["little", "big"] = "little"


class _Keys(msgspec.Struct):
    """What version 3 puts between the numbers of a chunk in its name."""

    separator: Literal[".", "/"] | None = None


class _Second(msgspec.Struct):
    """Description of an array of version 2."""

    zarr_format: Literal[2]
    shape: list[int]
    chunks: list[int]
    dtype: str
    order: Literal["C", "F"] = "C"
    compressor: dict[str, Any] | None = None
    filters: list[dict[str, Any]] | None = None
    dimension_separator: Literal[".", "/"] = "."


class _Third(msgspec.Struct):
    """Description of an array of version 3."""

    zarr_format: Literal[3]
    node_type: str
    shape: list[int]
    data_type: str | dict[str, Any]
    chunk_grid: _Named
    chunk_key_encoding: _Named
    codecs: list[_Named]
    storage_transformers: list[Any] = []


class _Form(msgspec.Struct, frozen=True):
    """What is to be known of an array, whatever the version.

    Attributes:
        shape: of the whole.
        chunk: shape of a chunk.
        dtype: as stored.
        columns: chunks are stored column by column.
        codec: takes off what packs a chunk; None where nothing does.
        prefix: stands before the numbers of a chunk in its name.
        separator: stands between them.
    """

    shape: tuple[int, ...]
    chunk: tuple[int, ...]
    dtype: str
    columns: bool
    codec: str | None
    prefix: str
    separator: str


class ZarrSource(DataSource):
    """Folders of chunks as zarr writes them; no codec that runs what it finds."""

    name: ClassVar[str] = "zarr"
    summary: ClassVar[str] = (
        "zarr stores, FOLDER.zarr or FOLDER.zarr:/DATA, with labels FOLDER.zarr:/DATA,/LABELS"
    )

    def matches(self, spec: str) -> bool:
        """Return True for a folder that a description of zarr lies in."""
        path, _ = split_spec(spec)
        return is_zarr(path)

    def open(self, spec: str, vae: VAE | None = None) -> Dataset:
        """Return the array opened, with its labels if named.

        Raises:
            DataError: when it is damaged, has no such array, or is packed by another codec.
        """
        path, member = split_spec(spec)
        arrays = dict(_arrays(path, "", _DEPTH))
        if list(arrays) == [""]:
            arrays = {path.stem: path}
        return open_chosen(
            path,
            member,
            list(arrays),
            lambda name: ZarrRows(arrays[name], f"{path}:/{name}"),
            lambda chosen: _fingerprint([arrays[name] for name in chosen]),
        )


def is_zarr(path: Path) -> bool:
    """Return True for a folder in which zarr describes an array or a group."""
    return path.is_dir() and any((path / name).is_file() for name in (V2, V3, ".zgroup"))


class ZarrRows:
    """Rows of an array in chunks; those of one row of chunks are held.

    Args:
        folder: of the array.
        what: what is read, for error messages.

    Raises:
        DataError: when it holds no numbers, is packed by a codec that is not read, or lacks chunks.
    """

    def __init__(self, folder: Path, what: str) -> None:
        self._folder, self._what = folder, what
        self.notes: tuple[str, ...] = ()
        self._form = _form_of(folder, what)
        self.shape = self._form.shape
        self.dtype = np.dtype(self._form.dtype)
        sizes = dict(_files(folder, what))
        grid = [-(-n // c) for n, c in zip(self.shape, self._form.chunk, strict=True)]
        count = math.prod(grid)
        if count > len(sizes) or any(name not in sizes for name in self._names(*map(range, grid))):
            raise DataError(f"{what} lacks some of its {count:,} chunks; write it whole")
        self._meter = Meter(what, sum(sizes.values()))
        across = math.prod(n * c for n, c in zip(grid[1:], self._form.chunk[1:], strict=True))
        held = self._form.chunk[0] * across * self.dtype.itemsize if self.shape else 0
        self._meter.check(held + OBJECT * count, "a row of its chunks")
        self._grid = grid
        self._held: tuple[int, np.ndarray] = (-1, np.empty(0))

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return rows at ascending indices, ``(len(indices), *shape[1:])``.

        Raises:
            DataError: when a chunk is damaged.
        """
        places = indices // self._form.chunk[0]
        found = [
            self._row_of_chunks(int(place))[indices[places == place] % self._form.chunk[0]]
            for place in np.unique(places)
        ]
        empty = np.empty((0, *self.shape[1:]), self.dtype)
        return np.concatenate(found) if found else empty

    def close(self) -> None:
        """Let the chunks go."""
        self._held = (-1, np.empty(0))

    def _row_of_chunks(self, place: int) -> np.ndarray:
        if self._held[0] != place:
            chunk = self._form.chunk
            wide = [n * c for n, c in zip(self._grid[1:], chunk[1:], strict=True)]
            rows = np.empty((chunk[0], *wide), self.dtype)
            for at in product(*map(range, self._grid[1:])):
                cut = [slice(k * c, (k + 1) * c) for k, c in zip(at, chunk[1:], strict=True)]
                rows[(slice(None), *cut)] = self._chunk((place, *at))
            self._held = (place, rows[(slice(None), *(slice(n) for n in self.shape[1:]))])
        return self._held[1]

    def _names(self, *ranges: range) -> Iterator[str]:
        """Names of chunks, as paths below the folder."""
        form = self._form
        for at in product(*ranges):
            parts = [form.prefix, *map(str, at)] if form.prefix else [*map(str, at)]
            yield form.separator.join(parts)

    def _chunk(self, at: tuple[int, ...]) -> np.ndarray:
        (name,) = self._names(*(range(k, k + 1) for k in at))
        size = math.prod(self._form.chunk) * self.dtype.itemsize
        try:
            raw = _unpacked((self._folder / name).read_bytes(), self._form.codec, size)
        except (OSError, ValueError, RuntimeError, zlib.error) as error:
            said = " ".join(str(error).split())
            raise DataError(f"{self._what}: chunk {name} is damaged ({said})") from error
        if len(raw) != size:
            found = len(raw) or "fewer"
            raise DataError(
                f"{self._what}: chunk {name} has {found} bytes, expected {size}; fetch it again"
            )
        flat = np.frombuffer(raw, self.dtype)
        if self._form.columns:
            return flat.reshape(self._form.chunk[::-1]).T
        return flat.reshape(self._form.chunk)


def _unpacked(raw: bytes, codec: str | None, size: int) -> bytes | np.ndarray:
    """Take off what packs a chunk of so many bytes; a byte more tells that there are too many."""
    if codec is None:
        return raw
    if codec in _DEFLATED:
        return zlib.decompressobj(_DEFLATED[codec]).decompress(raw, size + 1)
    try:
        from numcodecs.registry import get_codec
    except ImportError as error:
        raise DataError(
            f"chunks packed by {codec} need numcodecs: pip install 'isoprobe[zarr]'"
        ) from error
    unpack = get_codec({"id": codec})
    # a chunk that is too short leaves the end of what was lent as it was, whatever that was
    for filled in (0xA5, 0x5A):
        lent = np.full(size, filled, np.uint8)
        unpack.decode(raw, out=lent)
        if not size or lent[-1] != filled:
            return lent
    return b""


# --------------------------------------------------------------------------- descriptions


def _arrays(folder: Path, name: str, depth: int) -> Iterator[tuple[str, Path]]:
    """Yield every array in and below a folder, by the path of its group."""
    if _is_array(folder):
        yield name, folder
        return
    if depth == 0:
        raise DataError(f"{folder} lies in over {_DEPTH} groups; expected fewer")
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.is_symlink() and not child.name.startswith("."):
            yield from _arrays(child, f"{name}/{child.name}".lstrip("/"), depth - 1)


def _is_array(folder: Path) -> bool:
    if (folder / V2).is_file():
        return True
    third = folder / V3
    return third.is_file() and _parsed(third).get("node_type") == "array"


def _parsed(path: Path) -> dict[str, Any]:
    if path.is_symlink():
        raise DataError(f"{path} is a link, which is not followed; expected a file of its own")
    with path.open("rb") as stream:
        text = stream.read(_LONGEST + 1)
    if len(text) > _LONGEST:
        raise DataError(f"{path} is longer than the {_LONGEST} bytes a description may have")
    found = parse_json(text, str(path))
    if not isinstance(found, dict):
        raise DataError(f"{path} describes nothing; expected the description of an array")
    return found


def _form_of(folder: Path, what: str) -> _Form:
    path = folder / V2 if (folder / V2).is_file() else folder / V3
    if path.name == V2 and (folder / V3).is_file():
        raise DataError(f"{what} is described twice, by {V2} and by {V3}; remove one of them")
    try:
        form = (_second if path.name == V2 else _third)(_parsed(path), what)
    except msgspec.ValidationError as error:
        raise DataError(f"{path} is no description of an array: {error}") from error
    lengths = [*form.shape, *form.chunk]
    if len(form.shape) != len(form.chunk) or len(form.shape) > _AXES:
        raise DataError(f"{what} has shape {form.shape} and chunks {form.chunk}; expected as many")
    if any(n < 0 or n >> 48 for n in lengths) or 0 in form.chunk:
        raise DataError(f"{what} declares the impossible shape {form.shape} in {form.chunk}")
    return form


def _second(found: dict[str, Any], what: str) -> _Form:
    told = msgspec.convert(found, _Second)
    if told.filters:
        raise _unread(what, str(told.filters[0].get("id")))
    if not _NUMBERS.fullmatch(told.dtype):
        raise DataError(f"{what} has type {told.dtype[:40]!r}; expected an array of numbers")
    codec = None if told.compressor is None else str(told.compressor.get("id"))
    return _Form(
        tuple(told.shape),
        tuple(told.chunks),
        told.dtype,
        told.order == "F",
        _known(codec, what),
        "",
        told.dimension_separator,
    )


def _third(found: dict[str, Any], what: str) -> _Form:
    told = msgspec.convert(found, _Third)
    if str(told.data_type) not in _TYPES or told.chunk_grid.name != "regular":
        said = str(told.data_type)[:40]
        raise DataError(f"{what} has type {said!r}; expected numbers in a regular grid")
    chunk = msgspec.convert(told.chunk_grid.configuration.get("chunk_shape"), list[int])
    big, packing = False, None
    for place, codec in enumerate(told.codecs):
        if codec.name == "bytes" and place == 0:
            big = msgspec.convert(codec.configuration, _Bytes).endian == "big"
        elif packing is None and place == 1:
            packing = _known(codec.name, what)
        else:
            raise _unread(what, codec.name)
    known = told.chunk_key_encoding.name == "default"
    keys = msgspec.convert(told.chunk_key_encoding.configuration, _Keys)
    if told.chunk_key_encoding.name not in {"default", "v2"} or told.storage_transformers:
        raise DataError(f"{what} keeps its chunks in a way that is not read")
    return _Form(
        tuple(told.shape),
        tuple(chunk),
        np.dtype(str(told.data_type)).newbyteorder(">" if big else "<").str,
        columns=False,
        codec=packing,
        prefix="c" if known else "",
        separator=keys.separator or ("/" if known else "."),
    )


def _known(codec: str | None, what: str) -> str | None:
    if codec is not None and codec not in _LENT | _DEFLATED.keys():
        raise _unread(what, codec)
    return codec


def _unread(what: str, codec: str) -> DataError:
    known = ", ".join(sorted(_LENT | _DEFLATED.keys()))
    return DataError(
        f"{what} is packed by codec '{codec}', which is not read; write it with one of {known}, or "
        "none, and without filters or shards"
    )


# --------------------------------------------------------------------------- files


def _files(folder: Path, what: str) -> Iterator[tuple[str, int]]:
    """Yield every file below a folder with its size; a link or a pipe is no chunk."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        here = Path(place).relative_to(folder)
        for name in sorted(names):
            path = Path(place) / name
            if path.is_symlink() or not path.is_file():
                raise DataError(f"{what}: {here / name} is no file of its own; it is not read")
            yield (here / name).as_posix(), path.stat().st_size


def _fingerprint(folders: Sequence[Path]) -> str:
    """Hash of names, sizes and sampled blocks of the files of arrays, fewer of each the more."""
    digest = hashlib.sha256()
    for folder in folders:
        names = [name for name, _ in _files(folder, str(folder))]
        blocks = max(2, BLOCKS // max(len(names), 1))
        for name in names:
            told = (folder.name, name, fingerprint(folder / name, blocks=blocks))
            digest.update(repr(told).encode())
    return short_digest(digest.digest())


@hookimpl
def isoprobe_data_sources() -> Sequence[type[DataSource]]:
    """Return the source of zarr stores."""
    return [ZarrSource]
