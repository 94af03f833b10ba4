"""Open arrays: ``FILE.npy``, ``FILE.npz:DATA[,LABELS ...]``, ``FILE.h5:/DATA[,/LABELS ...]``."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, cast

import numpy as np

from isoprobe.checkpoints.source import HDF5_MAGIC
from isoprobe.contracts import Dataset, DataSource
from isoprobe.data.files import check_file, fingerprint, first_bytes, shown_name, split_spec
from isoprobe.errors import DataError, FileError, nearest
from isoprobe.files.archives import Archive, member_names
from isoprobe.files.hdf5 import Hdf5File
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.data.cells import holds_cells, open_cells
from isoprobe_plugins.data.streams import StreamedArray, check_numeric, runs

if TYPE_CHECKING:
    from io import BufferedIOBase

    from isoprobe.contracts import VAE

NPY_MAGIC = b"\x93NUMPY"
ZIP_MAGIC = b"PK\x03\x04"


class Rows(Protocol):
    """An array on disk, first axis rows."""

    shape: tuple[int, ...]
    dtype: np.dtype
    notes: tuple[str, ...]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at ascending indices."""

    def close(self) -> None:
        """Release the file."""


class ArraySource(DataSource):
    """Numpy and HDF5 files; nothing in them is ever unpickled."""

    name: ClassVar[str] = "arrays"
    summary: ClassVar[str] = (
        "numpy or HDF5 arrays, FILE.npy, FILE.npz:DATA, FILE.h5:/DATA, "
        "with labels FILE.npz:DATA,LABELS, or several a row, FILE.npz:DATA,A,B; "
        "cells FILE.h5ad:X,BATCH"
    )

    def matches(self, spec: str) -> bool:
        """Return True for the first bytes of npy and HDF5, and a zip archive of npy files."""
        path, _ = split_spec(spec)
        return _opener(path) is not None

    def open(self, spec: str, vae: VAE | None = None) -> Dataset:
        """Return the array opened, with its labels if named.

        Raises:
            DataError: when the file is damaged, has no such array, or holds no numbers.
        """
        path, member = split_spec(spec)
        check_file(path)
        opener = _opener(path)
        if opener is None:
            raise DataError(f"expected a .npy, .npz or HDF5 file, found something else: {path}")
        return opener(path, member, None if vae is None else tuple(vae.input_shape))


#: rows, and labels of each
_LABEL_AXES = 2


class ArrayDataset(Dataset):
    """Rows of one array, labels from others.

    Args:
        path: the file.
        member: what was asked of it.
        rows: the data.
        labels: arrays of labels by name, each of one or several for each row.
        mark: makes the fingerprint, where the path is no file.

    Raises:
        DataError: when there is no axis of rows, or labels do not fit them.
    """

    def __init__(
        self,
        path: Path,
        member: str | None,
        rows: Rows,
        labels: Mapping[str, Rows],
        mark: Callable[[], str] | None = None,
    ) -> None:
        self.name = shown_name(path, member)
        if not rows.shape:
            raise DataError(f"{self.name} is a single number; expected an array of samples")
        for array in labels.values():
            wide = len(array.shape) > _LABEL_AXES and math.prod(array.shape[1:]) != 1
            if array.shape[:1] != rows.shape[:1] or wide:
                raise DataError(
                    f"{self.name}: expected one label, or a row of them, for each of "
                    f"{rows.shape[0]} rows, found labels of shape {array.shape}"
                )
        self._rows, self._labels = rows, labels
        self._mark = mark or (lambda: fingerprint(path, member or ""))
        self.shape, self.dtype = tuple(rows.shape[1:]), rows.dtype.name
        self.notes = rows.notes
        names = [name for label, array in labels.items() for name in _names(label, array)]
        self.factors = tuple(names) if len(names) > 1 else ()

    def __len__(self) -> int:
        return int(self._rows.shape[0])

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at ascending indices, ``(len(indices), *shape)``."""
        return self._rows.read(indices)

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Labels of the rows, ``(len(indices),)``, or ``(len(indices), factors)``."""
        if not self._labels:
            return None
        read = [array.read(indices).reshape(len(indices), -1) for array in self._labels.values()]
        return np.concatenate(read, axis=1) if self.factors else read[0].reshape(-1)

    def fingerprint(self) -> str:
        """Hash of sampled blocks of the file, see :func:`isoprobe.data.files.fingerprint`."""
        return self._mark()

    def close(self) -> None:
        """Close the file."""
        self._rows.close()
        for array in self._labels.values():
            array.close()


