"""Write and read a shard: rows [a, b) of a run, their columns and the state of its statistics.

A shard is one file, written under another name, flushed to the disk and then renamed, so that it
is whole or not there. Behind a first line come the batches' columns one after the other, then the
arrays of the state, then an index in JSON, then the index's length and checksum. Every block has a
checksum of its own, checked whenever it is read: a file that was cut or changed is refused, and no
number comes out of it.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import struct
import zlib
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np

from isoprobe.errors import PluginError, ResultError
from isoprobe.files.closing import Closable, Closing
from isoprobe.results.columns import Column
from isoprobe.results.netcdf import check_group

if TYPE_CHECKING:
    from isoprobe.contracts import Variable

SUFFIX = ".shard"
#: of a shard that is being written
UNFINISHED = ".new"
_FIRST = b"isoprobe shard 2\n"
_ANY = b"isoprobe shard"
#: length of the index, its checksum, length of the file
_LAST = struct.Struct("<QIQ")
#: what a damaged index makes Python raise
_ODD = (OSError, LookupError, ValueError, TypeError, AttributeError, MemoryError, struct.error)


class ShardWriter(Closing):
    """Takes the batches of a shard in the order of their rows.

    Use it as a context manager: what was not finished is removed.

    Args:
        path: the shard to be.
        rows: positions of its samples in the run.
        latent: length of dimension ``latent``.
        durable: wait until it is on the disk.

    Attributes:
        finished: it lies in its place.
    """

    finished = False

    def __init__(self, path: Path, rows: range, latent: int, *, durable: bool = True) -> None:
        self.path, self.rows, self._latent = path, rows, latent
        self._durable = durable
        self._ends: list[int] = []  # rows after each batch
        self._columns: dict[str, Column] = {}
        self._sums: dict[str, list[int]] = {}
        # of a name of its own: another process may be writing the same shard
        self._temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{UNFINISHED}")
        self._file = self._temporary.open("xb")
        self._file.write(_FIRST)

    def append(self, count: int, columns: Mapping[str, Variable]) -> None:
        """Store the columns of the next batch, the same in each.

        Args:
            count: rows of the batch.
            columns: by name.

        Raises:
            PluginError: if a column is new, is missing, or changes its type or shape.
        """
        check_group("samples", columns, {"sample": count, "latent": self._latent})
        described = {name: Column.of(name, variable) for name, variable in columns.items()}
        if not self._ends:
            self._columns, self._sums = described, {name: [] for name in described}
        for name in self._columns.keys() ^ described.keys():
            start = self.rows.start + (self._ends[-1] if self._ends else 0)
            raise PluginError(
                f"column '{name}' lacks rows between {self.rows.start} and {start + count}; an"
                " analysis must return it for every batch"
            )
        for name, known in self._columns.items():
            known.require_like(name, described[name])
            data = known.stored(columns[name].values).data.cast("B")
            self._sums[name].append(zlib.crc32(data))
            self._file.write(data)
        self._ends.append(count + (self._ends[-1] if self._ends else 0))

    def finish(self, record: Mapping[str, Any], state: Mapping[str, np.ndarray]) -> None:
        """Complete the shard and put it in its place.

        Args:
            record: what it is a shard of, as JSON.
            state: what was accumulated over its rows, named arrays.

        Raises:
            PluginError: if the state holds Python objects, which could only be pickled.
        """
        index = {
            "rows": [self.rows.start, self.rows.stop],
            "record": dict(record),
            "ends": self._ends,
            "columns": {name: asdict(column) for name, column in self._columns.items()},
            "sums": self._sums,
            "state": {name: self._write_array(name, array) for name, array in state.items()},
        }
        data = json.dumps(index, default=str).encode()
        self._file.write(data)
        length = self._file.tell() + _LAST.size
        self._file.write(_LAST.pack(len(data), zlib.crc32(data), length))
        self._file.flush()
        if self._durable:
            os.fsync(self._file.fileno())
        self._file.close()
        self._temporary.replace(self.path)
        self.finished = True

    def _write_array(self, name: str, array: np.ndarray) -> list[Any]:
        values = np.asarray(array)
        if values.dtype.hasobject:
            raise PluginError(f"'{name}' holds Python objects; keep numbers or fixed-width text")
        data = np.ascontiguousarray(values).tobytes()
        start = self._file.tell()
        self._file.write(data)
        return [values.dtype.str, list(values.shape), start, zlib.crc32(data)]

    def leave(self, error: BaseException | None) -> None:
        """Close, whatever ends the block."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


