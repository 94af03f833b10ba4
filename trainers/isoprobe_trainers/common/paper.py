"""Hold the numbers the paper prints, each with its place and row, and how ours differ."""

from __future__ import annotations

import math
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence

Row = TypeVar("Row", bound=msgspec.Struct)


class PaperRow(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of one of the paper's tables.

    Attributes:
        place: table or figure.
        row: row as the paper names it.
        quantity: attribute of :class:`~isoprobe_trainers.toy.measure.Measurement`.
        values: by latent, z_1 first, or a single number.
        sd: the paper's deviation over samples, where it prints one.
        within: distance at which the full schedule counts as reproduced.
        within_relative: the same, relative to the value.
    """

    place: str
    row: str
    quantity: str
    values: tuple[float, ...]
    sd: tuple[float, ...] | None = None
    within: float | None = None
    within_relative: float | None = None

    def deviations(self, ours: Sequence[float]) -> list[float]:
        """Differences in units of the paper's deviation; NaN where it prints none or zero."""
        sd = self.sd or (0.0,) * len(self.values)
        pairs = zip(ours, self.values, sd, strict=True)
        return [(o - p) / s if s > 0 else math.nan for o, p, s in pairs]

    def reproduced(self, ours: Sequence[float], slack: float = 1.0) -> bool | None:
        """Whether every value is within the tolerance; None where none is set.

        Args:
            ours: values by latent.
            slack: factor on the tolerance; a shortened schedule is given 2.

        Returns:
            The verdict.
        """
        if self.within is None and self.within_relative is None:
            return None
        return all(
            abs(o - p) <= slack * (self.within or (self.within_relative or 0.0) * abs(p)) + 1e-12
            for o, p in zip(ours, self.values, strict=True)
        )


class _Numbers(msgspec.Struct, Generic[Row], frozen=True, forbid_unknown_fields=True):
    paper: str
    rows: tuple[Row, ...]


def printed(file: str, row: type[Row]) -> tuple[Row, ...]:
    """Read numbers that the paper prints.

    Args:
        file: of this package.
        row: what each of its rows is.

    Returns:
        The rows.
    """
    data = files("isoprobe_trainers").joinpath(file).read_bytes()
    return msgspec.json.decode(data, type=_Numbers[row]).rows  # type: ignore[valid-type]


@lru_cache(maxsize=1)
def paper_rows() -> tuple[PaperRow, ...]:
    """Every number this package compares with."""
    return printed("paper_numbers.json", PaperRow)


def rows_of(place: str) -> list[PaperRow]:
    """Rows of one table or figure, in the paper's order."""
    return [row for row in paper_rows() if row.place == place]
