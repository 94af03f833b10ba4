"""Open HDF5 files and every node in them through one door.

A link may lead into another file, storage may lie in another file, a data set of a terabyte may
hold no byte, and a group may be its own member. Members are reached here alone, by hard links;
a data set that does not lie in its own file, row for row, is refused.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from isoprobe.errors import FileError
from isoprobe.files.heaps import check_attribute, check_heaps, check_packed, check_records
from isoprobe.files.meter import OBJECT, Meter

if TYPE_CHECKING:
    import h5py

#: what h5py raises on damage, depending on what is damaged
HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, MemoryError)
#: bytes of one chunk, which is unpacked whole
CHUNK_LIMIT = 256 << 20
_DEPTH = 32
#: filters, by HDF5's numbers, and what marks one that may be left out of a chunk
_SHUFFLE, _SUM, _OPTIONAL = 2, 3, 1


class Hdf5File:
    """An HDF5 file, open for reading, with the meter of what is read from it.

    Args:
        path: the file, for errors; opened where there is no stream.
        stream: its bytes, where they do not lie at the path.
        size: length of the stream.

    Raises:
        FileError: when it is no whole HDF5 file.
    """

    def __init__(self, path: Path, stream: BinaryIO | None = None, size: int | None = None) -> None:
        import h5py

        self.path = path
        try:
            self.size = path.stat().st_size if size is None else size
            self.meter = Meter(path, self.size)
            self.file = h5py.File(path if stream is None else stream, "r")
            self._stream, self._heaps = stream, False
            self._attributes: set[tuple[str, int]] = set()
        except HDF5_ERRORS as error:
            raise FileError(
                f"{path} is no whole HDF5 file ({_line(error)}); fetch it again"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    # ------------------------------------------------------------------ members

    def names(self, group: h5py.Group | None = None) -> list[str]:
        """Return the names of a group's members.

        Raises:
            FileError: when one is no text, or there are too many.
        """
        node = self.file if group is None else group
        try:
            self.meter.charge(OBJECT * len(node), "the list of its members")
            found = list(node)
        except HDF5_ERRORS as error:
            raise self._damaged(node.name, error) from error
        odd = next((name for name in found if not isinstance(name, str)), None)
        if odd is not None:
            raise FileError(f"{self.path}: {node.name} has a member whose name is no text: {odd!r}")
        return found

    def child(self, group: h5py.Group, name: str) -> Any:
        """Return a group or data set, None where there is none of that name.

        Raises:
            FileError: when it lies in another file, or is a data set out of proportion.
        """
        import h5py

        try:
            encoded = name.encode()
            if not isinstance(group, h5py.Group) or not group.id.links.exists(encoded):
                return None
            if group.id.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
                raise FileError(
                    f"{self.path}: {_place(group, name)} is a link that may lead into another file;"
                    " it is not followed"
                )
            node = group[name]
            if isinstance(node, h5py.Dataset):
                self._check(node)
            return None if isinstance(node, h5py.Datatype) else node
        except HDF5_ERRORS as error:
            raise self._damaged(_place(group, name), error) from error

    def walk(self, group: h5py.Group | None = None) -> Iterator[tuple[str, Any]]:
        """Yield every data set below a group with its path; each group and data set once."""
        seen: set[Any] = set()
        yield from self._walk(self.file if group is None else group, "", seen, _DEPTH)

    def _walk(
        self, group: h5py.Group, place: str, seen: set[Any], depth: int
    ) -> Iterator[tuple[str, Any]]:
        import h5py

        if depth == 0:
            raise FileError(f"{self.path}: its groups lie deeper than {_DEPTH} levels")
        for name in self.names(group):
            node = self.child(group, name)
            try:
                key = None if node is None else h5py.h5o.get_info(node.id).addr
            except HDF5_ERRORS as error:
                raise self._damaged(_place(group, name), error) from error
            if key is None or key in seen:
                continue
            seen.add(key)
            if isinstance(node, h5py.Group):
                yield from self._walk(node, f"{place}{name}/", seen, depth - 1)
            elif isinstance(node, h5py.Dataset):
                yield f"{place}{name}", node

    # ------------------------------------------------------------------ values

    def attributes(self, node: Any) -> dict[str, Any]:
        """Return a node's attributes as h5py gives them.

        Raises:
            FileError: when one is damaged, or longer than the file.
        """
        names = self._names_of(node)
        return {name: self.attribute(node, name) for name in names}

    def attribute(self, node: Any, name: str, default: Any = None) -> Any:
        """Return one attribute as h5py gives it, the default where there is none.

        Raises:
            FileError: when it is damaged, or longer than the file.
        """
        import h5py

        try:
            if name not in node.attrs:
                return default
            found = h5py.h5a.open(node.id, name.encode())
            kind = found.get_type()
            if not _plain(kind):
                return default  # HDF5's own bookkeeping, or what lies elsewhere in the file
            if kind.get_class() == h5py.h5t.STRING and kind.is_variable_str():
                self._check_heaps()
                self._check_attribute(name, math.prod(found.shape))
            size = math.prod(found.shape) * kind.get_size()
            if size > self.size:
                raise FileError(f"{self.path}: attribute {name!r} is longer than the file")
            self.meter.charge(size, f"attribute {name!r}")
            value = node.attrs[name]
        except HDF5_ERRORS as error:
            raise self._damaged(f"{node.name}@{name}", error) from error
        self.meter.charge(_length(value), f"attribute {name!r}")
        return value

    def _names_of(self, node: Any) -> list[str]:
        try:
            return list(node.attrs)
        except HDF5_ERRORS as error:
            raise self._damaged(node.name, error) from error

    def read(self, data: h5py.Dataset, rows: slice | np.ndarray | None = None) -> np.ndarray:
        """Return a data set's values, or some rows of it; texts as Python's own.

        Raises:
            FileError: when it is damaged or out of proportion.
        """
        chosen: Any = () if rows is None or not data.shape else rows
        self.check_whole(data)
        try:
            if data.dtype.kind == "O":
                self._check_heaps()
                self._check_records(data)
                return self._texts(data, chosen)
            if data.dtype.hasobject:
                raise FileError(f"{self.path}: {data.name} holds texts in records; not read")
            if rows is None:
                self.meter.check(data.nbytes, str(data.name))
            return np.asarray(data[chosen])
        except HDF5_ERRORS as error:
            raise self._damaged(data.name, error) from error

    def rows(self, data: h5py.Dataset, rows: slice | np.ndarray) -> np.ndarray:
        """Return rows of numbers of a data set that :meth:`check_whole` has passed.

        Raises:
            FileError: when it is damaged.
        """
        try:
            return np.asarray(data[rows])
        except HDF5_ERRORS as error:
            raise self._damaged(data.name, error) from error

    def _texts(self, data: h5py.Dataset, rows: Any) -> np.ndarray:
        """Read texts of any length a few at a time: many may stand for the same long one."""
        flat = data.shape[0] if data.shape else 1
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(flat)
        else:
            start, stop = 0, flat
        self.meter.charge(OBJECT * math.prod(data.shape), str(data.name))
        per_row = max(1, math.prod(data.shape[1:]))
        step = max(1, self.meter.limit // max(1, self.size * per_row))
        if not data.shape:
            return np.asarray(self._counted(data.asstr()[()], data))
        parts = [
            self._counted(data.asstr()[a : min(a + step, stop)], data)
            for a in range(start, stop, step)
        ]
        found = np.concatenate(parts) if parts else np.empty((0, *data.shape[1:]), object)
        return found[rows] if isinstance(rows, np.ndarray) else found

    def _counted(self, texts: Any, data: h5py.Dataset) -> Any:
        self.meter.charge(_length(texts), str(data.name))
        return texts

    # ------------------------------------------------------------------ checks

    def _check(self, data: h5py.Dataset) -> None:
        """Refuse a data set that does not lie in the file, or whose type numpy has nothing for."""
        if data.external or data.is_virtual:
            raise FileError(f"{self.path}: {data.name} does not lie in the file; it is not read")
        _ = data.dtype, data.shape  # each fails here, where whoever asks expects it

    def check_whole(self, data: h5py.Dataset) -> None:
        """Refuse a data set of which rows were never written, or that is out of proportion.

        Raises:
            FileError: naming it.
        """
        try:
            self._check_whole(data)
        except HDF5_ERRORS as error:
            raise self._damaged(data.name, error) from error

    def _check_whole(self, data: h5py.Dataset) -> None:
        self._check(data)
        if data.shape is None or 0 in data.shape:
            return
        size, stored = math.prod(data.shape) * data.dtype.itemsize, data.id.get_storage_size()
        if stored > self.size:
            raise FileError(f"{self.path}: {data.name} claims more bytes than the file has")
        chunked = data.chunks is not None
        if chunked:
            chunk = math.prod(data.chunks) * data.dtype.itemsize
            if chunk > CHUNK_LIMIT or chunk > self.meter.limit:
                raise FileError(f"{self.path}: a chunk of {data.name} has {chunk} bytes; too many")
            parts = [-(-n // c) for n, c in zip(data.shape, data.chunks, strict=True)]
            whole = math.prod(parts) <= self.size and self._chunks(data) == math.prod(parts)
        else:
            whole = stored >= size
        if not whole:
            raise FileError(
                f"{self.path}: {data.name} says that it holds {size} bytes, of which some were "
                "never written; write it whole"
            )
        self.meter.check(size if chunked else 0, str(data.name))

    def _chunks(self, data: h5py.Dataset) -> int:
        """Return how many chunks a data set has in their places, whole.

        A filter that does not make a chunk shorter may be left out of it, as LZF is of noise; a sum
        that is left out would let damage pass.
        """
        plan = data.id.get_create_plist()
        filters = [plan.get_filter(k)[:2] for k in range(plan.get_nfilters())]
        numbers = [number for number, _ in filters]
        may_lack = sum(
            1 << k for k, (n, flags) in enumerate(filters) if n != _SUM and flags & _OPTIONAL
        )
        packing = sum(1 << k for k, n in enumerate(numbers) if n not in {_SHUFFLE, _SUM})
        size = math.prod(data.chunks) * data.id.get_type().get_size()
        plain = size + 4 * numbers.count(_SUM)
        count = 0

        def look(chunk: Any) -> None:
            nonlocal count
            lacks = chunk.filter_mask
            inside = all(o < n for o, n in zip(chunk.chunk_offset, data.shape, strict=True))
            unpacked = packing and lacks & packing == packing
            sound = lacks & ~may_lack == 0 and (not unpacked or chunk.size == plain)
            count += inside and sound

        data.id.chunk_iter(look)
        return count

    def _check_heaps(self) -> None:
        """Check, once, the heaps on which texts of any length lie."""
        if self._heaps:
            return
        self._heaps = True
        if self.file.id.get_create_plist().get_sizes() != (8, 8):
            raise FileError(f"{self.path}: its addresses have no 8 bytes; its texts are not read")
        with self._whole() as held:
            check_heaps(held, self.meter, self.file.userblock_size)

    def _check_attribute(self, name: str, count: int) -> None:
        """Check, once a name, the lengths of the texts in attributes where they are stored."""
        if (name, count) not in self._attributes:
            with self._whole() as held:
                check_attribute(held, name, count, self.meter)
            self._attributes.add((name, count))

    @contextmanager
    def _whole(self) -> Iterator[bytes | mmap]:
        """Lend the bytes of the file."""
        if self._stream is not None:
            yield self._bytes(0, self.size)
        else:
            with self.path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as held:
                yield held

    def _check_records(self, data: h5py.Dataset) -> None:
        """Check the lengths of a data set's texts where they are stored."""
        place, size = data.id.get_offset(), data.id.get_storage_size()
        if data.chunks is not None:
            check_packed(data, self.meter)
        elif place is not None:
            check_records(self._bytes(place, size), self.meter)
        elif size:  # in its head, where their lengths cannot be told from all else
            raise FileError(f"{self.path}: {data.name} is a compact data set of texts; not read")

    def _bytes(self, place: int, size: int) -> bytes:
        """Return bytes of the file itself."""
        if self._stream is None:
            with self.path.open("rb") as file:
                file.seek(place)
                return file.read(size)
        before = self._stream.tell()
        self._stream.seek(place)
        found = self._stream.read(size)
        self._stream.seek(before)
        return found

    def _damaged(self, place: object, error: BaseException) -> FileError:
        return FileError(f"{self.path}: {place} is damaged ({_line(error)}); fetch it again")