class Shard(Closable):
    """A shard, open for reading.

    Attributes:
        path: the file.
        rows: positions of its samples in the run.
        record: what it is a shard of.
        columns: how its columns are kept, by name.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.path = path
        self._file = file
        try:
            index = self._index()
            self.rows = range(*index["rows"])
            self.record: dict[str, Any] = dict(index["record"])
            self.columns = {
                name: Column(**{**c, "dims": tuple(c["dims"]), "shape": tuple(c["shape"])})
                for name, c in index["columns"].items()
            }
            self._sums: dict[str, Sequence[int]] = index["sums"]
            self._state: dict[str, list[Any]] = index["state"]
            self._ends: list[int] = index["ends"]
            sizes = [column.row_bytes for column in self.columns.values()]
            self._before = dict(zip(self.columns, accumulate(sizes, initial=0), strict=False))
            self._row_bytes = sum(sizes)
        except _ODD as error:
            self._refuse(error)

    @classmethod
    def open(cls, path: str | Path) -> Shard:
        """Open a shard.

        Returns:
            The shard; its index is checked, all else when it is read.

        Raises:
            ResultError: if it is missing, damaged, or no shard.
        """
        path = Path(path)
        try:
            file = _opened(path)
        except FileNotFoundError as error:
            raise ResultError(
                f"{path} does not exist; a shard is what 'analyze --shard' wrote"
            ) from error
        except OSError as error:
            raise ResultError(f"cannot read {path}: {error.strerror or error}") from error
        try:
            return cls(file, path)
        except BaseException:
            file.close()
            raise

    def state(self) -> dict[str, np.ndarray]:
        """Return what was accumulated over its rows, named arrays."""
        arrays = {}
        for name, (dtype, shape, start, checksum) in self._state.items():
            kind = np.dtype(dtype)
            size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
            data = self._block(start, size, checksum)
            arrays[name] = np.frombuffer(data, kind).reshape(shape).copy()  # to be written into
        return arrays

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return rows of a column as they were given.

        Args:
            name: of the column.
            start: first position in the run, not before ``rows.start``.
            stop: one past the last one, not after ``rows.stop``.
        """
        column = self.columns[name]
        start, stop = start - self.rows.start, stop - self.rows.start
        blocks = [np.empty((0, *column.shape), column.dtype)]
        for number in range(bisect_right(self._ends, start), len(self._ends)):
            begin = self._ends[number - 1] if number else 0
            if begin >= stop:
                break
            rows = self._rows(column, name, number)
            blocks.append(rows[max(start - begin, 0) : stop - begin])
        return column.given(np.concatenate(blocks))

    def check(self) -> None:
        """Read everything once.

        Raises:
            ResultError: if anything is damaged.
        """
        self.state()
        for number in range(len(self._ends)):
            for name, column in self.columns.items():
                self._rows(column, name, number)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _index(self) -> Any:
        first = self._file.read(len(_FIRST))
        if first != _FIRST:
            if first.startswith(_ANY):
                self._refuse("it is cut off, or of another version")
            raise ResultError(f"{self.path} is no shard; one is what 'analyze --shard' wrote")
        length = self._file.seek(0, os.SEEK_END)
        self._file.seek(length - _LAST.size)
        size, checksum, written = _LAST.unpack(self._file.read(_LAST.size))
        if written != length or size > length:
            self._refuse(f"it has {length} bytes where {written} were written")
        return json.loads(self._block(length - _LAST.size - size, size, checksum))

    def _rows(self, column: Column, name: str, number: int) -> np.ndarray:
        """One batch of a column."""
        begin = self._ends[number - 1] if number else 0
        count = self._ends[number] - begin
        offset = len(_FIRST) + begin * self._row_bytes + count * self._before[name]
        data = self._block(offset, count * column.row_bytes, self._sums[name][number])
        return np.frombuffer(data, column.dtype).reshape(count, *column.shape)

    def _block(self, start: int, size: int, checksum: int) -> bytes:
        try:
            self._file.seek(start)
            data = self._file.read(size)
        except (OSError, ValueError, OverflowError, MemoryError) as error:
            self._refuse(error)
        if len(data) != size or zlib.crc32(data) != checksum:
            self._refuse("its checksum does not fit")
        return data

    def _refuse(self, reason: object) -> NoReturn:
        if isinstance(reason, ResultError):
            raise reason
        cause = reason if isinstance(reason, BaseException) else None
        raise ResultError(
            f"{self.path} is damaged: {reason}; make it again: remove it, and use --resume"
        ) from cause


def _opened(path: Path) -> IO[bytes]:
    """Open a file that is one: a pipe would be waited for without end."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ResultError(f"{path} is not a file; a shard is what 'analyze --shard' wrote")
    return os.fdopen(number, "rb")


def is_shard(path: Path) -> bool:
    """Return whether a file begins as a shard does."""
    with path.open("rb") as file:
        return file.read(len(_ANY)) == _ANY
