"""Read Thrift's compact protocol, in which Parquet files say what lies where in them.

Libraries in C take memory for a list by the length that it claims. Here each list is counted before
it is walked through, so that a file whose lists are sound may be handed on to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, Union

from isoprobe.errors import FileError

if TYPE_CHECKING:
    from isoprobe.files.meter import Meter

#: types of fields, by the protocol's numbers
I32, I64, BINARY = 5, 6, 8
_TRUE, _FALSE, _BYTE, _I16, _DOUBLE, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 4, 7, 9, 10, 11, 12
#: bits of whole numbers
_BITS = {_BYTE: 8, _I16: 16, I32: 32, I64: 64}
#: about what an element of a list takes once a library has built it: a structure, and all else
_BUILT = {_STRUCT: 1024}
_BUILT_SMALL = 32
#: structures inside each other, at most
_DEPTH = 32

#: what is asked of a structure: by a field's number its type, a structure of its own, or, in a
#: tuple, what a list of it holds
Form = Mapping[int, Union[int, "Form", "tuple[int | Form]"]]


class Compact:
    """What lies in some bytes, read from their start.

    Args:
        data: the bytes.
        meter: of the file that they are from; every list is charged.
    """

    def __init__(self, data: bytes, meter: Meter) -> None:
        self._data, self._meter = data, meter
        self._depth = 0
        #: where the next value begins
        self.place = 0

    def read(self, form: Form) -> dict[int, Any]:
        """Return the fields of a structure that are asked for and there.

        Args:
            form: what is asked.

        Raises:
            EOFError: when the bytes end before it does.
            FileError: when it is damaged, or out of proportion to the file.
        """
        try:
            return self._struct(form)
        except IndexError:
            raise EOFError from None

    def _struct(self, form: Form) -> dict[int, Any]:
        self._depth += 1
        if self._depth > _DEPTH:
            self._damaged("is nested too deeply")
        found: dict[int, Any] = {}
        number = 0
        while head := self._data[self.place]:
            self.place += 1
            step, kind = head >> 4, head & 15
            number = number + step if step else self._integer(_I16)
            if not 0 < number < 1 << 15:
                self._damaged(f"has a field {number}")
            wanted = form.get(number)
            if wanted is None:
                self._skip(kind, field=True)
                continue
            if number in found:
                self._damaged(f"has field {number} twice")
            found[number] = self._wanted(kind, wanted)
        self.place += 1
        self._depth -= 1
        return found

    def _wanted(self, kind: int, wanted: Any) -> Any:
        """Return a value of the type that is asked for; readers differ over one of another type."""
        if isinstance(wanted, tuple):
            count, inner = self._list(kind)
            return [self._wanted(inner, wanted[0]) for _ in range(count)]
        if kind != (wanted if isinstance(wanted, int) else _STRUCT):
            self._damaged("has a field of another type than its own")
        if kind == _STRUCT:
            return self._struct(wanted)
        return self._bytes() if kind == BINARY else self._integer(kind)

    def _skip(self, kind: int, *, field: bool) -> None:
        if kind in (_TRUE, _FALSE):
            self.place += not field  # that of a field stands in its type
        elif kind in _BITS and kind != _BYTE:
            self._varint()
        elif kind == _BYTE:
            self.place += 1
        elif kind == _DOUBLE:
            self.place += 8
        elif kind == BINARY:
            self._bytes()
        elif kind in (_LIST, _SET):
            count, inner = self._list(kind)
            for _ in range(count):
                self._skip(inner, field=False)
        elif kind == _MAP:
            self._skip_map()
        elif kind == _STRUCT:
            self._struct({})
        else:
            self._damaged(f"has a field of type {kind}")

    def _skip_map(self) -> None:
        count = self._varint()
        if not count:
            return
        kinds = self._data[self.place]
        self.place += 1
        self._count(count, kinds & 15)
        for _ in range(count):
            self._skip(kinds >> 4, field=False)
            self._skip(kinds & 15, field=False)

    def _list(self, kind: int) -> tuple[int, int]:
        """Return the length of a list and the type of what it holds."""
        if kind not in (_LIST, _SET):
            self._damaged("has no list where one belongs")
        head = self._data[self.place]
        self.place += 1
        count = head >> 4 if head >> 4 < 15 else self._varint()
        self._count(count, head & 15)
        return count, head & 15

    def _count(self, count: int, kind: int) -> None:
        """Charge elements of a list, each of which takes a byte at least."""
        if count > self._meter.size:
            self._damaged(f"claims a list of {count}")
        self._meter.charge(count * _BUILT.get(kind, _BUILT_SMALL), "what it says of itself")
        if count > len(self._data) - self.place:
            raise IndexError

    def _bytes(self) -> bytes:
        length = self._varint()
        if length > self._meter.size:
            self._damaged(f"claims a text of {length} bytes")
        start, self.place = self.place, self.place + length
        if self.place > len(self._data):
            raise IndexError
        return self._data[start : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._data[self.place]
            self.place += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                self._damaged("has a number without end")

    def _integer(self, kind: int) -> int:
        """Return a whole number, whose sign is its last bit."""
        folded = self._varint()
        if folded >> _BITS[kind]:
            self._damaged(f"has a number of more than {_BITS[kind]} bits")
        return folded >> 1 ^ -(folded & 1)

    def _damaged(self, how: str) -> NoReturn:
        raise FileError(f"{self._meter.where} is damaged: what it says of itself {how}")
