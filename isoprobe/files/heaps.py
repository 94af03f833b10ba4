"""Check texts of any length in an HDF5 file before HDF5 goes to fetch them.

Such a text is stored as its length, the address of a heap and a number in it. HDF5 takes memory for
the length before it looks into the heap, and goes round for ever in a heap that is damaged.
"""

from __future__ import annotations

import struct
import zlib
from mmap import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.errors import FileError
from isoprobe.files.meter import FACTOR, Meter

if TYPE_CHECKING:
    import h5py

#: how a heap of objects of any length begins
_HEAP = b"GCOL\x01\0\0\0"
#: how a text is stored: its length, the address of its heap, its number there
_TEXT = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
#: from this size on no length of four bytes is out of proportion to a file
_LARGE = (1 << 32) // FACTOR
#: filters that this module takes off itself, by HDF5's numbers
_DEFLATE, _SHUFFLE = 1, 2


def check_heaps(data: bytes | mmap, meter: Meter, base: int = 0) -> None:
    """Refuse a file whose heaps, or what stands for texts in them, are damaged.

    Args:
        data: the file's bytes.
        meter: of the file.
        base: where its addresses begin.

    Raises:
        FileError: for a heap that holds an object without a length or beyond its end, and for a
            text of a length out of proportion.
    """
    heaps: dict[int, set[int]] = {}
    start = data.find(_HEAP)
    while start >= 0:
        heaps[start - base] = set(_numbers(data, start, meter.where))
        start = data.find(_HEAP, start + 8)
    if heaps and len(data) < _LARGE:
        _check_lengths(data[:], heaps, meter)


def _numbers(data: bytes | mmap, start: int, where: str) -> list[int]:
    """Numbers of the objects in a heap."""
    (size,) = struct.unpack("<Q", data[start + 8 : start + 16].ljust(8, b"\0"))
    end, place, found = min(start + size, len(data)), start + 16, []
    while place + 16 <= end:
        number, _, length = struct.unpack("<HH4xQ", data[place : place + 16])
        step = length if number == 0 else 16 + length + -length % 8
        if step < 16 or place + step > end:
            raise FileError(f"{where}: its heap of texts is damaged; fetch it again")
        found.append(number)
        place += step
    return found


def _check_lengths(data: bytes, heaps: dict[int, set[int]], meter: Meter) -> None:
    """Look for the address of a heap at every byte; what stands around it is a text's record."""
    octets = np.frombuffer(data, np.uint8)
    addresses = np.array(sorted(heaps), np.uint64)
    for shift in range(8):
        count = (len(octets) - shift) // 8
        words = octets[shift : shift + 8 * count].view("<u8")
        for place in (np.flatnonzero(np.isin(words, addresses)) * 8 + shift - 4).tolist():
            record = octets[place : place + _TEXT.itemsize].tobytes() if place >= 0 else b""
            if len(record) < _TEXT.itemsize:
                continue
            length, heap, number = struct.unpack("<IQI", record)
            if number in heaps[heap]:
                meter.check(length, "a text")


def check_packed(data: h5py.Dataset, meter: Meter) -> None:
    """Refuse a data set of texts whose lengths, which its filters hide, are out of proportion.

    Args:
        data: in chunks.
        meter: of its file.

    Raises:
        FileError: for such a length, and for a filter that hides it from this module too.
    """
    settings = data.id.get_create_plist()
    filters = [settings.get_filter(k)[0] for k in range(settings.get_nfilters())]
    if not filters or meter.size >= _LARGE:
        return
    if not {_DEFLATE, _SHUFFLE}.issuperset(filters):
        raise FileError(f"{meter.where}: {data.name} has texts behind filters that are not read")
    size = int(np.prod(data.chunks)) * _TEXT.itemsize
    meter.check(size, str(data.name))
    chunks: list[tuple[Any, int]] = []
    data.id.chunk_iter(lambda chunk: chunks.append((chunk.chunk_offset, chunk.filter_mask)))
    for offset, mask in chunks:
        raw = data.id.read_direct_chunk(offset)[1]
        for place in reversed(range(len(filters))):
            if not mask >> place & 1:
                raw = _without(filters[place], raw, size)
        records = np.frombuffer(raw[: len(raw) // _TEXT.itemsize * _TEXT.itemsize], _TEXT)
        meter.check(int(records["length"].max(initial=0)), "a text")


def _without(number: int, raw: bytes, size: int) -> bytes:
    """Take a filter off a chunk of so many bytes."""
    if number == _DEFLATE:
        try:
            return zlib.decompressobj().decompress(raw, size)
        except zlib.error as error:
            raise ValueError(f"a chunk is no deflated data: {error}") from error
    whole = np.frombuffer(raw[: len(raw) // _TEXT.itemsize * _TEXT.itemsize], np.uint8)
    return whole.reshape(_TEXT.itemsize, -1).T.tobytes()
