"""Where scores go as they stream: CSV text, Parquet or HDF5, each file whole or not there."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from isoprobe.contracts import Variable
from isoprobe.errors import OptionError, ResultError
from isoprobe.results.whole import check_place, replacing
from isoprobe.results.writer import ResultWriter

if TYPE_CHECKING:
    from isoprobe.run.scoring import Scoring

Columns = Mapping[str, np.ndarray]
Write = Callable[[Columns], None]

_TEXTS = {
    "row": ("row of the data", "1"),
    "score": ("anomaly score L_x", "metric"),
    "distortion": ("distortion part of the score", "metric"),
    "transform": ("w D(x, x_check) of the decomposed loss", "metric"),
    "rate": ("beta KL, summed over latents", "metric"),
    "rate_by_latent": ("beta KL_j", "metric"),
    "distortion_map": ("distortion part of the score by input", "metric"),
    "p_value": ("conformal p-value against the reference", "1"),
}
#: names of the axes of one input, by their number
_AXES = {1: ("input",), 2: ("row", "column"), 3: ("channel", "row", "column")}
#: formats a file's name can ask for
FORMATS = (".csv", ".parquet", ".h5")


@dataclass(frozen=True)
class Sink:
    """Takes the columns of successive batches.

    Attributes:
        write: takes those of one batch.
        done: rows that an earlier run has written already.
    """

    write: Write
    done: int = 0


def check_out(
    out: Path | None,
    *,
    overwrite: bool,
    by_input: bool = False,
    resume: bool = False,
    inputs: Iterable[object] = (),
) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Args:
        out: the file; None for CSV to a stream.
        overwrite: it may be replaced.
        by_input: it is to hold distortion maps.
        resume: an unfinished one is to be completed.
        inputs: what the run reads, which it may not replace.

    Raises:
        OptionError: for a name of no known format, Parquet without pyarrow, or a table that is to
            hold maps or to be resumed.
        ResultError: when the file exists and may not be replaced, or has no folder.
    """
    if by_input and (out is None or out.suffix != ".h5"):
        raise OptionError("--map needs a file that holds arrays: add --out FILE.h5.")
    if resume and (out is None or out.suffix != ".h5"):
        raise OptionError("--resume needs a file that is journaled: it goes with --out FILE.h5.")
    if out is None:
        return
    if out.suffix not in FORMATS:
        raise OptionError(f"--out takes a file ending in {', '.join(FORMATS)}; found '{out.name}'.")
    if out.suffix == ".parquet":
        _pyarrow()
    check_place(out, overwrite=overwrite or resume, inputs=inputs)


@contextmanager
def open_out(
    out: Path, scoring: Scoring, *, overwrite: bool = False, resume: bool = False
) -> Iterator[Sink]:
    """Open a file for the columns of successive batches; a table that fails leaves nothing.

    HDF5 is journaled beside the file, as by ``analyze``: what an interrupted run leaves there can
    be resumed.

    Args:
        out: ``.csv``, ``.parquet`` or ``.h5``.
        scoring: what is about to be written.
        overwrite: replace an existing file.
        resume: go on with an unfinished HDF5 file, if there is one.

    Yields:
        What takes the columns, and how many rows it has already.

    Raises:
        OptionError: for another format, or Parquet without pyarrow.
        ResultError: when the file exists, or cannot be written.
    """
    check_out(out, overwrite=overwrite, resume=resume)
    try:
        if out.suffix == ".h5":
            with _hdf5(out, scoring, overwrite=overwrite, resume=resume) as sink:
                yield sink
        else:
            with replacing(out) as partial, _FLAT[out.suffix](partial) as write:
                yield Sink(write)
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
            writer.writerow(map(_inert, flat))
            started = True
        values = (v.astype(np.int8) if v.dtype == bool else v for v in flat.values())
        cells = (map(_inert, v.tolist()) if v.dtype.kind in "UO" else v.tolist() for v in values)
        writer.writerows(zip(*cells, strict=True))

    return write


def _inert(cell: Any) -> Any:
    """Return a cell that no spreadsheet runs as a formula: a quote mark makes it text."""
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
def _csv(path: Path) -> Iterator[Write]:
    with path.open("w", encoding="utf-8", newline="") as stream:
        yield csv_to(stream)


@contextmanager
def _parquet(path: Path) -> Iterator[Write]:
    pyarrow, parquet = _pyarrow()
    writer: Any = None

    def write(columns: Columns) -> None:
        nonlocal writer
        table = pyarrow.table(flatten(columns))
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)

    try:
        yield write
    finally:
        if writer is not None:
            writer.close()


_FLAT = {".csv": _csv, ".parquet": _parquet}


@contextmanager
def _hdf5(out: Path, scoring: Scoring, *, overwrite: bool, resume: bool) -> Iterator[Sink]:
    attributes = scoring.attributes()
    maps = scoring.objective.by_input
    writer = ResultWriter.open(
        out,
        samples=scoring.rows,
        latent=scoring.vae.latent_size,
        overwrite=overwrite,
        resume=resume,
        identity={**attributes, "parts": scoring.by_latent, "map": maps},
    )
    done, _ = writer.resume_point() or (0, {})

    def write(columns: Columns) -> None:
        nonlocal done
        writer.append(done, {name: _variable(name, v) for name, v in columns.items()})
        done += len(columns["score"])
        writer.checkpoint(done, {})

    with writer:
        yield Sink(write, done)
        writer.finish(attributes).close()


def _variable(name: str, values: np.ndarray) -> Variable:
    long_name, units = _TEXTS.get(name, (f"above the threshold by {name[5:]}", "1"))
    if name == "flag_alpha":
        long_name = "p-value at most alpha"
    dims: tuple[str, ...] = ("sample",)
    if name == "rate_by_latent":
        dims = ("sample", "latent")
    elif name == "distortion_map":
        dims = ("sample", *_AXES.get(values.ndim - 1, _numbered(values.ndim - 1)))
    return Variable(dims, values, long_name, units)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"input_{axis}" for axis in range(count))


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise OptionError(
            "Parquet needs pyarrow, which is not installed; pip install 'isoprobe[data]', or write "
            "a .csv or .h5 file."
        ) from error
    return pyarrow, parquet
