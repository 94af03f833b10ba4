"""Open zip archives: names are checked, sizes are summed, and checksums are verified.

Readers of zip files differ in which of two members of one name they take, and in whether case
matters; a file that means one thing to one and another to the next is refused.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import IO

from isoprobe.errors import FileError
from isoprobe.files.closing import Closable
from isoprobe.files.meter import Meter

DIRECTORY_LIMIT = 16 << 20
#: a deflated byte stands for at most so many
_DEFLATE = 1032
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED, _UTF8 = 0x1, 0x800
#: stands for a number of members that is told elsewhere
_MANY = 0xFFFF

#: zipfile believes what a directory claims; these are what it raises on forged entries
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
    EOFError,
)


class Archive(Closable):
    """A zip archive, open for reading; a context manager.

    Args:
        path: the file.
        meter: counts what is read whole; one of the archive's own by default.

    Raises:
        FileError: when it is damaged, or its members are not told apart by every reader.
    """

    def __init__(self, path: Path, meter: Meter | None = None) -> None:
        self.path = path
        with self._blamed():
            size = path.stat().st_size
            self.meter = meter or Meter(path, size)
            if not has_zip_directory(path, size):
                raise FileError(f"{path} is a zip archive cut short or damaged; fetch it again")
            self._zip = zipfile.ZipFile(path)
        try:
            self.members = {info.filename: info for info in self._zip.infolist()}
            self._check(self._zip.infolist(), size)
            with self._blamed(), path.open("rb") as stream:
                self._compare(stream)
                self._count(stream, size)
        except BaseException:
            self._zip.close()
            raise

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the members, sorted."""
        return tuple(sorted(self.members))

    def size_of(self, name: str) -> int:
        """Return how long a member says that it is.

        Raises:
            FileError: when there is none of that name.
        """
        return self._info(name).file_size

    @contextmanager
    def open(self, name: str) -> Iterator[IO[bytes]]:
        """Open a member; its checksum is verified when it is read to its end.

        Yields:
            The stream.
        """
        with self._blamed(name), self._zip.open(self._info(name)) as stream:
            yield stream

    def stream(self, name: str) -> IO[bytes]:
        """Return a member's stream, which keeps the file open until it is closed itself."""
        with self._blamed(name):
            return self._zip.open(self._info(name))

    def read(self, name: str, limit: int | None = None) -> bytes:
        """Return a member's bytes, its checksum verified.

        Args:
            name: of the member.
            limit: the most bytes it may have.

        Raises:
            FileError: when it is missing, damaged, longer than the limit, or out of proportion.
        """
        length = self._info(name).file_size
        if limit is not None and length > limit:
            raise FileError(f"{self.path}: {name} is longer than the {limit} bytes allowed")
        self.meter.charge(length, f"member {name!r}")
        with self.open(name) as stream:
            data = stream.read(length + 1)  # zipfile stops at the length, and compares the sum
        if len(data) != length:
            raise FileError(f"{self.path}: member {name!r} is cut short; fetch it again")
        return data

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    def _info(self, name: str) -> zipfile.ZipInfo:
        try:
            return self.members[name]
        except KeyError:
            raise FileError(f"{self.path} has no member {name!r}") from None

    def _check(self, infos: Sequence[zipfile.ZipInfo], size: int) -> None:
        seen: set[str] = set()
        for info in infos:
            name = info.filename
            if "\0" in info.orig_filename or name.casefold() in seen:
                raise FileError(
                    f"{self.path}: two members are called {name!r}, or differ in case alone; it is "
                    "not read, as it means different things to different readers"
                )
            seen.add(name.casefold())
            if info.compress_type not in _METHODS or info.flag_bits & _ENCRYPTED:
                raise FileError(f"{self.path}: member {name!r} is encrypted or packed otherwise")
            if info.file_size > _DEFLATE * info.compress_size + 64:
                raise FileError(
                    f"{self.path}: member {name!r} claims {info.file_size} bytes out of "
                    f"{info.compress_size}; it is damaged or hostile"
                )
        if sum(info.compress_size for info in infos) > size:
            raise FileError(f"{self.path}: its members overlap; it is damaged or hostile")

    def _count(self, stream: IO[bytes], size: int) -> None:
        """Refuse an archive whose directory has another number of members than it says."""
        span = min(size, (1 << 16) + 22)
        stream.seek(size - span)
        tail = stream.read(span)
        (told,) = struct.unpack_from("<H", tail, tail.rfind(b"PK\x05\x06") + 10)
        if told not in {len(self.members), _MANY}:
            raise FileError(
                f"{self.path}: its directory lists {len(self.members)} members and counts {told}; "
                "it is damaged"
            )

    def _compare(self, stream: IO[bytes]) -> None:
        """Refuse an archive whose directory calls a member otherwise than the member itself."""
        for info in self.members.values():
            stream.seek(info.header_offset)
            begun = stream.read(30)
            (length,) = struct.unpack_from("<H", begun, 26)
            name = stream.read(length)
            coding = "utf-8" if info.flag_bits & _UTF8 else "cp437"
            if not begun.startswith(b"PK\x03\x04") or name != info.orig_filename.encode(coding):
                raise FileError(
                    f"{self.path}: member {info.filename!r} is called otherwise in the directory; "
                    "it is damaged or hostile"
                )

    @contextmanager
    def _blamed(self, name: str | None = None) -> Iterator[None]:
        """Turn what zipfile raises into one line."""
        try:
            yield
        except FileError:
            raise
        except ZIP_ERRORS as error:
            part = "" if name is None else f": member {name!r}"
            reason = " ".join(str(error).split()) or "it ends at once"
            raise FileError(f"{self.path}{part} is damaged ({reason}); fetch it again") from error


def member_names(path: Path) -> tuple[str, ...]:
    """Return the names of an archive's members, sorted; it is checked once while it is unchanged.

    Whoever is asked whether a file is theirs looks at this, and who opens it checks it again.

    Raises:
        FileError: as :class:`Archive`.
    """
    try:
        told = path.stat()
    except OSError as error:
        raise FileError(f"{path} cannot be read ({error.strerror})") from error
    return _names(path, told.st_dev, told.st_ino, told.st_size, told.st_mtime_ns)


@lru_cache(maxsize=8)
def _names(path: Path, *_as_it_was: int) -> tuple[str, ...]:
    with Archive(path) as archive:
        return archive.names


def created(path: Path) -> zipfile.ZipFile:
    """Return a new, empty archive of ours, to be written and closed by the caller."""
    return zipfile.ZipFile(path, "w")


def packed(members: Mapping[str, bytes]) -> bytes:
    """Return a zip archive of members, each stored as it is."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return stream.getvalue()


def has_zip_directory(path: Path, size: int) -> bool:
    """Return True when a zip directory of bearable size ends the file."""
    span = min(size, (1 << 16) + 22)
    with path.open("rb") as stream:
        stream.seek(size - span)
        tail = stream.read(span)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) - end < 22:
        return False
    (directory,) = struct.unpack_from("<I", tail, end + 12)
    if tail[max(end - 20, 0) : max(end - 16, 0)] == b"PK\x06\x07" and end >= 76:
        (directory,) = struct.unpack_from("<Q", tail, end - 76 + 40)
    return bool(directory <= min(DIRECTORY_LIMIT, size))
