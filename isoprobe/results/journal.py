"""The working folder of an unfinished result, usable after a kill at any moment.

An HDF5 file that is being written when its process dies may be unreadable afterwards, so nothing is
kept in one before the end. Per-sample rows go to one plain binary file a column; the running
state goes to a small file that replaces the older one by rename, after the rows before it are on
disk. Whatever lies past the last state is simply written again on resume.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from isoprobe.errors import PluginError, ResultError
from isoprobe.results.whole import LOCK, hold_folder, new_beside

if TYPE_CHECKING:
    from isoprobe.contracts import Variable

RUN, COLUMNS, STATE = "run.json", "columns.json", "state.npz"
_NEXT = "next_index"
_DAMAGED = "{} is damaged; start over with --overwrite"


@dataclass(frozen=True)
class Column:
    """How one per-sample column is kept.

    Attributes:
        dims: name of each axis, the first one ``sample``.
        dtype: numpy type of the stored numbers, little-endian.
        shape: shape of one row.
        boolean: the numbers stand for False and True.
        long_name: what it is, in words.
        units: ``1`` when dimensionless.
        equation: equation number or source.
    """

    dims: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    boolean: bool
    long_name: str
    units: str
    equation: str

    @classmethod
    def of(cls, name: str, variable: Variable) -> Column:
        """Return how the column of a batch's variable is kept.

        Raises:
            PluginError: if its first axis is not ``sample`` or it holds no numbers.
        """
        values = variable.values
        if not variable.dims or variable.dims[0] != "sample" or values.ndim != len(variable.dims):
            raise PluginError(
                f"column '{name}' needs 'sample' as its first dimension and one name for each axis;"
                f" it has dims {variable.dims} and shape {values.shape}"
            )
        if values.dtype.kind not in "fiub":
            raise PluginError(f"column '{name}' needs numbers; it holds {values.dtype}")
        return cls(
            dims=tuple(variable.dims),
            dtype=stored_dtype(values.dtype).str,
            shape=tuple(values.shape[1:]),
            boolean=values.dtype.kind == "b",
            long_name=variable.long_name,
            units=variable.units,
            equation=variable.equation,
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the little-endian type a number is stored as; float16 would break netCDF readers."""
    if dtype.kind == "b":
        return np.dtype("<i1")
    if dtype.kind == "f":
        return np.dtype("<f8" if dtype.itemsize >= 8 else "<f4")
    return dtype.newbyteorder("<")


