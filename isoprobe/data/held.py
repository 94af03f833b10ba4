"""Read rows as people hold them in Python: arrays, tables, data sets, loaders."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from isoprobe.contracts import Dataset
from isoprobe.errors import DataError

#: keys under which a row that is a mapping keeps its input, the most usual first
_INPUTS = ("x", "input", "inputs", "image", "images", "img", "pixel_values", "data", "features")
#: kinds of numpy types that are numbers
_NUMBERS = "biuf"


class Held(Dataset):
    """Rows already in memory.

    Args:
        rows: ``(N, ...)``, numbers.
        name: as shown in summaries.
        notes: what a reader should know about how they were read.
        labels: of the rows, ``(N,)``.
        carried: columns that go along with the rows, ``(N,)`` each, by name.
        columns: names of the values of a row.
    """

    def __init__(
        self,
        rows: np.ndarray,
        name: str = "array in memory",
        notes: Sequence[str] = (),
        labels: np.ndarray | None = None,
        carried: Mapping[str, np.ndarray] | None = None,
        columns: Sequence[str] = (),
    ) -> None:
        self.name = name
        self.rows = rows
        self.shape = tuple(rows.shape[1:])
        self.dtype = rows.dtype.name
        self.notes = tuple(notes)
        self._labels = labels
        self._carried = dict(carried or {})
        self.carried = tuple(self._carried)
        self.columns = tuple(columns)

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at the indices."""
        rows: np.ndarray = self.rows[indices]
        return rows

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Labels at the indices, where there are some."""
        return None if self._labels is None else self._labels[indices]

    def carry(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Columns that go along with the rows."""
        return {name: np.asarray(values)[indices] for name, values in self._carried.items()}

    def fingerprint(self) -> str:
        """Hash of all bytes."""
        return hashlib.sha256(np.ascontiguousarray(self.rows).tobytes()).hexdigest()[:16]


