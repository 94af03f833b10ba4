"""Read tables in Parquet files, through pyarrow one row group at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.contracts import Dataset
from isoprobe.data.files import fingerprint, shown_name
from isoprobe.errors import DataError
from isoprobe.files.parquet import ParquetFile

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
        self._file = ParquetFile(path)
        try:
            self._choose(roles)
        except DataError:
            self.close()
            raise
        self.shape = (len(self._columns),)
        self.columns = tuple(self._columns)
        self.notes = (f"{len(self._columns)} columns read as numbers",)
        self._starts = np.cumsum([0, *self._file.rows])
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
        return None if self._label is None else self._beside(self._label, self._tables(indices))

    def carry(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Columns that go along, numbers as numbers and all else as text."""
        tables = self._tables(indices)
        return {name: self._beside(name, tables) for name in self.carried}

    def _beside(self, name: str, tables: Sequence[Any]) -> np.ndarray:
        """Values of a column that is no input, text where they are no numbers."""
        found = np.concatenate([_array(table.column(name)) for table in tables])
        if found.dtype.kind in "fiub":
            return found
        return self._file.meter.texts(found, f"column '{name}'")

    def fingerprint(self) -> str:
        """Hash of sampled blocks of the file, see :func:`isoprobe.data.files.fingerprint`."""
        return fingerprint(self._path, self._roles.part)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _choose(self, roles: Roles) -> None:
        import pyarrow as pa

        schema = self._file.schema
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
                shown = kind.value_type if pa.types.is_dictionary(kind) else kind
                raise DataError(
                    f"column '{name}' of {self._path} has type {shown}; expected numbers: drop it, "
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
        if len(rows) and int(rows[-1]) - int(rows[0]) == len(rows) - 1:
            return table.slice(int(rows[0]), len(rows))
        return table.take(rows)

    def _read_group(self, group: int) -> Any:
        if self._group[0] != group:
            self._group = (-1, None)  # two are never held
            self._group = (group, self._file.read(group, self._read))
        return self._group[1]


def _array(column: Any) -> np.ndarray:
    """Return a column's values; of a dictionary only those that stand in the rows are made."""
    if not hasattr(column.type, "index_type"):
        plain: np.ndarray = column.to_numpy()
        return plain
    parts = []
    for chunk in column.chunks:
        places = chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        used, which = np.unique(places, return_inverse=True)
        values = chunk.dictionary.take(used[used >= 0]).to_pylist()
        parts.append(np.array([None] * (used[:1] < 0).sum() + values, object)[which])
    return np.concatenate(parts) if parts else np.empty(0, object)
