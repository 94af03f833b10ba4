"""Read lines of a text file by number, in bounded memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, cast

import numpy as np

from isoprobe.data.files import first_bytes
from isoprobe.errors import DataError
from isoprobe.files.meter import OBJECT, Meter
from isoprobe_plugins.data.streams import runs

#: lines between two entries of the index
BLOCK = 256
MAX_LINE = 1 << 24
GZIP_MAGIC = b"\x1f\x8b"


class Lines:
    """Lines of a file that may be gzipped, counted from 0; blank ones do not count.

    Opening reads the file once and keeps the offset of every 256th line. Ascending reads never go
    back, which for gzip would mean to start over.

    Args:
        path: the file.
        visit: called with each line's number and text during that first pass.

    Raises:
        DataError: when the file is damaged, has a line that never ends, or ``visit`` raises it.
    """

    def __init__(self, path: Path, visit: Callable[[int, str], None]) -> None:
        self._path = path
        zipped = first_bytes(path, 2) == GZIP_MAGIC
        # held open from one batch to the next, until close()
        stream = gzip.open(path) if zipped else path.open("rb")  # noqa: SIM115
        self._stream = cast("IO[bytes]", stream)
        self._offsets: list[int] = []
        self._kept: tuple[np.ndarray, list[str]] = (np.empty(0, np.int64), [])
        try:
            self._count = self._index(visit)
        except DataError:
            self.close()
            raise
        self._position = self._count

    def __len__(self) -> int:
        return self._count

    def at(self, numbers: np.ndarray) -> list[str]:
        """Lines at ascending numbers; the last answer is kept for the next question."""
        if not np.array_equal(numbers, self._kept[0]):
            chosen: list[str] = []
            for begin, end in runs(numbers):
                self._go_to(int(numbers[begin]))
                chosen += [self._next() for _ in range(end - begin)]
            self._kept = (numbers.copy(), chosen)
        return self._kept[1]

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _index(self, visit: Callable[[int, str], None]) -> int:
        count, offset, blank = 0, 0, 0
        meter = Meter(self._path, self._path.stat().st_size)  # blank lines pack best of all
        while line := self._read():
            blank += not line.strip()
            meter.check(offset + OBJECT * blank, "its text")
            if line.strip():
                if count % BLOCK == 0:
                    self._offsets.append(offset)
                visit(count, _decoded(line))
                count += 1
            offset += len(line)
        return count

    def _go_to(self, number: int) -> None:
        block = number // BLOCK
        if number < self._position or block > self._position // BLOCK:
            self._stream.seek(self._offsets[block])
            self._position = block * BLOCK
        while self._position < number:
            self._next()

    def _next(self) -> str:
        while line := self._read():
            if line.strip():
                self._position += 1
                return _decoded(line)
        raise DataError(f"{self._path} ends before its line {self._position}; it has been changed")

    def _read(self) -> bytes:
        try:
            line = self._stream.readline(MAX_LINE)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self._path} is damaged ({error}); fetch it again") from error
        if len(line) == MAX_LINE:
            raise DataError(f"{self._path} has a line of over {MAX_LINE} bytes; expected a table")
        return line


def _decoded(line: bytes) -> str:
    return line.decode("utf-8", "replace").removeprefix("\ufeff").rstrip("\r\n")