class Items(Dataset):
    """Rows that an object with ``len`` and ``[i]`` gives one by one.

    Args:
        items: the object; each item is an input, a tuple with the input first, or a mapping.
        name: as shown in summaries.
        notes: what a reader should know about how they were read.
    """

    def __init__(self, items: Any, name: str, notes: Sequence[str] = ()) -> None:
        self.items, self.name = items, name
        first, key = _input_of(items[0], None, name)
        self._key = key
        array = _numbers(first, name)
        self.shape, self.dtype = tuple(array.shape), array.dtype.name
        self.notes = (*notes, *(() if key is None else (f"input of each row under '{key}'",)))

    def __len__(self) -> int:
        return len(self.items)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at the indices."""
        rows = []
        for index in indices:
            row = _numbers(_input_of(self.items[int(index)], self._key, self.name)[0], self.name)
            if row.shape != self.shape:
                raise DataError(
                    f"{self.name}: row {index} has shape {row.shape}, the first {self.shape}; "
                    "expected rows of one shape"
                )
            rows.append(row)
        return np.stack(rows) if rows else np.empty((0, *self.shape), self.dtype)

    def fingerprint(self) -> str:
        """Hash of up to 256 rows, evenly spaced, and of their number."""
        count = len(self)
        digest = hashlib.sha256(repr((count, self.shape, self.dtype)).encode())
        for index in np.unique(np.linspace(0, count - 1, min(count, 256)).astype(np.int64)):
            digest.update(np.ascontiguousarray(self.read(np.array([index]))).tobytes())
        return digest.hexdigest()[:16]


def hold(data: Any) -> Dataset:
    """Read rows as they are held: nothing is filled in, left out or converted without a word.

    Args:
        data: an array or tensor ``(N, ...)``, a list of rows, a pandas or polars data frame, an
            xarray DataArray, an AnnData, a sparse matrix, a torch Dataset or DataLoader, or a
            Hugging Face data set.

    Returns:
        The rows, opened.

    Raises:
        DataError: when they are masked, ragged, no numbers, or of a kind that is not known.
    """
    name = f"{type(data).__name__} in memory"
    origins = {part.__module__.partition(".")[0] for part in type(data).__mro__}
    for is_such, read in _KINDS:
        if is_such(data, origins):
            return read(data, name)
    raise DataError(
        f"expected rows as an array, tensor, list, data frame, torch Dataset or DataLoader; found "
        f"a {type(data).__name__}: give its inputs as one array (N, ...)"
    )


def _is_tensor(value: Any) -> bool:
    return type(value).__module__.startswith("torch") and hasattr(value, "is_floating_point")


def _numbers(value: Any, name: str) -> np.ndarray:
    """Turn one input into an array of numbers."""
    if _is_tensor(value) or hasattr(value, "detach"):
        import torch

        dense = value.detach()
        if dense.layout != torch.strided:
            dense = dense.to_dense()
        if dense.dtype in {torch.bfloat16, torch.float16}:
            dense = dense.float()
        if dense.is_inference():
            dense = dense.clone()
        value = dense.cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind not in _NUMBERS:
        raise DataError(
            f"{name} holds {array.dtype}; expected numbers: choose the numeric part of it"
        )
    return array


def _table(rows: np.ndarray, name: str) -> np.ndarray:
    if rows.ndim < 2:
        raise DataError(f"{name} has shape {rows.shape}; expected rows (N, ...), one a sample")
    if rows.dtype.kind not in _NUMBERS:
        raise DataError(f"{name} holds {rows.dtype}; expected numbers")
    return rows


def _of_masked(data: Any) -> Dataset:
    missing = int(np.ma.getmaskarray(data).sum())
    if missing:
        raise DataError(
            f"masked array with {missing} of {data.size} values masked; expected every value: "
            "leave out such rows or fill them (x.filled(...)) before"
        )
    return Held(_table(np.ma.getdata(data), "array in memory"))


def _of_list(data: Any) -> Dataset:
    if not data:
        raise DataError("list in memory has no rows; expected at least one")
    rows = [_numbers(row, f"row {place} of the list") for place, row in enumerate(data)]
    odd = next((place for place, row in enumerate(rows) if row.shape != rows[0].shape), None)
    if odd is not None:
        raise DataError(
            f"row {odd} of the list has shape {rows[odd].shape}, the first {rows[0].shape}; "
            "expected rows of one shape"
        )
    return Held(_table(np.stack(rows), "list in memory"), "list in memory")


def _of_frame(data: Any, name: str) -> Dataset:
    if not hasattr(data, "columns"):
        raise DataError(f"{name} is one column; expected a data frame with a column an input")
    columns = [str(column) for column in data.columns]
    if not columns:
        raise DataError(f"{name} has no columns; expected one an input")
    rows, odd = [], []
    for place, column in enumerate(columns):
        part = data.iloc[:, place] if hasattr(data, "iloc") else data[column]
        values = np.asarray(part.to_numpy())
        if values.dtype == object and not hasattr(part, "cat"):
            try:  # nullable numbers, missing ones as NaN, which is refused by row later
                values = np.array([np.nan if _missing(v) else float(v) for v in values])
            except (TypeError, ValueError, OverflowError):
                odd.append(column)
                continue
        if values.dtype.kind not in _NUMBERS:
            odd.append(column)
            continue
        rows.append(values)
    if odd:
        raise DataError(
            f"{name}: column '{odd[0]}' holds no numbers"
            + (f" (nor do {len(odd) - 1} more)" if len(odd) > 1 else "")
            + f"; expected numbers only: leave it out, as in df.drop(columns={odd!r})"
        )
    shown = ", ".join(columns[:8]) + (", ..." if len(columns) > 8 else "")
    note = f"{len(columns)} columns: {shown}"
    return Held(np.stack(rows, axis=1), name, (note,), columns=columns)


def _missing(value: Any) -> bool:
    return value is None or type(value).__name__ in {"NAType", "NaTType"}


def _of_xarray(data: Any, name: str) -> Dataset:
    if not hasattr(data, "dims") or not hasattr(data, "values") or callable(data.values):
        raise DataError(f"{name} holds several arrays; give one of them, such as data['x']")
    shown = ", ".join(map(str, data.dims))
    return Held(_table(np.asarray(data.values), name), name, (f"dimensions {shown}",))


class _Lazy:
    """Rows of a sparse or file-backed matrix, dense one by one."""

    def __init__(self, matrix: Any) -> None:
        self.matrix = matrix

    def __len__(self) -> int:
        return int(self.matrix.shape[0])

    def __getitem__(self, index: int) -> np.ndarray:
        row = self.matrix[index : index + 1]
        row = row.toarray() if hasattr(row, "toarray") else np.asarray(row)
        first: np.ndarray = np.asarray(row)[0]
        return first


def _of_anndata(data: Any, name: str) -> Dataset:
    variables = [str(v) for v in list(getattr(data, "var_names", ()))]
    shown = ", ".join(variables[:8]) + (", ..." if len(variables) > 8 else "")
    notes = [f"X of {len(variables)} variables: {shown}"] if variables else []
    if isinstance(data.X, np.ndarray):
        return Held(_table(data.X, name), name, notes)
    return Items(_Lazy(data.X), name, notes)


def _of_loader(data: Any, name: str) -> Dataset:
    dataset = data.dataset
    if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        raise DataError(
            f"{name} reads a stream without a length; give its rows as one array (N, ...)"
        )
    opened = hold(dataset)
    opened.name = name
    opened.notes = (*opened.notes, "rows in the order of the loader's data set, each once")
    return opened


def _of_hugging_face(data: Any, name: str) -> Dataset:
    if isinstance(data, Mapping):
        raise DataError(f"{name} holds several splits; give one of them, such as data['train']")
    if not hasattr(data, "__len__"):
        raise DataError(
            f"{name} reads a stream without a length; give its rows as one array (N, ...)"
        )
    columns = list(data.column_names)
    if len(data) == 0:
        raise DataError(f"{name} has no rows; expected at least one")
    key = next((c for c in _INPUTS if c in columns), None)
    if key is None and len(columns) == 1:
        key = columns[0]
    if key is not None:
        return Items(data, name)
    numeric = [c for c in columns if np.asarray(data[0][c]).dtype.kind in _NUMBERS]
    scalars = [c for c in numeric if np.asarray(data[0][c]).ndim == 0]
    if not scalars or len(scalars) != len(columns):
        raise DataError(
            f"{name} has columns {', '.join(columns)}; expected one input column: choose it with "
            "data.select_columns(...)"
        )
    rows = np.stack([np.asarray(data[c][:], dtype=np.float64) for c in scalars], axis=1)
    return Held(rows, name, (f"{len(scalars)} columns: {', '.join(scalars[:8])}",))


def _input_of(item: Any, key: str | None, name: str) -> tuple[Any, str | None]:
    """Return the input in a row, and the key it was found under if the row is a mapping."""
    if isinstance(item, Mapping):
        chosen = key or next((k for k in _INPUTS if k in item), None)
        if chosen is None and len(item) == 1:
            chosen = str(next(iter(item)))
        if chosen is None:
            raise DataError(
                f"{name}: each row has {', '.join(map(str, item))}; expected one input, under a "
                "name such as 'x' or 'image'"
            )
        return item[chosen], chosen
    if isinstance(item, tuple | list) and item and not np.isscalar(item[0]):
        return item[0], None
    return item, None


def _of_array(data: Any, name: str) -> Dataset:
    name = "array in memory" if isinstance(data, np.ndarray) else name
    return Held(_table(np.asarray(data), name), name)


def _of_tensor(data: Any, name: str) -> Dataset:
    return Held(_table(_numbers(data, name), name), name)


def _of_sparse(data: Any, name: str) -> Dataset:
    return Items(_Lazy(data.tocsr()), name, ("sparse rows filled with zeros",))


def _of_tensors(data: Any, name: str) -> Dataset:
    return Held(_table(_numbers(data.tensors[0], name), name), name)


def _of_items(data: Any, name: str) -> Dataset:
    if len(data) == 0:
        raise DataError(f"{name} has no rows; expected at least one")
    return Items(data, name)


def _has(data: Any, *names: str) -> bool:
    return all(hasattr(data, name) for name in names)


#: what an object is, told by the packages of its class and by what it has, and how it is read
_KINDS: tuple[tuple[Callable[[Any, set[str]], bool], Callable[[Any, str], Dataset]], ...] = (
    (lambda data, _: isinstance(data, np.ma.MaskedArray), lambda data, _: _of_masked(data)),
    (lambda data, _: isinstance(data, np.ndarray), _of_array),
    (lambda data, _: _is_tensor(data), _of_tensor),
    (lambda _, origins: bool(origins & {"pandas", "polars"}), _of_frame),
    (lambda _, origins: "xarray" in origins, _of_xarray),
    (lambda data, _: _has(data, "obs_names", "X"), _of_anndata),
    (lambda data, _: _has(data, "tocsr", "toarray"), _of_sparse),
    (lambda data, _: _has(data, "dataset", "batch_sampler"), _of_loader),
    (lambda data, _: _has(data, "column_names", "with_format"), _of_hugging_face),
    (
        lambda data, origins: "torch" in origins and isinstance(_tensors_of(data), tuple),
        _of_tensors,
    ),
    (lambda data, _: isinstance(data, list | tuple), lambda data, _: _of_list(data)),
    (lambda data, _: _has(data, "__array__"), _of_array),
    (
        lambda data, _: _has(data, "__getitem__", "__len__") and not isinstance(data, Mapping),
        _of_items,
    ),
)


def _tensors_of(data: Any) -> Any:
    return getattr(data, "tensors", None)
