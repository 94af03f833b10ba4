"""Read cells of an AnnData file, ``FILE.h5ad[:X | layers/NAME[,OBS]]``, genes and a label."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.errors import DataError, nearest
from isoprobe.files.meter import OBJECT
from isoprobe_plugins.data.streams import runs

if TYPE_CHECKING:
    import h5py

    from isoprobe.files.hdf5 import Hdf5File

ENCODING = "anndata"
#: bytes of the rows that are made dense at once
_DENSE = 1 << 30
#: values that are read at once
_AT_ONCE = 1 << 20


def holds_cells(file: Hdf5File) -> bool:
    """Return True for an AnnData file, by what it says of itself."""
    return bool(file.attribute(file.file, "encoding-type") == ENCODING)


class SparseRows:
    """Rows of a matrix stored by rows (CSR), made dense as they are read.

    Args:
        file: the open file.
        group: the matrix.
        width: number of columns, as the file names them.
        what: what is read, for error messages.

    Raises:
        DataError: when its parts do not fit each other.
    """

    def __init__(self, file: Hdf5File, group: h5py.Group, width: int, what: str) -> None:
        self._file, self._what, self.notes = file, what, ()
        parts = {name: file.child(group, name) for name in ("data", "indices", "indptr")}
        lacking = next((name for name, part in parts.items() if not hasattr(part, "dtype")), None)
        if lacking is not None:
            raise DataError(f"{what} has no {lacking}; expected a matrix by rows (CSR)")
        self._values, self._places = parts["data"], parts["indices"]
        ends = file.read(parts["indptr"])
        sound = (
            ends.ndim == 1
            and len(ends) > 0
            and ends.dtype.kind in "iu"
            and self._places.dtype.kind in "iu"
            and self._values.dtype.kind in "iufb"
            and ends[0] == 0
            and bool((np.diff(ends.astype(np.int64)) >= 0).all())
            and self._values.shape == self._places.shape == (int(ends[-1]),)
        )
        told = file.attribute(group, "shape")
        if told is not None:
            lengths = np.asarray(told)
            numbers = lengths.shape == (2,) and lengths.dtype.kind in "iuf"
            sound = sound and numbers and bool(lengths[1] == width)
        if not sound:
            raise DataError(f"{what} is damaged: its rows do not fit its values")
        for part in (self._values, self._places):
            file.check_whole(part)
        self._ends = ends.astype(np.int64)
        self.shape: tuple[int, ...] = (len(ends) - 1, width)
        self.dtype: np.dtype = self._values.dtype

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return rows at ascending indices, dense, ``(len(indices), genes)``.

        Raises:
            DataError: when a value lies outside the matrix, or there is too much at once.
        """
        width = self.shape[1]
        if len(indices) * width * self.dtype.itemsize > _DENSE:
            raise DataError(f"{self._what}: {len(indices)} rows of {width} at once; take fewer")
        rows = np.zeros((len(indices), width), self.dtype)
        for begin, end in runs(indices):
            first, last = int(indices[begin]), int(indices[end - 1]) + 1
            self._fill(rows[begin:end], first, self._ends[first : last + 1])
        return rows

    def _fill(self, rows: np.ndarray, first: int, ends: np.ndarray) -> None:
        """Put the values of rows that lie together into their places, a share of them at a time."""
        counts = np.diff(ends)
        if counts.max(initial=0) > self.shape[1]:
            raise DataError(
                f"{self._what} is damaged: row {first + int(counts.argmax())} has "
                f"{int(counts.max())} values in {self.shape[1]} columns"
            )
        for begin in range(int(ends[0]), int(ends[-1]), _AT_ONCE):
            span = slice(begin, min(begin + _AT_ONCE, int(ends[-1])))
            at = np.searchsorted(ends, np.arange(span.start, span.stop), side="right") - 1
            places = self._file.rows(self._places, span).astype(np.int64)
            wrong = (places < 0) | (places >= self.shape[1])
            if wrong.any():
                row = first + int(at[wrong.argmax()])
                raise DataError(f"{self._what} is damaged: row {row} has a value in no column")
            # a place that stands twice holds the sum, as in scipy
            np.add.at(rows, (at, places), self._file.rows(self._values, span))

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class HeldRows:
    """A column of labels, in memory.

    Args:
        values: of every row.
    """

    def __init__(self, values: np.ndarray) -> None:
        self.values, self.shape, self.dtype = values, values.shape, values.dtype
        self.notes: tuple[str, ...] = ()

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return values at indices."""
        found: np.ndarray = self.values[indices]
        return found

    def close(self) -> None:
        """Nothing is held open."""


def open_cells(
    file: Hdf5File, path: Path, member: str | None, dense: Callable[[Any, str], Any]
) -> tuple[str, Any, dict[str, HeldRows], tuple[str, ...]]:
    """Open what is asked of an AnnData file.

    Args:
        file: the open file.
        path: its path.
        member: ``X`` or ``layers/NAME``, and names of columns of ``obs`` as labels.
        dense: opens a data set as rows.

    Returns:
        What was asked in full, the rows, labels by name, and names of the genes.

    Raises:
        DataError: for a part that there is not, or that is no matrix by rows.
    """
    matrix, *labels = [part.strip().strip("/") for part in (member or "X").split(",")]
    matrix = matrix or "X"
    node = file.file
    for part in matrix.split("/"):
        node = None if node is None else file.child(node, part)
    if node is None:
        layers = file.child(file.file, "layers")
        known = ["X", *(f"layers/{name}" for name in (file.names(layers) if layers else []))]
        raise DataError(f"{path} has no matrix '{matrix}'{nearest(matrix, known) or ';'} it has: "
                        f"{', '.join(known)}")  # fmt: skip
    what = f"{path}:{matrix}"
    genes = tuple(_texts(file, _child(file, file.file, "var", path), "_index", path))
    if hasattr(node, "dtype"):
        rows = dense(node, what)
        if len(rows.shape) != 2 or rows.shape[1] != len(genes):
            raise DataError(f"{what} of shape {rows.shape} does not fit {len(genes)} genes")
    else:
        form = str(file.attribute(node, "encoding-type"))
        if form != "csr_matrix":
            raise DataError(
                f"{what} is stored as {form!r}; expected a dense matrix or one by rows "
                "(csr_matrix): in Python, adata.X = adata.X.tocsr(), and write it again"
            )
        rows = SparseRows(file, node, len(genes), what)
    obs = _child(file, file.file, "obs", path)
    held = {name: HeldRows(_column(file, obs, name, path)) for name in labels}
    return ",".join([matrix, *labels]), rows, held, genes


def _child(file: Hdf5File, group: Any, name: str, path: Path) -> Any:
    found = file.child(group, name)
    if found is None or hasattr(found, "dtype"):
        raise DataError(f"{path} has no table '{name}', as AnnData files have")
    return found


def _texts(file: Hdf5File, table: Any, name: str, path: Path) -> list[str]:
    """The index of a table."""
    named = str(file.attribute(table, name, name))
    found = file.child(table, named)
    if found is None or not hasattr(found, "dtype"):
        raise DataError(f"{path}: a table of it has no index {named!r}")
    values = file.read(found).reshape(-1)
    file.meter.charge(OBJECT * len(values), f"index {named!r}")
    return [_text(value) for value in values]


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _column(file: Hdf5File, obs: Any, name: str, path: Path) -> np.ndarray:
    """A column of ``obs``: numbers as they are, categories and texts as texts."""
    found = file.child(obs, name)
    if found is None:
        known = [n for n in file.names(obs) if not n.startswith("_")]
        raise DataError(
            f"{path} has no column '{name}' of obs{nearest(name, known) or ';'} it has: "
            f"{', '.join(known[:20])}"
        )
    if hasattr(found, "dtype"):
        values = file.read(found).reshape(-1)
        if values.dtype.kind in "iufb":
            return values
        return file.meter.texts([_text(value) for value in values], f"column '{name}' of obs")
    codes, named = file.child(found, "codes"), file.child(found, "categories")
    if not hasattr(codes, "dtype") or not hasattr(named, "dtype"):
        raise DataError(f"{path}: column '{name}' of obs is of a kind that is not read")
    numbers = file.read(codes).reshape(-1)
    texts = file.meter.texts([_text(v) for v in file.read(named).reshape(-1)] or [""])
    if numbers.dtype.kind not in "iu" or (len(numbers) and int(numbers.max()) >= len(texts)):
        raise DataError(f"{path}: column '{name}' of obs is damaged: a code without a category")
    if len(numbers) and int(numbers.min()) < 0:
        raise DataError(f"{path}: column '{name}' of obs is empty in row {int(numbers.argmin())}")
    file.meter.check(texts.itemsize * len(numbers), f"column '{name}' of obs")
    labels: np.ndarray = texts[numbers]
    return labels
