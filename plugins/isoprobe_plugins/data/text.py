"""Read tables as text: CSV and TSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.contracts import Dataset
from isoprobe.data.files import fingerprint, shown_name
from isoprobe.errors import DataError
from isoprobe.files.meter import Meter
from isoprobe_plugins.data.lines import Lines, TextBlock

if TYPE_CHECKING:
    from isoprobe_plugins.data.columns import Roles

DELIMITERS = ",\t;"
#: words that are numbers, as they are in Parquet
BOOLEANS = {"true": "1", "false": "0"}
#: what a comment begins with
COMMENTS = ("#", "%", "//")


class TextDataset(Dataset):
    """A row a line, numbers in every column that is an input.

    A first line with anything but numbers in the inputs' columns names the columns, and so does
    0, 1, 2, ... . Fields may be quoted, within a line. The delimiter is a comma, tab or semicolon.

    Args:
        path: the file, gzipped or not.
        roles: which columns are inputs, labels, or go along.

    Raises:
        DataError: when it is damaged or ragged, or has no such column.
    """

    dtype = "float64"

    def __init__(self, path: Path, roles: Roles) -> None:
        self.name = shown_name(path, roles.spec)
        self._path, self._roles = path, roles
        self._label: int | None = None
        self.raw = 0
        self._columns: list[int] = []
        self._kept: list[int] = []
        self._names: list[str] = []
        self._label_is_number = True
        self._lines = Lines(path, self._visit)
        if not len(self._lines):
            self.close()
            raise DataError(f"{path} has blank lines alone; expected a table")
        self.shape = (len(self._columns),)
        self.columns = tuple(self._names[i] for i in self._columns) if self._header else ()
        self.carried = tuple(self._names[i] if self._header else str(i) for i in self._kept)
        if self._columns:
            first = "the first line names the columns" if self._header else "there is no header"
            self.notes = (f"{len(self._columns)} columns read as numbers; {first}",)

    def __len__(self) -> int:
        return max(len(self._lines) - self._header, 0) if self._columns or self._kept else 0

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return rows at ascending indices, ``(len(indices), columns)`` float64.

        Raises:
            DataError: naming the first cell that is no number.
        """
        lines = self._lines.at(indices + self._header)
        try:
            return self._numbers(lines)
        except ValueError:
            pass
        try:
            return self._numbers([self._with_numbers(line) for line in lines])
        except ValueError:
            raise self._bad_cell(lines, indices) from None

    def _numbers(self, lines: Sequence[str]) -> np.ndarray:
        rows: np.ndarray = np.loadtxt(
            lines,
            delimiter=self._delimiter,
            quotechar='"',
            usecols=self._columns,
            comments=None,
            ndmin=2,
        )
        return rows

    def _with_numbers(self, line: str) -> str:
        """The inputs of a line, True as 1 and False as 0, other cells as they are."""
        quoted = (BOOLEANS.get(c.lower(), c).replace('"', '""') for c in self._cells(line))
        return self._delimiter.join(f'"{cell}"' for cell in quoted)

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Labels of the rows: float64 if all in the file are numbers, else text."""
        if self._label is None:
            return None
        lines = self._lines.at(indices + self._header)
        cells = [self._cells(line)[self._label] for line in lines]
        return np.array(cells, np.float64) if self._label_is_number else self._texts(cells)

    def carry(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Columns that go along, as the text they are."""
        rows = [self._cells(line) for line in self._lines.at(indices + self._header)]
        places = zip(self.carried, self._kept, strict=True)
        return {name: self._texts([row[i] for row in rows]) for name, i in places}

    def _texts(self, cells: Sequence[str]) -> np.ndarray:
        return Meter(self._path, self._path.stat().st_size).texts(cells)

    def fingerprint(self) -> str:
        """Hash of sampled blocks of the file, see :func:`isoprobe.data.files.fingerprint`."""
        return fingerprint(self._path, self._roles.part)

    def close(self) -> None:
        """Close the file."""
        self._lines.close()

    def _visit(self, block: TextBlock) -> None:
        """Learn the form of the table from its first line, and check the others against it."""
        if block.number == 0:
            self._learn(next(iter(block))[1])
        quoted = b'"' in block.text
        if quoted or self._label_asked or (block.count(self._delimiter) + 1 != self._width).any():
            for number, line in block:
                self._check(number, line)

    @property
    def _label_asked(self) -> bool:
        """Whether it is open if labels are numbers."""
        return self._label is not None and self._label_is_number

    def _check(self, number: int, line: str) -> None:
        found = len(self._cells(line)) if '"' in line else line.count(self._delimiter) + 1
        if found != self._width:
            about = (
                ""
                if not self._comment
                else (f", which is a comment ('{self._comment}'): take such lines out")
            )
            raise DataError(
                f"row {number - self._header} of {self._path} has {found} columns; "
                f"expected {self._width} as in the first line{about}"
            )
        if self._label is not None and self._label_is_number and number >= self._header:
            self._label_is_number = _is_number(self._cells(line)[self._label])

    def _learn(self, line: str) -> None:
        self._delimiter = max(DELIMITERS, key=line.count)
        self._comment = line.strip()[:30] if line.lstrip().startswith(COMMENTS) else ""
        cells = self._cells(line)
        self._width = len(cells)
        counted = self._width > 1 and cells == [str(i) for i in range(self._width)]
        words = [cell for cell in cells if cell.lower() not in BOOLEANS]
        named = [counted or (cell in words and not _is_number(cell)) for cell in cells]
        names = [cell if one else "" for cell, one in zip(cells, named, strict=True)]
        places = self._roles.places(names, self._width, str(self._path))
        self._label, self._columns, self._kept = places.label, [*places.inputs], [*places.kept]
        self.raw = places.raw
        self._names = cells
        asked = {self._roles.label, *(self._roles.columns or ()), *self._roles.kept}
        known = self._roles.raw or any(name in asked for name in names if name)
        self._header = int(known or any(names[i] or not cells[i] for i in self._columns))

    def _cells(self, line: str) -> list[str]:
        try:
            cells = next(csv.reader([line], delimiter=self._delimiter))
        except csv.Error as error:
            raise DataError(f"{self._path} has a line that is no table row: {error}") from error
        return [cell.strip() for cell in cells]

    def _bad_cell(self, lines: Sequence[str], indices: np.ndarray) -> DataError:
        for row, line in zip(indices, lines, strict=True):
            cells = self._cells(line)
            numbers = [BOOLEANS.get(cell.lower(), cell) for cell in cells]
            bad = [i for i in self._columns if not _is_number(numbers[i])]
            if bad:
                place = f"row {row}, column {bad[0]} of {self._path}"
                if not cells[bad[0]]:
                    return DataError(
                        f"{place}: expected a number, found nothing; fill the cell or leave the "
                        "row out, or name the columns to read with ':columns=A,B'"
                    )
                return DataError(
                    f"{place}: expected a number, found '{cells[bad[0]]}';"
                    f" if it is the label, add ':label={bad[0]}', if it is to go along, "
                    f"':keep={bad[0]}' (columns count from 0)"
                )
        return DataError(f"{self._path}: row {indices[0]} or one after it cannot be read")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell
