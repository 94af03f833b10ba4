"""Describe how per-sample columns are kept, in shards and in result files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from isoprobe.contracts import Variable
from isoprobe.errors import PluginError


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
        formula: dotted name of the function that gives the values.
        theory: heading of the page on theory that explains it.
    """

    dims: tuple[str, ...]
    dtype: str
    shape: tuple[int, ...]
    boolean: bool
    long_name: str
    units: str
    equation: str
    formula: str = ""
    theory: str = ""

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
            formula=variable.formula,
            theory=variable.theory,
        )

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize

    def require_like(self, name: str, other: Column) -> None:
        """Refuse a batch that would not fit behind this one.

        Raises:
            PluginError: if type or shape differ.
        """
        if (self.dtype, self.shape, self.dims) != (other.dtype, other.shape, other.dims):
            raise PluginError(
                f"column '{name}' changed from {self.dtype} {self.dims} with rows {self.shape}"
                f" to {other.dtype} {other.dims} with rows {other.shape} between batches"
            )

    def stored(self, values: np.ndarray) -> np.ndarray:
        """Return rows as they are kept."""
        return np.ascontiguousarray(values, dtype=self.dtype)

    def given(self, rows: np.ndarray) -> np.ndarray:
        """Return kept rows as they were given."""
        return rows.astype(bool) if self.boolean else rows

    def variable(self, values: np.ndarray) -> Variable:
        """Return rows as they were given, with what is said of them."""
        return Variable(
            self.dims,
            values,
            self.long_name,
            units=self.units,
            equation=self.equation,
            formula=self.formula,
            theory=self.theory,
        )


def stored_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the little-endian type a number is stored as; float16 would break netCDF readers."""
    if dtype.kind == "b":
        return np.dtype("<i1")
    if dtype.kind == "f":
        return np.dtype("<f8" if dtype.itemsize >= 8 else "<f4")
    return dtype.newbyteorder("<")
