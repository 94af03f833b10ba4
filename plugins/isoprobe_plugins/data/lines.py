"""Read lines of a text file by number, in bounded memory."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
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
#: bytes that are read at once where whole files are
_PIECE = 1 << 20
_NEWLINE = ord("\n")


class TextBlock:
    """Whole lines of a file, one after the other; blank ones do not count.

    Args:
        number: of the first.
        text: of all.

    Attributes:
        starts: where each begins in the text, ``(lines,)``.
        ends: one past its last byte, ``(lines,)``.
        blank: how many are blank.
    """

    def __init__(self, number: int, text: bytes) -> None:
        self.number, self.text = number, text
        self._bytes = np.frombuffer(text, np.uint8)
        ends = np.flatnonzero(self._bytes == _NEWLINE) + 1
        if not text.endswith(b"\n"):
            ends = np.append(ends, len(text))
        starts = np.append(0, ends[:-1])
        full = self._bytes[starts] > ord(" ")
        for i in np.flatnonzero(~full):
            full[i] = bool(text[starts[i] : ends[i]].strip())
        self.starts, self.ends = starts[full], ends[full]
        self.blank = len(full) - len(self.starts)

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[tuple[int, str]]:
        pairs = zip(self.starts.tolist(), self.ends.tolist(), strict=True)
        for number, (start, end) in enumerate(pairs, self.number):
            yield number, _decoded([self.text[start:end]])[0]

    def count(self, character: str) -> np.ndarray:
        """How often a character of ASCII stands in each line, ``(lines,)``."""
        places = np.flatnonzero(self._bytes == ord(character))
        found: np.ndarray = np.searchsorted(places, self.ends) - np.searchsorted(
            places, self.starts
        )
        return found


class Lines:
    """Lines of a file that may be gzipped, counted from 0; blank ones do not count.

    Opening reads the file once and keeps the offset of every 256th line. Ascending reads never go
    back, which for gzip would mean to start over.

    Args:
        path: the file.
        visit: called with all lines, many at once, during that first pass.

    Raises:
        DataError: when the file is damaged, has a line that never ends, or ``visit`` raises it.
    """

    def __init__(self, path: Path, visit: Callable[[TextBlock], None]) -> None:
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
                chosen += self._next(int(end - begin))
            self._kept = (numbers.copy(), chosen)
        return self._kept[1]

    def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _index(self, visit: Callable[[TextBlock], None]) -> int:
        count, offset, blank = 0, 0, 0
        meter = Meter(self._path, self._path.stat().st_size)  # blank lines pack best of all
        for text in self._pieces():
            block = TextBlock(count, text)
            blank += block.blank
            meter.check(offset + len(text) + OBJECT * blank, "its text")
            self._offsets += (offset + block.starts[-count % BLOCK :: BLOCK]).tolist()
            if len(block):
                visit(block)
            count += len(block)
            offset += len(text)
        return count

    def _pieces(self) -> Iterator[bytes]:
        """The file in pieces of whole lines.

        Yields:
            The next ones.

        Raises:
            DataError: when it is damaged, or a line never ends.
        """
        rest = b""
        while True:
            with self._blamed():
                piece = self._stream.read(_PIECE)
            if not piece:
                break
            cut = piece.rfind(b"\n") + 1
            first = piece.find(b"\n") + 1 or len(piece)
            if len(rest) + first >= MAX_LINE:
                raise DataError(
                    f"{self._path} has a line of over {MAX_LINE} bytes; expected a table"
                )
            if cut:
                yield rest + piece[:cut]
                rest = b""
            rest += piece[cut:]
        if rest:
            yield rest

    def _go_to(self, number: int) -> None:
        block = number // BLOCK
        if number < self._position or block > self._position // BLOCK:
            self._stream.seek(self._offsets[block])
            self._position = block * BLOCK
        self._next(number - self._position)

    def _next(self, count: int) -> list[str]:
        """The next lines."""
        found: list[bytes] = []
        lines = iter(partial(self._stream.readline, MAX_LINE), b"")
        while len(found) < count:
            with self._blamed():
                more = list(islice(lines, count - len(found)))
            if not more:
                at = self._position + len(found)
                raise DataError(f"{self._path} ends before its line {at}; it has been changed")
            found += [line for line in more if not line.isspace()]
        self._position += count
        return _decoded(found)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """Say in one line what is wrong with a file that cannot be read on."""
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{self._path} is damaged ({error}); fetch it again") from error


def _decoded(lines: list[bytes]) -> list[str]:
    """Lines as text, without their ends."""
    text = b"".join(lines).decode("utf-8", "replace")
    found = text.split("\n")[: len(lines)]
    if "\r" in text or "\ufeff" in text:
        return [line.removeprefix("\ufeff").rstrip("\r") for line in found]
    return found
