"""Write columns of rows as they stream: CSV, Parquet, numpy's files and plain HDF5."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, Any

import numpy as np

from isoprobe.errors import OptionError, ResultError
from isoprobe.files import archives
from isoprobe.files.hdf5 import create
from isoprobe.results.whole import check_place, replacing

Columns = Mapping[str, np.ndarray]
Write = Callable[[Columns], None]

#: bytes of a chunk of an HDF5 data set at most
_CHUNK = 1 << 20


def check_out(
    out: Path, formats: tuple[str, ...], *, overwrite: bool, inputs: Iterable[object] = ()
) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Args:
        out: the file.
        formats: endings it may have.
        overwrite: it may be replaced.
        inputs: paths of what the run reads.

    Raises:
        OptionError: for a name of another format, or Parquet without pyarrow.
    """
    if out.suffix not in formats:
        raise OptionError(f"--out takes a file ending in {', '.join(formats)}; found '{out.name}'.")
    if out.suffix == ".parquet":
        pyarrow_parts()
    check_place(out, overwrite=overwrite, inputs=inputs)


def check_folder(out: Path, *, inputs: Iterable[object] = ()) -> None:
    """Refuse a folder of Parquet parts that cannot be made, before any work is done.

    Args:
        out: the folder.
        inputs: paths of what the run reads.

    Raises:
        OptionError: without pyarrow.
        ResultError: when it exists: a folder of somebody's files is not replaced.
    """
    pyarrow_parts()
    if out.exists():
        raise ResultError(f"{out} exists already; remove it, or name another folder")
    check_place(out, inputs=inputs)


@contextmanager
def writing(out: Path, rows: int) -> Iterator[Write]:
    """Write columns into a file that is whole or not there.

    Args:
        out: the file, of a format in :data:`FLAT`.
        rows: that will come in all.

    Yields:
        A function that takes the columns of the next rows.

    Raises:
        ResultError: when it cannot be written.
    """
    try:
        with replacing(out) as partial, FLAT[out.suffix](partial, rows) as write:
            yield write
    except OSError as error:
        raise ResultError(f"cannot write {out}: {error.strerror or error}") from error


def csv_to(stream: IO[str]) -> Write:
    """Return a function that writes batches as CSV lines, the header before the first.

    Numbers are written with as many digits as tell them apart from every other; flags as 0 and 1.
    """
    writer = csv.writer(stream, lineterminator="\n")
    started = False

    def write(columns: Columns) -> None:
        nonlocal started
        flat = flatten(columns)
        if not started:
            writer.writerow(map(inert, flat))
            started = True
        values = (v.astype(np.int8) if v.dtype == bool else v for v in flat.values())
        cells = (map(inert, v.tolist()) if v.dtype.kind in "UO" else v.tolist() for v in values)
        writer.writerows(zip(*cells, strict=True))

    return write


def inert(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs as a formula: a quote mark makes it text.

    Args:
        cell: any.

    Returns:
        The cell.
    """
    runs = isinstance(cell, str) and cell.lstrip(" ")[:1] in set("=+-@\t\r\n")
    return f"'{cell}" if runs and cell else cell


def flatten(columns: Columns) -> dict[str, np.ndarray]:
    """Return columns of one number a row: ``rate_by_latent (B, n)`` becomes ``rate_0``, ..."""
    flat: dict[str, np.ndarray] = {}
    for name, values in columns.items():
        if values.ndim == 1:
            flat[name] = values
        else:
            stem = name.removesuffix("_by_latent")
            flat |= {f"{stem}_{j}": values[:, j] for j in range(values.shape[1])}
    return flat


@contextmanager
def _csv(path: Path, _: int) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield csv_to(stream)


@contextmanager
def parquet_to(path: Path, told: Mapping[str, str] | None = None) -> Iterator[Write]:
    """Write columns into a Parquet file, a row group each time.

    Args:
        path: the file.
        told: what its schema says beside the columns.

    Yields:
        A function that takes the columns of the next rows.
    """
    pyarrow, parquet = pyarrow_parts()
    writer: Any = None

    def write(columns: Columns) -> None:
        nonlocal writer
        table = pyarrow.table(flatten(columns)).replace_schema_metadata(told)
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


@contextmanager
def _arrays(folder: Path, rows: int) -> Iterator[tuple[dict[str, np.memmap[Any, Any]], Write]]:
    """Columns as they grow in files of their own, so that memory stays flat."""
    held: dict[str, np.memmap[Any, Any]] = {}
    start = 0

    def write(columns: Columns) -> None:
        nonlocal start
        count = len(next(iter(columns.values())))
        for name, values in columns.items():
            if name not in held:
                shape = (rows, *values.shape[1:])
                held[name] = np.lib.format.open_memmap(
                    folder / f"{name}.npy", "w+", values.dtype, shape
                )
            held[name][start : start + count] = values
        start += count

    yield held, write
    for array in held.values():
        array.flush()


@contextmanager
def _npz(path: Path, rows: int) -> Iterator[Write]:
    with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as name:
        folder = Path(name)
        with _arrays(folder, rows) as (held, write):
            yield write
        with archives.created(path) as archive:
            for column in held:
                archive.write(folder / f"{column}.npy", f"{column}.npy")


@contextmanager
def _npy(path: Path, rows: int) -> Iterator[Write]:
    """The one column there is."""
    with TemporaryDirectory(dir=path.parent, prefix=f"{path.name}.") as name:
        with _arrays(Path(name), rows) as (held, write):
            yield write
        for column in held:
            (Path(name) / f"{column}.npy").replace(path)


@contextmanager
def _hdf5(path: Path, rows: int) -> Iterator[Write]:
    import h5py

    start = 0
    with ExitStack() as stack:
        file = stack.enter_context(create(path))

        def write(columns: Columns) -> None:
            nonlocal start
            count = len(next(iter(columns.values())))
            for name, values in columns.items():
                if name not in file:
                    # as long as a batch, so that no chunk is packed, read and packed again
                    chunk = (min(count, max(1, _CHUNK // values[0].nbytes)), *values.shape[1:])
                    kind = h5py.string_dtype() if values.dtype.kind == "U" else values.dtype
                    file.create_dataset(
                        name, (rows, *values.shape[1:]), kind, chunks=chunk, compression="gzip",
                        shuffle=values.dtype.kind in "iuf",
                    )  # fmt: skip
                file[name][start : start + count] = (
                    values.astype(object) if values.dtype.kind == "U" else values
                )
            start += count

        yield write


FLAT: Mapping[str, Callable[[Path, int], AbstractContextManager[Write]]] = {
    ".csv": _csv,
    ".parquet": lambda path, _: parquet_to(path),
    ".npz": _npz,
    ".npy": _npy,
    ".h5": _hdf5,
}


def pyarrow_parts() -> tuple[Any, Any]:
    """Return pyarrow and its Parquet module.

    Raises:
        OptionError: when it is not installed.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise OptionError(
            "Parquet needs pyarrow, which is not installed; pip install 'isoprobe[data]', or write "
            "a .csv or .h5 file."
        ) from error
    return pyarrow, parquet