class Journal:
    """One unfinished run in a folder of its own, held by one process at a time.

    Args:
        folder: made when missing.

    Raises:
        ResultError: if another process holds it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock = hold_folder(folder)
        self._files: dict[str, IO[bytes]] = {}
        self.columns: dict[str, Column] = {}

    # ------------------------------------------------------------------ the run's identity

    def run(self) -> dict[str, Any] | None:
        """Return what :meth:`begin` recorded, None when there is nothing to go on with."""
        return _record(self.folder)

    def begin(self, record: Mapping[str, Any]) -> None:
        """Forget whatever lies there and record what this run is."""
        self.clear()
        self.record(record)

    def record(self, record: Mapping[str, Any]) -> None:
        """Replace the run's record."""
        _replace(self.folder / RUN, json.dumps(record).encode())

    # ------------------------------------------------------------------ rows

    def write(self, start: int, name: str, variable: Variable) -> None:
        """Write rows ``[start, start + B)`` of a column.

        Raises:
            PluginError: if the batch differs from the column's earlier ones in type or shape.
        """
        column = Column.of(name, variable)
        known = self.columns.setdefault(name, column)
        if (column.dtype, column.shape, column.dims) != (known.dtype, known.shape, known.dims):
            raise PluginError(
                f"column '{name}' changed from {known.dtype} {known.dims} with rows {known.shape}"
                f" to {column.dtype} {column.dims} with rows {column.shape} between batches"
            )
        file = self._open(name)
        file.seek(start * known.row_bytes)
        file.write(np.ascontiguousarray(variable.values, dtype=known.dtype).tobytes())

    def read(self, name: str, start: int, stop: int) -> np.ndarray:
        """Return rows ``[start, stop)`` as written.

        Raises:
            PluginError: if some of them never were.
        """
        column = self.columns[name]
        file = self._open(name)
        file.flush()
        file.seek(start * column.row_bytes)
        data = file.read((stop - start) * column.row_bytes)
        if len(data) < (stop - start) * column.row_bytes:
            raise PluginError(
                f"column '{name}' lacks rows between {start} and {stop}; an analysis must return"
                " it for every batch"
            )
        rows = np.frombuffer(data, column.dtype).reshape(stop - start, *column.shape)
        return rows.astype(bool) if column.boolean else rows

    # ------------------------------------------------------------------ state

    def save(self, next_index: int, state: Mapping[str, np.ndarray]) -> None:
        """Make everything up to ``next_index`` durable.

        Raises:
            PluginError: if the state holds Python objects, which could only be pickled.
        """
        arrays = {f"state/{name}": np.asarray(value) for name, value in state.items()}
        for name, array in arrays.items():
            if array.dtype.hasobject:
                raise PluginError(
                    f"'{name}' holds Python objects; keep numbers or fixed-width text"
                )
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
        columns = {name: asdict(column) for name, column in self.columns.items()}
        _replace(self.folder / COLUMNS, json.dumps(columns).encode())
        with _replacing(self.folder / STATE) as out:
            np.savez(out, **{_NEXT: np.int64(next_index)}, **arrays)  # type: ignore[arg-type]

    def load(self) -> tuple[int, dict[str, np.ndarray]] | None:
        """Return the first row still to do and the state there, None when nothing was saved.

        Raises:
            ResultError: if the files are damaged.
        """
        if not (self.folder / STATE).exists():
            return None
        described = _read_json(self.folder / COLUMNS)
        try:
            self.columns = {
                name: Column(**{**c, "dims": tuple(c["dims"]), "shape": tuple(c["shape"])})
                for name, c in described.items()
            }
            with np.load(self.folder / STATE, allow_pickle=False) as saved:
                arrays = {name: saved[name] for name in saved.files}
            next_index = int(arrays.pop(_NEXT))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ResultError(_DAMAGED.format(self.folder / STATE)) from error
        return next_index, {name.removeprefix("state/"): a for name, a in arrays.items()}

    @property
    def saved(self) -> bool:
        """True when a resume would not begin at the first row."""
        return (self.folder / STATE).exists()

    # ------------------------------------------------------------------ the end

    def clear(self) -> None:
        """Remove everything but the lock, the run's record last: it says how to go on."""
        self._close_files()
        self.columns = {}
        for path in sorted(self.folder.iterdir(), key=lambda p: p.name == RUN):
            if path.name == LOCK:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()

    def close(self) -> None:
        """Let go of the folder, leaving it as it is."""
        self._close_files()
        self._lock.close()

    def remove(self) -> None:
        """Remove the folder."""
        self.clear()
        (self.folder / LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # another run may have begun there already
            self.folder.rmdir()
        self._lock.close()

    def _open(self, name: str) -> IO[bytes]:
        if name not in self._files:
            # numbered, so that no name a plugin chooses becomes a path
            path = self.folder / f"column-{list(self.columns).index(name)}.bin"
            self._files[name] = path.open("r+b" if path.exists() else "w+b")
        return self._files[name]

    def _close_files(self) -> None:
        for file in self._files.values():
            with contextlib.suppress(OSError):  # what is not on disk yet is written again on resume
                file.close()
        self._files = {}


def saved_record(folder: Path) -> dict[str, Any] | None:
    """Return what an unfinished run in a folder recorded, None where none has saved a state."""
    return _record(folder) if (folder / STATE).exists() else None


def _record(folder: Path) -> dict[str, Any] | None:
    path = folder / RUN
    if not path.exists():
        return None
    record: dict[str, Any] = _read_json(path)
    return record


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Return the first thing in which two runs' identities differ, in words; None if equal."""
    for name in [*now, *(name for name in before if name not in now)]:
        if before.get(name) != now.get(name):
            return f"{name} was {before.get(name)!r}, now {now.get(name)!r}"
    return None


def is_held(folder: Path) -> bool:
    """Return whether a living process holds the journal in a folder."""
    import fcntl

    try:
        file = (folder / LOCK).open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Write to a temporary name beside ``path``, then put it in its place at once.

    Yields:
        The file to write to.
    """
    temporary = new_beside(path)
    try:
        with temporary.open("wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _replace(path: Path, data: bytes) -> None:
    with _replacing(path) as out:
        out.write(data)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(_DAMAGED.format(path)) from error
