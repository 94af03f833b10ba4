"""Read tables in Parquet files, through pyarrow one row group at a time."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.contracts import Dataset
from isoprobe.data.files import fingerprint, shown_name
from isoprobe.errors import DataError
from isoprobe.files.meter import Meter

if TYPE_CHECKING:
    from isoprobe_plugins.data.columns import Roles


class ParquetDataset(Dataset):
    """Numbers in every column that is an input; the row group read last is held in memory.

    Args:
        path: the file.
        roles: which columns are inputs, labels, or go along.

    Raises:
        DataError: when it is damaged, pyarrow is missing, or columns are no numbers.
    """

    dtype = "float64"

    def __init__(self, path: Path, roles: Roles) -> None:
        self.name = shown_name(path, roles.spec)
        self._path, self._roles = path, roles
        self._file = _open(path)
        try:
            self._choose(roles)
        except DataError:
            self.close()
            raise
        self.shape = (len(self._columns),)
        self.columns = tuple(self._columns)
        self.notes = (f"{len(self._columns)} columns read as numbers",)
        metadata = self._file.metadata
        sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        if any(size < 0 for size in sizes):
            self.close()
            raise DataError(f"{path} is damaged: a group of it has {min(sizes)} rows")
        self._starts = np.cumsum([0, *sizes])
        self._group: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at ascending indices, ``(len(indices), columns)`` float64; a null is NaN."""
        return np.concatenate(
            [
                np.stack(
                    [_array(table.column(name)).astype(np.float64) for name in self._columns],
                    axis=1,
                )
                for table in self._tables(indices)
            ]
        )

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Labels of the rows, as stored."""
        if self._label is None:
            return None
        parts = [_array(table.column(self._label)) for table in self._tables(indices)]
        labels = np.concatenate(parts)
        return labels.astype(np.str_) if labels.dtype == object else labels

    def carry(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Columns that go along, numbers as numbers and all else as text."""
        tables = self._tables(indices)
        found = {
            name: np.concatenate([_array(table.column(name)) for table in tables])
            for name in self.carried
        }
        return {n: v if v.dtype.kind in "fiub" else v.astype(np.str_) for n, v in found.items()}

    def fingerprint(self) -> str:
        """Hash of sampled blocks of the file, see :func:`isoprobe.data.files.fingerprint`."""
        return fingerprint(self._path, self._roles.part)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _choose(self, roles: Roles) -> None:
        import pyarrow as pa

        schema = self._file.schema_arrow
        places = roles.places(schema.names, len(schema.names), str(self._path))
        self._label = None if places.label is None else schema.names[places.label]
        self._columns = [schema.names[i] for i in places.inputs]
        self.carried = tuple(schema.names[i] for i in places.kept)
        self.raw = places.raw
        chosen = {*places.inputs, *places.kept, places.label} - {None}
        self._read = [name for place, name in enumerate(schema.names) if place in chosen]
        if len(set(schema.names)) < len(schema.names):
            raise DataError(f"{self._path} has two columns of one name; rename one")
        for name in self._columns:
            kind = schema.field(name).type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or kind == pa.bool_()):
                raise DataError(
                    f"column '{name}' of {self._path} has type {kind}; expected numbers: drop it, "
                    f"or, if it is the label, add ':label={name}', if it is to go along, "
                    f"':keep={name}'"
                )

    def _tables(self, indices: np.ndarray) -> list[Any]:
        """Chosen rows of each row group that holds some, in order."""
        if len(indices) and int(indices[-1]) >= len(self):
            raise DataError(f"{self._path} has {len(self):,} rows, and none at {indices[-1]}")
        groups = np.searchsorted(self._starts, indices, side="right") - 1
        return [
            self._rows_of(int(group), indices[groups == group] - self._starts[group])
            for group in np.unique(groups)
        ]

    def _rows_of(self, group: int, rows: np.ndarray) -> Any:
        table = self._read_group(group)
        if len(rows) and int(rows.max()) >= table.num_rows:
            raise DataError(f"{self._path} is damaged: its group {group} has {table.num_rows} rows")
        if len(rows) and int(rows[-1]) - int(rows[0]) == len(rows) - 1:
            return table.slice(int(rows[0]), len(rows))
        return table.take(rows)

    def _read_group(self, group: int) -> Any:
        if self._group[0] != group:
            import pyarrow as pa

            self._check_group(group)
            try:
                table = self._file.read_row_group(group, self._read, use_threads=False)
                self._group = (group, table)
            except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
                raise DataError(f"{self._path} is damaged ({_line(error)})") from error
        return self._group[1]

    def _check_group(self, group: int) -> None:
        """Refuse a row group that unpacks to more than the file's size allows."""
        # of the group alone: pyarrow ends the process when it is asked for a damaged column
        found = self._file.metadata.row_group(group)
        rows = found.num_rows * found.num_columns * 8  # a value said once may stand for a million
        meter = Meter(self._path, self._path.stat().st_size)
        meter.check(max(found.total_byte_size, rows), f"its group of {found.num_rows} rows")


def _open(path: Path) -> Any:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise DataError(
            f"{path} is a Parquet file, which needs pyarrow: pip install 'isoprobe[data]'"
        ) from error
    try:
        return pq.ParquetFile(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{path} is no whole Parquet file ({_line(error)}); fetch it again"
        ) from error


def _array(column: Any) -> np.ndarray:
    array: np.ndarray = column.to_numpy()
    return array


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
