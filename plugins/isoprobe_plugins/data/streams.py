"""Read rows of a numpy array from a stream, so that a pass over any file holds one batch.

Memory mapping would do for plain files, but not for compressed members of a zip archive, and mapped
pages count as memory of the process.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Iterator
from io import BufferedIOBase

import numpy as np
from numpy.lib import format as npy

from isoprobe.errors import DataError
from isoprobe.files.archives import ZIP_ERRORS
from isoprobe.files.meter import Meter

#: axes of an array, and the longest of them: more than numpy has, more than any disk holds
_AXES, _LENGTH = 32, 1 << 48
#: longest header, as numpy has it
HEADER_LIMIT = 10_000
#: how each version of the format is read, and the bytes of its header's length
_HEADERS = {(1, 0): (npy.read_array_header_1_0, 2), (2, 0): (npy.read_array_header_2_0, 4)}
#: bytes of an archive's array that are kept from its second reading on
HELD = 1 << 26
#: kinds of numbers that can be data: bool, signed, unsigned, floating
NUMERIC = "biuf"


def runs(indices: np.ndarray) -> Iterator[tuple[int, int]]:
    """Positions (begin, end) of each run of consecutive numbers in ascending indices."""
    cuts = np.flatnonzero(np.diff(indices) != 1) + 1
    edges = [0, *cuts.tolist(), len(indices)]
    return ((begin, end) for begin, end in itertools.pairwise(edges) if begin < end)


def check_numeric(dtype: np.dtype, what: str) -> None:
    """Check that an array holds numbers.

    Raises:
        DataError: for objects (pickles), text, dates, complex numbers and records.
    """
    if dtype.hasobject:
        raise DataError(
            f"{what} holds Python objects, which are not read as that would run code; "
            "expected an array of numbers: save it with a numeric dtype"
        )
    if dtype.kind not in NUMERIC:
        raise DataError(f"{what} has type {dtype}; expected an array of numbers")


class StreamedArray:
    """An array in numpy's format behind a stream.

    Args:
        stream: positioned at the start of the format; it may be compressed.
        size: bytes the stream claims to hold.
        what: what is read, for error messages.
        packed: bytes of the file it is unpacked from; as many as it claims by default.

    Attributes:
        shape: of the whole array.
        dtype: its numpy type.
        notes: what a reader should know.

    Raises:
        DataError: when it is no such array, holds no numbers, or is cut short.
    """

    def __init__(
        self, stream: BufferedIOBase, size: int, what: str, packed: int | None = None
    ) -> None:
        self._stream, self._what = stream, what
        self._member = packed is not None  # of an archive, where to go back is to start over
        self._packed = size if packed is None else packed
        self.notes: tuple[str, ...] = ()
        self._whole: np.ndarray | None = None
        try:
            self._open(size)
        except DataError:
            stream.close()
            raise

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return rows at ascending indices, ``(len(indices), *shape[1:])``.

        Raises:
            DataError: when the stream is damaged.
        """
        if self._whole is not None:
            chosen: np.ndarray = self._whole[indices]
            return chosen
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        if self._goes_back(indices, width):
            whole = np.empty(self.shape, self.dtype)
            self._fill(whole.reshape(-1).view(np.uint8), 0)
            self._whole = whole  # not before it is filled: a damaged one is refused again
            return self.read(indices)
        octets = rows.reshape(-1).view(np.uint8)
        for begin, end in runs(indices):
            self._fill(octets[begin * width : end * width], int(indices[begin]) * width)
        return rows

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def _goes_back(self, indices: np.ndarray, width: int) -> bool:
        """Whether all before these rows were unpacked anew, of an array small enough to keep."""
        held = len(indices) and self._member and self.shape[0] * width <= HELD
        return bool(held and self._stream.tell() > self._start + int(indices[0]) * width)

    def _open(self, size: int) -> None:
        self.shape, fortran, self.dtype = self._header()
        check_numeric(self.dtype, self._what)
        if len(self.shape) > _AXES or any(n > _LENGTH for n in self.shape):
            raise DataError(f"{self._what} declares the impossible shape {self.shape[:_AXES]}")
        self._start = self._stream.tell()
        expected = self._start + math.prod(self.shape) * self.dtype.itemsize
        if size < expected:
            raise DataError(
                f"{self._what} is cut short: expected {expected} bytes, found {size}; "
                "fetch it again"
            )
        if fortran and len(self.shape) > 1:
            Meter(self._what, self._packed).check(math.prod(self.shape) * self.dtype.itemsize, "it")
            self._whole = self._read_columns()
            self.notes = (f"{self._what} is stored column by column and is held in memory whole",)

    def _fill(self, octets: np.ndarray, offset: int) -> None:
        try:
            self._stream.seek(self._start + offset)
            found = self._stream.readinto(octets.data)
        except ZIP_ERRORS as error:
            raise DataError(f"{self._what} is damaged ({error}); fetch it again") from error
        if found < len(octets):
            raise DataError(f"{self._what} is cut short; fetch it again")

    def _header(self) -> tuple[tuple[int, ...], bool, np.dtype]:
        try:
            version = npy.read_magic(self._stream)
            if version not in _HEADERS:
                raise DataError(f"{self._what} has numpy format {version}; expected 1.0 or 2.0")
            read, width = _HEADERS[version]
            length = self._stream.read(width)
            if int.from_bytes(length, "little") > HEADER_LIMIT:
                raise DataError(f"{self._what} has a header of over {HEADER_LIMIT} bytes")
            text = self._stream.read(int.from_bytes(length, "little"))
            shape, fortran, dtype = read(io.BytesIO(length + text))
        # numpy parses the header as Python's literals, and fails in every way that parser does
        except DataError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else "it ends at once"
            raise DataError(f"{self._what} is no numpy array: {reason}; fetch it again") from error
        if any(length < 0 for length in shape):
            raise DataError(f"{self._what} declares the impossible shape {shape}; fetch it again")
        return shape, fortran, dtype

    def _read_columns(self) -> np.ndarray:
        """Read an array stored column by column, whose rows lie scattered over all of it."""
        flat = np.empty(math.prod(self.shape), self.dtype)
        if flat.size:
            self._fill(flat.view(np.uint8), 0)
        return flat.reshape(self.shape, order="F")
