"""Check texts of any length in an HDF5 file before HDF5 goes to fetch them.

Such a text is stored as its length, the address of a heap and a number in it. HDF5 takes memory for
the length before it looks into the heap, and goes round for ever in a heap that is damaged.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.errors import FileError
from isoprobe.files.meter import FACTOR, Meter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from mmap import mmap

    import h5py

#: how a heap of objects of any length begins, and what HDF5 does not look at behind it
_HEAP, _RESERVED = b"GCOL\x01", bytes(3)
#: bytes of the head of a heap, and of an object on it
_HEAD = 16
#: how a text is stored: its length, the address of its heap, its number there
_TEXT = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])
#: from this size on no length of four bytes is out of proportion to a file
_LARGE = (1 << 32) // FACTOR
#: bytes before an attribute's name, by the version of how it is written: lengths of name, type and
#: shape, which come in that order before the value (in version 1 each filled up to 8 bytes)
_ATTRIBUTES = {1: 8, 2: 8, 3: 9}
#: bits of an attribute, from version 2 on, whose type or shape stands elsewhere in the file
_TYPE_ELSEWHERE, _SHAPE_ELSEWHERE = 1, 2
#: how the type of texts of any length begins: class 9 in the low half, kind 1 in that of the next
_LENGTHS, _OF_TEXT = 9, 1
#: bytes before the lengths of a shape, by the version of how it is written
_SHAPES = {1: 8, 2: 4}
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
    heaps = _Heaps(data, meter, base)
    if len(data) < _LARGE:
        heaps.check_lengths()


class _Heaps:
    """The heaps of a file, and the objects on them."""

    def __init__(self, data: bytes | mmap, meter: Meter, base: int) -> None:
        self._data, self._meter = data, meter
        #: numbers of a heap's objects, by its address
        self.numbers: dict[int, set[int]] = {}
        self._starts: list[int] = []
        #: addresses of what HDF5 would take for a heap, and no library writes
        self._odd: set[int] = set()
        start = data.find(_HEAP)
        while start >= 0:
            if data[start + 5 : start + 8] == _RESERVED:
                self.numbers[start - base] = set(self._objects(start))
            else:
                self._odd.add(start - base)
            start = data.find(_HEAP, start + 8)

    def _objects(self, start: int) -> Iterator[int]:
        """Yield the numbers of the objects in a heap."""
        data = self._data
        (size,) = struct.unpack("<Q", data[start + 8 : start + 16].ljust(8, b"\0"))
        end, place = start + size, start + _HEAD
        if end > len(data):  # HDF5 takes memory for all of it before it reads
            raise FileError(f"{self._meter.where}: a heap of texts is longer than the file")
        while place + _HEAD <= end:
            number, _, length = struct.unpack("<HH4xQ", data[place : place + _HEAD])
            step = length if number == 0 else _HEAD + length + -length % 8
            if step < _HEAD or place + step > end:
                raise FileError(
                    f"{self._meter.where}: its heap of texts is damaged; fetch it again"
                )
            self._starts.append(place)
            yield number
            place += step

    def check_lengths(self) -> None:
        """Look for the address of a heap at every byte; what stands around it is a text's record.

        The end of a text and the head of the next one look like a record where the next one's
        number is a heap's address; these are passed over.

        Raises:
            FileError: for a length out of proportion, and a text on a heap that no library writes.
        """
        data = self._data[:]
        octets, starts = np.frombuffer(data, np.uint8), np.array(self._starts)
        addresses = np.array(sorted(self.numbers.keys() | self._odd), np.uint64)
        for shift in range(8):
            count = (len(octets) - shift) // 8
            words = octets[shift : shift + 8 * count].view("<u8")
            for place in (np.flatnonzero(np.isin(words, addresses)) * 8 + shift - 4).tolist():
                record = data[place : place + _TEXT.itemsize] if place >= 0 else b""
                if len(record) < _TEXT.itemsize:
                    continue
                length, heap, number = struct.unpack("<IQI", record)
                if heap in self._odd:
                    raise FileError(f"{self._meter.where}: a heap of texts is damaged")
                if number in self.numbers[heap] and not _ends_text(data, starts, place):
                    self._meter.check(length, "a text")


def _ends_text(data: bytes, starts: np.ndarray, place: int) -> bool:
    """Whether a place lies in a text on a heap, so near its end that the next head follows."""
    # only in what is text to its last byte: a record that HDF5 would read has zeros before it
    at = int(np.searchsorted(starts, place, side="right")) - 1
    if at < 0:
        return False
    start = int(starts[at])
    number, _, length = struct.unpack("<HH4xQ", data[start : start + _HEAD])
    end = start + _HEAD + length + -length % 8
    if number == 0 or not start + _HEAD <= place <= end - 4 or place + _TEXT.itemsize <= end:
        return False
    text = data[start + _HEAD : start + _HEAD + length].rstrip(b"\0")
    try:
        return "\0" not in text.decode()
    except UnicodeDecodeError:
        return False


def check_records(raw: bytes, meter: Meter) -> None:
    """Refuse bytes that stand for texts one of whose lengths is out of proportion.

    Args:
        raw: of a data set, as it is stored.
        meter: of its file.

    Raises:
        FileError: for such a length.
    """
    records = np.frombuffer(raw[: len(raw) // _TEXT.itemsize * _TEXT.itemsize], _TEXT)
    meter.check(int(records["length"].max(initial=0)), "a text")


def check_attribute(data: bytes | mmap, name: str, count: int, meter: Meter) -> None:
    """Refuse texts in attributes of a name one of whose lengths is out of proportion.

    Args:
        data: the file's bytes.
        name: of the attribute; every one of that name is looked at that holds so many texts.
        count: of the texts in it.
        meter: of the file.

    Raises:
        FileError: for such a length, and where no such attribute is written as HDF5 does.
    """
    if len(data) >= _LARGE:
        return
    text, found = name.encode() + b"\0", 0
    place = data.find(text)
    while place >= 0:
        for record in _behind_name(data, place, len(text), count):
            meter.charge(count * _TEXT.itemsize, f"attribute {name!r}")
            check_records(data[record : record + count * _TEXT.itemsize], meter)
            found += 1
        place = data.find(text, place + 1)
    if not found:
        raise FileError(f"{meter.where}: attribute {name!r} is damaged; fetch it again")


def _behind_name(data: bytes | mmap, place: int, length: int, count: int) -> Iterator[int]:
    """Yield where so many texts begin of an attribute whose name stands at a place, if one does."""
    for version, size in _ATTRIBUTES.items():
        head = data[place - size : place - size + 8] if place >= size else b""
        if len(head) < 8 or head[0] != version:
            continue
        flags, *lengths = struct.unpack("<xBHHH", head)
        if lengths[0] < length or not lengths[1] or not lengths[2]:
            continue
        steps = [n + -n % 8 if version == 1 else n for n in lengths]
        kind, shape = place + steps[0], place + steps[0] + steps[1]
        elsewhere = flags if version > 1 else 0
        texts = elsewhere & _TYPE_ELSEWHERE or _of_texts(data[kind : kind + 2])
        if texts and (elsewhere & _SHAPE_ELSEWHERE or _count(data, shape) == count):
            yield place + sum(steps)


def _of_texts(head: bytes) -> bool:
    """Whether a type that begins so is that of texts of any length."""
    return len(head) == 2 and head[0] & 15 == _LENGTHS and head[1] & 15 == _OF_TEXT


def _count(data: bytes | mmap, place: int) -> int | None:
    """Return how many values a shape at a place is of, None where there is none or no value."""
    version, rank, _, kind = data[place : place + 4].ljust(4, b"\0")
    start = place + _SHAPES.get(version, 0)
    lengths = data[start : start + 8 * rank]
    if start == place or (version == 2 and kind == 2) or len(lengths) < 8 * rank:
        return None
    return int(math.prod(struct.unpack(f"<{rank}Q", lengths)))


def check_packed(data: h5py.Dataset, meter: Meter) -> None:
    """Refuse a data set of texts in chunks whose lengths are out of proportion, filtered or not.

    Args:
        data: in chunks.
        meter: of its file.

    Raises:
        FileError: for such a length, and for a filter that hides it from this module too.
    """
    settings = data.id.get_create_plist()
    filters = [settings.get_filter(k)[0] for k in range(settings.get_nfilters())]
    if meter.size >= _LARGE:
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
        check_records(raw, meter)


def _without(number: int, raw: bytes, size: int) -> bytes:
    """Take a filter off a chunk of so many bytes."""
    if number == _DEFLATE:
        try:
            return zlib.decompressobj().decompress(raw, size)
        except zlib.error as error:
            raise ValueError(f"a chunk is no deflated data: {error}") from error
    whole = np.frombuffer(raw[: len(raw) // _TEXT.itemsize * _TEXT.itemsize], np.uint8)
    return whole.reshape(_TEXT.itemsize, -1).T.tobytes()