def _names(label: str, array: Rows) -> list[str]:
    count = math.prod(array.shape[1:])
    return [label] if count == 1 else [f"{label}_{k}" for k in range(count)]


class Hdf5Rows:
    """Rows of an HDF5 data set.

    Args:
        file: the open file.
        dataset: one of its data sets.
        what: what is read, for error messages.

    Raises:
        DataError: when it holds no numbers, or rows of it were never written.
    """

    def __init__(self, file: Hdf5File, dataset: Any, what: str) -> None:
        self._file, self._dataset = file, dataset
        self.notes: tuple[str, ...] = ()
        self.shape: tuple[int, ...] = dataset.shape or ()
        self.dtype: np.dtype = dataset.dtype
        check_numeric(self.dtype, what)
        file.check_whole(dataset)
        packed = [name for name in ("scale_factor", "add_offset") if name in dataset.attrs]
        if packed:
            self.notes = (f"{what} is read as it is stored, without its {' and '.join(packed)}",)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return rows at ascending indices, ``(len(indices), *shape[1:])``.

        Raises:
            DataError: when the file is damaged.
        """
        begin, span = int(indices[0]) if len(indices) else 0, len(list(runs(indices))) < 2
        return self._file.rows(
            self._dataset, slice(begin, begin + len(indices)) if span else indices
        )

    def close(self) -> None:
        """Close the file, which the labels may share."""
        self._file.close()


Opener = Callable[[Path, str | None, "tuple[int, ...] | None"], Dataset]


def _opener(path: Path) -> Opener | None:
    head = first_bytes(path, 8)
    if head.startswith(NPY_MAGIC):
        return _open_npy
    if head.startswith(HDF5_MAGIC):
        return _open_hdf5
    if head.startswith(ZIP_MAGIC) and _npy_members(path):
        return _open_npz
    return None


def _npy_members(path: Path) -> list[str]:
    try:
        return [name for name in member_names(path) if name.endswith(".npy")]
    except FileError:
        return []


def _open_npy(path: Path, member: str | None, wanted: tuple[int, ...] | None) -> Dataset:
    if member is not None:
        raise DataError(f"{path} holds one array without a name; leave out ':{member}'")

    def open_one(_: str) -> Rows:
        return StreamedArray(path.open("rb"), path.stat().st_size, str(path))

    return _dataset(path, None, [""], open_one)


def _open_npz(path: Path, member: str | None, wanted: tuple[int, ...] | None) -> Dataset:
    names = {name.removesuffix(".npy"): name for name in _npy_members(path)}

    def open_one(name: str) -> Rows:
        # an archive for each array: two arrays of one archive would fight over its file position
        with Archive(path) as archive:
            size = archive.size_of(names[name])
            # the stream keeps the file open on its own, until it is closed itself
            stream = cast("BufferedIOBase", archive.stream(names[name]))
        return StreamedArray(stream, size, f"{path}:{name}", path.stat().st_size)

    def shape_of(name: str) -> tuple[int, ...]:
        with closing(open_one(name)) as array:
            return array.shape

    chosen = _chosen(member, list(names), path, _fits(shape_of, wanted))
    return _dataset(path, ",".join(chosen), chosen, open_one)


def _open_hdf5(path: Path, member: str | None, wanted: tuple[int, ...] | None) -> Dataset:
    with ExitStack() as stack:
        file = Hdf5File(path)
        stack.callback(file.close)
        if holds_cells(file):
            opened = _cells(file, path, member)
            stack.pop_all()
            return opened
        arrays = dict(file.walk())
        fits = _fits(lambda name: arrays[name].shape or (), wanted)
        chosen = _chosen(member, list(arrays), path, fits)
        shown = ",".join(f"/{name}" for name in chosen)
        data = _dataset(
            path, shown, chosen, lambda name: Hdf5Rows(file, arrays[name], f"{path}:/{name}")
        )
        stack.pop_all()
    return data


def open_chosen(
    path: Path,
    member: str | None,
    names: Iterable[str],
    open_one: Callable[[str], Rows],
    mark: Callable[[Sequence[str]], str],
) -> Dataset:
    """Open arrays of a store that is no file.

    Args:
        path: the store.
        member: what was asked of it; None for the only array.
        names: of its arrays.
        open_one: opens one of them.
        mark: makes the fingerprint of some.

    Returns:
        The first array named, with the others as its labels.
    """
    chosen = _chosen(member, names, path)
    shown = ",".join(f"/{name}" for name in chosen)
    return _dataset(path, shown, chosen, open_one, lambda: mark(chosen))


def _cells(file: Hdf5File, path: Path, member: str | None) -> Dataset:
    """Cells of an AnnData file, their genes as names of columns."""

    def dense(node: Any, what: str) -> Rows:
        return Hdf5Rows(file, node, what)

    shown, rows, labels, genes = open_cells(file, path, member, dense)
    found = ArrayDataset(path, shown, rows, labels)
    found.columns = genes
    return found


def _dataset(
    path: Path,
    shown: str | None,
    chosen: Sequence[str],
    open_one: Callable[[str], Rows],
    mark: Callable[[], str] | None = None,
) -> Dataset:
    with ExitStack() as stack:
        opened = []
        for name in chosen:
            opened.append(open_one(name))
            stack.callback(opened[-1].close)
        labels = dict(zip(chosen[1:], opened[1:], strict=True))
        data = ArrayDataset(path, shown, opened[0], labels, mark)
        stack.pop_all()
    return data


def _fits(
    shape_of: Callable[[str], tuple[int, ...]], wanted: tuple[int, ...] | None
) -> Callable[[str], bool]:
    """Say whether an array's rows are a model's inputs; of no model, whether it has rows at all."""

    def fits(name: str) -> bool:
        try:
            rows = shape_of(name)[1:]
        except DataError:  # an array of texts is none to name
            return False
        return bool(rows) if wanted is None else math.prod(rows) == math.prod(wanted)

    return fits


def _chosen(
    member: str | None,
    names: Iterable[str],
    path: Path,
    fits: Callable[[str], bool] = lambda _: False,
) -> list[str]:
    """Return the name of the data array, and of the labels if asked for, without leading slash."""
    known = sorted(names)
    listed = ", ".join(known[:20]) or "none"
    if not member and len(known) == 1:
        return known
    if not member:
        raise DataError(
            f"{path} holds {len(known)} arrays, and one is to be named after a colon, "
            f"as in {path.name}:{_named(known, fits)}; it has: {listed}"
        )
    chosen = [part.strip().strip("/") for part in member.split(",")]
    missing = [name for name in chosen if name not in known]
    if missing:
        hint = nearest(missing[0], known) or ";"
        raise DataError(f"{path} has no array '{missing[0]}'{hint} it has: {listed}")
    if len(set(chosen)) < len(chosen):
        raise DataError(f"expected each array once after the colon, found '{member}'")
    return chosen


@hookimpl
def isoprobe_data_sources() -> Sequence[type[DataSource]]:
    """Return the source of arrays."""
    return [ArraySource]


def _named(known: Sequence[str], fits: Callable[[str], bool]) -> str:
    """The array to name in an example: the first that fits, else the first."""
    return next((name for name in known[:20] if fits(name)), known[0] if known else "NAME")