def create(path: Path, cached: int = 1 << 20) -> h5py.File:
    """Open a new HDF5 file for writing; whoever asked for it closes it.

    Args:
        path: of the file.
        cached: bytes of chunks that each open data set may hold.

    Returns:
        The file.
    """
    import h5py

    # from version 1.10 on HDF5 keeps checksums of what it says of each data set and its chunks
    return h5py.File(path, "w", libver=("v110", "v110"), rdcc_nbytes=cached)


def _plain(kind: h5py.h5t.TypeID) -> bool:
    """Whether values of a type are numbers or texts, and not records or lists of such."""
    import h5py

    if kind.get_class() == h5py.h5t.ARRAY:
        kind = kind.get_super()
        return kind.get_class() in {h5py.h5t.INTEGER, h5py.h5t.FLOAT}
    return kind.get_class() in {h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM}


def _place(group: h5py.Group, name: str) -> str:
    return f"{str(group.name).rstrip('/')}/{name}"


def _length(value: Any) -> int:
    """Return about how many bytes a text, or an array of texts, takes."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "O":
            return int(value.nbytes)
        return sum(OBJECT + len(v) for v in value.ravel() if isinstance(v, (str, bytes)))
    return OBJECT + (len(value) if isinstance(value, (str, bytes)) else 0)


def _line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
