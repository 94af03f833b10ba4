"""Write a result file: rows in order into a file of another name, published whole by a rename."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.errors import PluginError
from isoprobe.files.closing import Closing
from isoprobe.files.hdf5 import create
from isoprobe.results import netcdf
from isoprobe.results.columns import Column
from isoprobe.results.reader import FORMAT, Result
from isoprobe.results.versions import FORMAT_VERSION
from isoprobe.results.working import Working, explained

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import Variable

SAMPLES = "samples"
#: folders at the beginning of an absolute path, of Unix or of Windows, in any text
_FOLDERS = re.compile(
    r"(?<![\w.:)/\\])(?:[A-Za-z]:|~)?[/\\](?:[^\s/\\\"'][^/\\\"'\n]*[/\\])*(?=[^/\\\s])"
)


class ResultWriter(Closing):
    """Takes rows in, and hands a complete result file back at the end.

    Until then it lies in the working folder ``<name>.partial`` beside the target; an older file of
    that name stays as it is until the new one is whole. Use it as a context manager, or call
    :meth:`finish` or :meth:`abort`.

    Args:
        working: the folder, held.
        samples: length of dimension ``sample``.
        latent: length of dimension ``latent``.
        keeps_rows: the result has a group of per-sample columns; otherwise they are there until
            it is whole, in a file beside it.
    """

    def __init__(
        self, working: Working, *, samples: int, latent: int, keeps_rows: bool = True
    ) -> None:
        self.path = working.target
        self.keeps_rows = keeps_rows
        self._working = working
        self._sizes = {"sample": samples, "latent": latent}
        self._columns: dict[str, Column] = {}
        self._done: dict[str, int] = {}  # rows of each column
        # kept open: HDF5 forgets a closed column's chunk, to unpack and pack it again a batch later
        self._open: dict[str, Any] = {}
        self._groups: dict[str, Mapping[str, Variable]] = {}
        self._assembled = working.folder / "assembled.h5"
        with explained(self.path):
            self._file = create(self._assembled, netcdf.CHUNK_BYTES)
            netcdf.write_scales(self._file, self._sizes)
            self._rows = self._file
            if not keeps_rows:
                self._rows = create(working.folder / "rows.h5", netcdf.CHUNK_BYTES)
                netcdf.write_scales(self._rows, self._sizes)

    @classmethod
    def open(
        cls, path: Path | None, *, samples: int, latent: int, overwrite: bool = False
    ) -> ResultWriter:
        """Begin a result in one go, without shards.

        Args:
            path: the file to be; None for one in a temporary folder that goes away with the result.
            samples: length of dimension ``sample``.
            latent: length of dimension ``latent``.
            overwrite: replace an existing result, discard an unfinished one.

        Returns:
            The writer, holding a lock on the target.

        Raises:
            ResultError: if the target exists, or is being written.
        """
        return cls(Working.open(path, overwrite=overwrite), samples=samples, latent=latent)

    # ------------------------------------------------------------------ rows

    def append(self, start: int, columns: Mapping[str, Variable]) -> None:
        """Store rows ``[start, start + B)`` of per-sample columns, each in the order of its rows.

        Raises:
            PluginError: if a column changes its type or shape, leaves rows out, or runs past the
                last sample.
        """
        with explained(self.path):
            for name, variable in columns.items():
                rows = len(variable.values) if variable.values.ndim else 0
                last = self._sizes["sample"] - start
                sizes = {"sample": min(rows, last), "latent": self._sizes["latent"]}
                netcdf.check_group(SAMPLES, {name: variable}, sizes)
                described = Column.of(name, variable)
                known = self._columns.setdefault(name, described)
                known.require_like(name, described)
                self._require_next(name, start)
                data = self._data(name, known)
                data[start : start + rows] = known.stored(variable.values)
                self._done[name] = start + rows

    def names(self) -> list[str]:
        """Return the names of the stored columns."""
        return list(self._columns)

    def columns(
        self, start: int, stop: int, names: list[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Return rows ``[start, stop)`` of stored columns.

        Raises:
            PluginError: if a column is unknown or lacks some of these rows.
        """
        stop = min(stop, self._sizes["sample"])
        with explained(self.path):
            return {
                name: self._read(name, start, stop)
                for name in (self.names() if names is None else names)
            }

    def _read(self, name: str, start: int, stop: int) -> np.ndarray:
        if self._done.get(name, 0) < stop:
            raise PluginError(_lacking(name, self._done.get(name, 0), stop))
        column = self._columns[name]
        return column.given(self._open[name][start:stop])

    def _require_next(self, name: str, start: int) -> None:
        done = self._done.get(name, 0)
        if start > done:
            raise PluginError(_lacking(name, done, start))
        if start < done:
            raise PluginError(f"column '{name}' has rows up to {done} already; found row {start}")

    def _data(self, name: str, column: Column) -> Any:
        if name not in self._open:
            rows = self._sizes["sample"]
            self._open[name] = netcdf.create_column(self._rows, SAMPLES, name, column, rows)
        return self._open[name]

    # ------------------------------------------------------------------ the end

    def write_group(self, name: str, variables: Mapping[str, Variable]) -> None:
        """Keep the named arrays of an analysis for the file.

        Raises:
            PluginError: naming the variable whose name, dimensions or type will not do.
        """
        netcdf.check_group(name, variables, self._sizes)
        self._groups[name] = dict(variables)

    def finish(self, attrs: Mapping[str, Any]) -> Result:
        """Complete the file, put it in its place at once, and open it.

        Args:
            attrs: root attributes; only the format and its version are added, no time stamp.

        Returns:
            The complete result.

        Raises:
            PluginError: if a column lacks rows.
            ResultError: if the disk is full or the like; shards are kept.
        """
        for name, done in self._done.items():
            if done < self._sizes["sample"]:
                raise PluginError(_lacking(name, done, self._sizes["sample"]))
        with explained(self.path):
            for name, variables in self._groups.items():
                netcdf.write_group(self._file, name, variables)
            ours = {
                "format": FORMAT,
                "format_version": FORMAT_VERSION,
                "complete": True,
                "comment": _pointing([SAMPLES] * (SAMPLES in self._file) + [*self._groups]),
            }
            netcdf.write_attributes(self._file, {**attrs, **ours})
            self._close()
        self._working.publish(self._assembled)
        return Result.open(self.path, temporary=self._working.temporary)

    def abort(self) -> None:
        """Give up; shards that are done stay, nothing else does."""
        self._discard()
        self._working.close(keep=self._working.begun)

    def _discard(self) -> None:
        try:
            self._close()
        finally:
            self._assembled.unlink(missing_ok=True)

    def _close(self) -> None:
        self._open.clear()
        self._file.close()
        if self._rows is not self._file:
            self._rows.close()
            (self._working.folder / "rows.h5").unlink(missing_ok=True)

    def leave(self, error: BaseException | None) -> None:
        """Close, whatever ends the block."""
        try:
            with explained(self.path):
                self._discard()
        finally:
            self._working.leave(error)


def _pointing(groups: list[str]) -> str:
    """What a reader of the root alone, which holds no arrays, should know."""
    return (
        f"arrays are in the groups {', '.join(sorted(groups))}; each opens by its name, as in "
        "xarray.open_dataset(file, group='overview'), all of them with xarray.open_datatree(file)"
    )


def _lacking(name: str, start: int, stop: int) -> str:
    return (
        f"column '{name}' lacks rows between {start} and {stop}; an analysis must return it for"
        " every batch"
    )


def without_places(attrs: Mapping[str, Any]) -> dict[str, Any]:
    """Return root attributes that tell neither the command line nor a folder.

    Args:
        attrs: of a result.

    Returns:
        The same, ``command`` empty, of every path its last name alone, and ``rows_left_out``.
    """
    told = {name: _without_folders(value) for name, value in attrs.items()}
    return {**told, "command": "", "rows_left_out": True}


def _without_folders(value: Any) -> Any:
    if isinstance(value, str):
        return _FOLDERS.sub("", value)
    return [_without_folders(one) for one in value] if isinstance(value, list) else value
