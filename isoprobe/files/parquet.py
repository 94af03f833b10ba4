"""Open Parquet files: sizes that a footer and the heads of pages claim are counted before Arrow.

Arrow unpacks a page by the page's own head, whatever the footer says of it, and takes memory for a
dictionary or a list by its claimed length. Both are walked through here first.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from isoprobe.errors import DataError, FileError
from isoprobe.files.closing import Closable
from isoprobe.files.meter import Meter
from isoprobe.files.thrift import BINARY, I32, I64, Compact, Form

_MAGIC, _ENCRYPTED = b"PAR1", b"PARE"
#: the length of the footer and the magic bytes
_END = struct.Struct("<I4s")
_COLUMN: Form = {2: (I32,), 5: I64, 6: I64, 7: I64, 9: I64, 11: I64}
_WAYS, _VALUES, _PACKED, _DATA, _DICTIONARY = 2, 5, 7, 9, 11
#: where another file's name, and what encrypts it, stand of a part of a column
_CHUNK: Form = {1: BINARY, 3: _COLUMN, 8: {}, 9: BINARY}
_GROUP: Form = {1: (_CHUNK,), 3: I64}
_ELEMENT: Form = {1: I32, 2: I32, 3: I32, 4: BINARY, 5: I32}
_FOOTER: Form = {2: (_ELEMENT,), 3: I64, 4: (_GROUP,), 8: {}}
#: the head of a page: its kind, its bytes unpacked and packed, and what it says of its values
_PAGE: Form = {1: I32, 2: I32, 3: I32, 5: {1: I32, 2: I32}, 7: {1: I32}, 8: {1: I32, 4: I32}}
_VALUES_OF = {0: 5, 2: 7, 3: 8}
_ENCODING_OF = {0: 2, 3: 4}
_DICTIONARY_PAGE = 2
#: stores how much of the text before a text begins with, so that many long ones take no bytes
_DELTA_BYTES = 7
#: of texts written in these ways Arrow can return the places in a dictionary
_PLACED = frozenset({0, 2, 3, 4, 8})
_BYTES, _FIXED = 6, 7
_REQUIRED, _REPEATED = 0, 2
#: tables in tables, at most: libraries go through them by recursion
_DEPTH = 32
#: bytes first read of a page's head, and the most that it may have
_HEAD, _LONGEST_HEAD = 1 << 10, 16 << 20
#: what Arrow takes for the place of a text, and at least for a number
_TEXT, _NUMBER = 16, 8


class _Leaf(NamedTuple):
    """A column that holds values: its names from the outermost table on, and its type."""

    path: tuple[str, ...]
    kind: int
    width: int
    flat: bool


class _Part(NamedTuple):
    """A column of one group: where its pages lie, how many values they have, and how written."""

    start: int
    stop: int
    values: int
    ways: frozenset[int]


class _Page(NamedTuple):
    """What the head of a page says: bytes unpacked, values, and how they are written."""

    dictionary: bool
    unpacked: int
    values: int
    encoding: int


@dataclass
class _Group:
    """Rows that are read at once."""

    rows: int
    parts: list[_Part]


class ParquetFile(Closable):
    """A Parquet file, open for reading; text comes as the places of its values in a dictionary.

    Args:
        path: the file.

    Raises:
        DataError: when it is damaged, out of proportion, or pyarrow is missing.
    """

    def __init__(self, path: Path) -> None:
        parquet = _library(path)
        self.path = path
        self.meter = Meter(path, path.stat().st_size)
        self._leaves: list[_Leaf] = []
        self._groups: list[_Group] = []
        #: columns of texts that are read as places in a dictionary, so that no text is built twice
        self._placed: set[str] = set()
        self._checked: set[tuple[int, tuple[str, ...]]] = set()
        with path.open("rb") as stream:
            self._look(stream.fileno())
        with self._blamed("is no whole Parquet file"):
            self._file = parquet.ParquetFile(
                path, page_checksum_verification=True, read_dictionary=sorted(self._placed)
            )

    @property
    def schema(self) -> Any:
        """Names and types of the columns, as Arrow has them."""
        return self._file.schema_arrow

    @property
    def rows(self) -> list[int]:
        """Numbers of rows of the groups."""
        return [group.rows for group in self._groups]

    def read(self, group: int, columns: Sequence[str]) -> Any:
        """Return columns of a group, as a table of Arrow's.

        Args:
            group: its number.
            columns: names of them.

        Raises:
            DataError: when they are damaged, or unpack to more than the file's size allows.
        """
        self._check(group, tuple(columns))
        with self._blamed("is damaged"):
            table = self._file.read_row_group(group, list(columns), use_threads=False)
            # Arrow takes the places in a dictionary as they come, also those beyond its end
            table.validate(full=True)
            table = table.unify_dictionaries()
        if table.num_rows != self._groups[group].rows:
            raise DataError(f"{self.path} is damaged: its group {group} has {table.num_rows} rows")
        return table

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    # ------------------------------------------------------------------ the footer

    def _look(self, file: int) -> None:
        """Read what the footer says, and see that it fits itself and the file."""
        size = self.meter.size
        length, magic = _END.unpack(os.pread(file, _END.size, max(size - _END.size, 0)).ljust(8))
        if magic == _ENCRYPTED:
            raise DataError(f"{self.path} is an encrypted Parquet file, which is not read")
        end = size - _END.size - length
        if magic != _MAGIC or end < len(_MAGIC):
            raise DataError(f"{self.path} is no whole Parquet file; fetch it again")
        try:
            told = Compact(os.pread(file, length, end), self.meter).read(_FOOTER)
        except EOFError:
            self._damaged("its footer is cut short")
        if 8 in told:
            raise DataError(f"{self.path} is an encrypted Parquet file, which is not read")
        self._leaves = list(self._leaves_of(told.get(2, [])))
        self._groups = [self._group(one, end) for one in told.get(4, [])]
        for place, leaf in enumerate(self._leaves):
            ways = {way for group in self._groups for way in group.parts[place].ways}
            if leaf.kind == _BYTES and leaf.flat and ways <= _PLACED:
                self._placed.add(leaf.path[0])
        packed = sum(part.stop - part.start for group in self._groups for part in group.parts)
        if packed > size:
            self._damaged("its columns lie on each other")

    def _leaves_of(self, elements: list[dict[int, Any]]) -> Iterator[_Leaf]:
        """Yield the columns with values; the schema lists each table before what is in it."""
        if not elements:
            self._damaged("it has no schema")
        open_: list[tuple[Iterator[int], tuple[str, ...]]] = [
            (iter(range(_children(elements[0]))), ())
        ]
        for element in elements[1:]:
            while open_ and next(open_[-1][0], None) is None:
                open_.pop()
            if not open_:
                self._damaged("its schema has more columns than it says")
            path = (*open_[-1][1], element.get(4, b"").decode("utf-8", "replace"))
            if 1 in element and not _children(element):
                flat = len(path) == 1 and element.get(3, _REQUIRED) != _REPEATED
                width = max(element.get(2, 0), 0) if element[1] == _FIXED else _NUMBER
                yield _Leaf(path, element[1], width, flat)
            elif len(open_) > _DEPTH:
                self._damaged("its schema is nested too deeply")
            else:
                open_.append((iter(range(_children(element))), path))
        if any(next(left, None) is not None for left, _ in open_):
            self._damaged("its schema has fewer columns than it says")

    def _group(self, told: dict[int, Any], end: int) -> _Group:
        rows, parts = told.get(3, -1), [self._part(one, end) for one in told.get(1, [])]
        if rows < 0:
            self._damaged(f"a group of it has {rows} rows")
        self.meter.check(rows * _NUMBER, f"a group of {rows} rows")
        if len(parts) != len(self._leaves):
            self._damaged(f"a group of it has {len(parts)} columns of {len(self._leaves)}")
        return _Group(rows, parts)

    def _part(self, told: dict[int, Any], end: int) -> _Part:
        if told.get(1):
            raise DataError(f"{self.path}: its columns lie in another file; it is not read")
        if 8 in told or 9 in told:
            raise DataError(f"{self.path} has encrypted columns, which are not read")
        column = told.get(3, {})
        if not {_VALUES, _PACKED, _DATA} <= column.keys():
            self._damaged("its footer does not say where a column lies")
        start = column[_DATA]
        if 0 < column.get(_DICTIONARY, 0) < start:
            start = column[_DICTIONARY]
        ways = frozenset(column.get(_WAYS, ()))
        part = _Part(start, start + column[_PACKED], column[_VALUES], ways)
        if min(start, part.values, column[_PACKED]) < 0 or part.stop > end:
            self._damaged("a column of it lies outside the file")
        return part

    # ------------------------------------------------------------------ the pages

    def _check(self, number: int, columns: tuple[str, ...]) -> None:
        """Refuse a group whose columns unpack to more than the file's size allows."""
        if (number, columns) in self._checked:
            return
        group, wanted = self._groups[number], set(columns)
        what, built = f"its group of {group.rows} rows", 0
        with self.path.open("rb") as stream:
            for leaf, part in zip(self._leaves, group.parts, strict=True):
                # a table is read with all that is in it
                if wanted.isdisjoint(".".join(leaf.path[:k]) for k in range(1, len(leaf.path) + 1)):
                    continue
                built += self._built(stream.fileno(), leaf, part, group.rows, built, what)
        self._checked.add((number, columns))

    def _built(self, file: int, leaf: _Leaf, part: _Part, rows: int, before: int, what: str) -> int:
        """Return about how many bytes are built of a column, checked page by page."""
        built = values = longest = 0
        for page in self._pages(file, part):
            if page.dictionary:
                built += page.unpacked + page.values * max(leaf.width, _TEXT)
                longest = page.unpacked
            else:
                values += page.values
                built += page.values * max(leaf.width, _NUMBER)
                if leaf.kind == _BYTES:
                    built += page.unpacked
                    if page.encoding == _DELTA_BYTES:
                        built += page.values * page.unpacked
                    elif not (leaf.flat and leaf.path[0] in self._placed):
                        built += page.values * longest
            shared = (
                ", whose texts share their beginnings," if page.encoding == _DELTA_BYTES else ""
            )
            self.meter.check(before + built + page.unpacked, what + shared)
        if values != part.values or (leaf.flat and values != rows):
            self._damaged(
                f"column '{'.'.join(leaf.path)}' has {values} values in a group of {rows} rows"
            )
        return built

    def _pages(self, file: int, part: _Part) -> Iterator[_Page]:
        """Yield the heads of the pages of a column, up to the last value that Arrow looks for."""
        place, seen = part.start, 0
        while place < part.stop and seen < part.values:
            told, length = self._head(file, place, part.stop)
            if not {1, 2, 3} <= told.keys() or min(told[2], told[3]) < 0:
                self._damaged("a page of it has no size")
            kind = told[1]
            of = told.get(_VALUES_OF.get(kind, 0), {})
            values = of.get(1, -1 if kind in _VALUES_OF else 0)
            if values < 0:
                self._damaged(f"a page of it has {values} values")
            dictionary = kind == _DICTIONARY_PAGE
            yield _Page(dictionary, told[2], values, of.get(_ENCODING_OF.get(kind, 0), 0))
            seen += 0 if dictionary else values
            place += length + told[3]
            if place > part.stop:
                self._damaged("a page of it goes on beyond its column")

    def _head(self, file: int, place: int, stop: int) -> tuple[dict[int, Any], int]:
        """Return what the head of a page says, and its length."""
        size = _HEAD
        while True:
            data = os.pread(file, min(size, stop - place), place)
            head = Compact(data, self.meter)
            try:
                return head.read(_PAGE), head.place
            except EOFError:
                if len(data) < size or size >= _LONGEST_HEAD:
                    self._damaged("a page of it has no end")
            size *= 16

    # ------------------------------------------------------------------ what is wrong

    def _damaged(self, how: str) -> NoReturn:
        raise FileError(f"{self.path} is damaged: {how}; fetch it again")

    @contextmanager
    def _blamed(self, what: str) -> Iterator[None]:
        """Blame the file for what Arrow says of it."""
        import pyarrow as pa

        try:
            yield
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            line = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"{self.path} {what} ({line}); fetch it again") from error


def _children(element: dict[int, Any]) -> int:
    return max(int(element.get(5, 0)), 0)


def _library(path: Path) -> Any:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{path} is a Parquet file, which needs pyarrow: pip install 'isoprobe[data]'"
        ) from error
    return parquet
