"""Turn a table's own columns into a model's inputs, as the model's checkpoint says.

A number is centred and scaled; a category is an input for each of its values. The recipe travels in
the checkpoint, so that a table is read the same way wherever it is analysed or scored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from isoprobe.contracts import Dataset
from isoprobe.data.held import Held
from isoprobe.errors import CheckpointError, DataError, nearest

if TYPE_CHECKING:
    from isoprobe.contracts import VAE

#: where a training record keeps it
KEY = "table"
#: standardised values beyond this are taken as this
LIMIT = 1000.0
_Number = Annotated[float, msgspec.Meta(ge=-1e300, le=1e300)]


#: what an empty cell is when it is read
_NOTHING = frozenset({"", "nan", "None", "<NA>"})
#: texts that stand for a missing cell, as tables are written
MISSING = _NOTHING | {"NaN", "NA", "N/A", "n/a", "#N/A", "NULL", "null", "?"}


class Column(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How one column of a table becomes inputs.

    Attributes:
        name: of the column.
        values: those of a category, in order; None for a number.
        center: subtracted from each input.
        scale: each input is multiplied by, after that.
    """

    name: str
    values: tuple[str, ...] | None
    center: tuple[_Number, ...]
    scale: tuple[_Number, ...]

    def inputs(self, cells: np.ndarray, where: str) -> np.ndarray:
        """Return the inputs of a column's cells.

        Args:
            cells: text or numbers, ``(B,)``.
            where: the table, for errors.

        Returns:
            ``(B, k)`` float64; of a value that the training had not, a category has 0 everywhere.

        Raises:
            DataError: for a cell that is missing, or no number where one is expected.
        """
        if self.values is None:
            raw = numbers(cells, self.name, where)[:, None]
        else:
            found = texts(cells, self.name, where, known=self.values)
            raw = (found[:, None] == np.array(self.values)).astype(float)
        moved = (raw - np.array(self.center)) * np.array(self.scale)
        clipped: np.ndarray = np.clip(moved, -LIMIT, LIMIT)
        return clipped


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a table's columns become inputs.

    Attributes:
        columns: in the order of the inputs.
    """

    columns: tuple[Column, ...]

    @classmethod
    def of(cls, vae: VAE | None) -> Recipe | None:
        """Return the recipe in a model's training record, or None where it has none.

        Raises:
            CheckpointError: when it is damaged, or its inputs are not the model's.
        """
        kept = None if vae is None else vae.facts.training.get(KEY)
        if vae is None or kept is None:
            return None
        try:
            recipe = msgspec.convert(kept, cls)
        except msgspec.ValidationError as error:
            raise CheckpointError(
                f"{vae.name}: its recipe of columns is damaged: {error}"
            ) from error
        for one in recipe.columns:
            width = 1 if one.values is None else len(one.values)
            if not len(one.center) == len(one.scale) == width:
                raise CheckpointError(f"{vae.name}: its recipe of column '{one.name}' is damaged")
        if recipe.size != vae.input_size:
            raise CheckpointError(
                f"{vae.name} takes {vae.input_size} inputs, and its recipe makes {recipe.size}"
            )
        return recipe

    def record(self) -> dict[str, Any]:
        """Return the recipe as plain values."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        return plain

    @property
    def size(self) -> int:
        """Number of inputs."""
        return sum(len(one.center) for one in self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the table's columns."""
        return tuple(one.name for one in self.columns)

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the inputs: ``age``, ``site=A``, ``site=B`` ..."""
        return tuple(
            one.name if value is None else f"{one.name}={value}"
            for one in self.columns
            for value in (one.values or (None,))
        )

    @property
    def folded(self) -> tuple[str, ...]:
        """Name of the column that each input comes from."""
        return tuple(one.name for one in self.columns for _ in one.center)

    def inputs(self, cells: Mapping[str, np.ndarray], where: str) -> np.ndarray:
        """Return rows as inputs.

        Args:
            cells: the table's columns by name, ``(B,)`` each.
            where: the table, for errors.

        Returns:
            ``(B, size)`` float64.

        Raises:
            DataError: when a column or a cell is missing, or no number where one is expected.
        """
        for name in self.names:
            if name not in cells:
                hint = nearest(name, list(cells)) or ";"
                raise DataError(
                    f"{where} has no column '{name}'{hint} the model was trained on "
                    f"{', '.join(self.names[:12])}{', ...' if len(self.names) > 12 else ''}"
                )
        return np.concatenate([one.inputs(cells[one.name], where) for one in self.columns], axis=1)


def numbers(cells: np.ndarray, name: str, where: str) -> np.ndarray:
    """Return a column's cells as numbers, ``(B,)`` float64.

    Raises:
        DataError: for the first cell that is none, or none that is finite.
    """
    try:
        found = np.asarray(cells, dtype=np.float64)
    except (TypeError, ValueError):
        found = np.array([_number(cell) for cell in cells.tolist()])
    bad = ~np.isfinite(found)
    if bad.any():
        place = int(np.argmax(bad))
        raise DataError(_bad(cells[place], place, name, where, "a number"))
    return found


def texts(cells: np.ndarray, name: str, where: str, *, known: Sequence[str] = ()) -> np.ndarray:
    """Return a column's cells as text, ``(B,)``: a whole number is its digits.

    Args:
        cells: text or numbers, ``(B,)``.
        name: of the column.
        where: the table, for errors.
        known: texts that are values here, though they stand for missing cells elsewhere.

    Raises:
        DataError: for the first cell that is missing.
    """
    found = np.array([_text(cell) for cell in cells.tolist()], dtype=np.str_)
    bad = np.isin(found, list(MISSING - set(known)))
    if bad.any():
        place = int(np.argmax(bad))
        raise DataError(_bad(cells[place], place, name, where, "a value"))
    return found


def is_missing(cell: object) -> bool:
    """Say whether a cell is empty, or a text that stands for a missing value."""
    return cell is None or str(cell).strip() in MISSING


def _number(cell: object) -> float:
    try:
        return float(str(cell))
    except ValueError:
        return float("nan")


def _text(cell: object) -> str:
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell).strip()


def _bad(cell: object, place: int, name: str, where: str, wanted: str) -> str:
    missing, said = is_missing(cell), str(cell).strip()
    found = "nothing" if said in _NOTHING else f"'{cell}'"
    way = "fill the cell, or leave the row or the column out" if missing else "correct the cell"
    return f"row {place} of {where}, column '{name}': expected {wanted}, found {found}; {way}"


class Recorded(Dataset):
    """A table whose own columns become a model's inputs.

    Args:
        table: whose ``carried`` columns hold those of the recipe, as text or numbers.
        recipe: what becomes of them.
        carried: names of columns that go along with the rows.
    """

    dtype = "float64"

    def __init__(self, table: Dataset, recipe: Recipe, carried: Sequence[str]) -> None:
        self._table, self._recipe = table, recipe
        self.name, self.carried = table.name, tuple(carried)
        self.shape = (recipe.size,)
        self.columns, self.folded = recipe.input_names, recipe.folded
        self.notes = (f"{len(recipe.columns)} columns scaled as the model's training had them",)

    def __len__(self) -> int:
        return len(self._table)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Inputs at ascending indices, ``(len(indices), size)``."""
        return self._recipe.inputs(self._table.carry(indices), self.name)

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Labels of the rows."""
        return self._table.labels(indices)

    def carry(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Columns that go along."""
        found = self._table.carry(indices) if self.carried else {}
        return {name: found[name] for name in self.carried}

    def fingerprint(self) -> str:
        """That of the table."""
        return self._table.fingerprint()

    def close(self) -> None:
        """Close the table."""
        self._table.close()


def recorded_rows(data: Any, recipe: Recipe) -> Dataset:
    """Return rows in memory as a table's model takes them.

    Args:
        data: a data frame with the recipe's columns, or an array of them, ``(N, columns)``.
        recipe: of the model.

    Returns:
        The rows as inputs.

    Raises:
        DataError: when there are other columns.
    """
    where = f"{type(data).__name__} in memory"
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        cells = {str(name): data[name].to_numpy() for name in data.columns}
    else:
        rows = np.asarray(data)
        if rows.ndim != 2 or rows.shape[1] != len(recipe.columns):
            raise DataError(
                f"{where} has shape {rows.shape}; expected (rows, {len(recipe.columns)}), the "
                f"columns the model was trained on: {', '.join(recipe.names[:12])}"
            )
        cells = {name: rows[:, place] for place, name in enumerate(recipe.names)}
    held = Held(recipe.inputs(cells, where), where, columns=recipe.input_names)
    held.folded = recipe.folded
    return held
