"""Say which columns of a table are inputs, which is the label, and which go along with the rows."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from isoprobe.errors import DataError, nearest

_ROLES = ("label", "id", "columns", "keep")
#: a semicolon parts two roles where a role follows it: names of columns may hold one
_BETWEEN = re.compile(rf";(?=(?:{'|'.join(_ROLES)})=)")


@dataclass(frozen=True)
class Roles:
    """What is said of a table's columns, each by name or by its number from 0.

    Attributes:
        label: the column of labels; None when there is none.
        columns: the inputs, in this order; None for all that have no other role, and none at all
            where what goes along is all that is wanted.
        kept: columns that go along with the rows and not into the model, the id first.
        raw: the inputs go along too, before those, as text where they are: no model takes them.
    """

    label: str | None = None
    columns: tuple[str, ...] | None = None
    kept: tuple[str, ...] = ()
    raw: bool = False

    @classmethod
    def parse(cls, text: str | None, where: str) -> Roles:
        """Read ``columns=a,b;label=y;id=patient;keep=site,time``, in any order.

        Args:
            text: as typed; None or empty for a table of inputs alone.
            where: the table, for error messages.

        Returns:
            The roles.

        Raises:
            DataError: for another word, or one given twice.
        """
        given: dict[str, str] = {}
        for part in _BETWEEN.split(text) if text else ():
            role, equals, value = part.partition("=")
            if role not in _ROLES or not equals or not value:
                raise DataError(
                    f"expected {where}:label=COLUMN, columns=A,B, id=COLUMN or keep=A,B, with a "
                    f"semicolon between two of them; found '{where}:{part}'"
                )
            if role in given:
                raise DataError(f"'{role}=' is given twice for {where}; give it once")
            given[role] = value
        kept = [*_listed(given.get("id")), *_listed(given.get("keep"))]
        columns = _listed(given.get("columns"))
        return cls(given.get("label"), columns or None, tuple(dict.fromkeys(kept)))

    @property
    def spec(self) -> str | None:
        """The roles as one would type them; None where there are none."""
        parts = [] if self.columns is None else [f"columns={','.join(self.columns)}"]
        parts += [] if self.label is None else [f"label={self.label}"]
        parts += [f"keep={','.join(self.kept)}"] if self.kept else []
        return ";".join(parts) or None

    @property
    def part(self) -> str:
        """What tells this reading of a file from others, beside its bytes."""
        only = self.columns is None and not self.kept
        return (self.label if only else self.spec) or ""

    def places(self, names: Sequence[str], count: int, where: str) -> Places:
        """Find the columns.

        Args:
            names: names of columns, in order; empty text where a column has none.
            count: number of columns.
            where: the table, for error messages.

        Returns:
            Their numbers from 0.

        Raises:
            DataError: when there is no such column, none is left as an input, or one has two roles.
        """
        label = None if self.label is None else column_place(self.label, names, count, where)
        kept = [column_place(name, names, count, where) for name in self.kept]
        if self.columns is None:
            inputs = [i for i in range(count) if i != label and i not in kept]
        else:
            inputs = [column_place(name, names, count, where) for name in self.columns]
        if not inputs and self.columns != ():
            beside = ", ".join(f"'{name}'" for name in (self.label, *self.kept) if name is not None)
            few = (
                f"{where} has one column, so none" if count == 1 else f"{where} has no column that"
            )
            raise DataError(f"{few} is left beside {'the label ' if count == 1 else ''}{beside}")
        twice = [i for i in inputs if i == label or i in kept or inputs.count(i) > 1]
        if twice:
            named = names[twice[0]] or str(twice[0])
            raise DataError(f"column '{named}' of {where} is given twice as input, label or id")
        if self.raw:
            return Places((), label, (*inputs, *kept), len(inputs))
        return Places(tuple(inputs), label, tuple(kept))


@dataclass(frozen=True)
class Places:
    """Numbers of a table's columns, from 0.

    Attributes:
        inputs: in the order in which the model takes them.
        label: of the labels; None when there is none.
        kept: of those that go along with the rows.
        raw: how many of these, the first ones, would be inputs.
    """

    inputs: tuple[int, ...]
    label: int | None
    kept: tuple[int, ...]
    raw: int = 0


def _listed(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip()) if text else ()


def column_place(wanted: str, names: Sequence[str], count: int, where: str) -> int:
    """Find a column by name or number.

    Args:
        wanted: its name, or its number from 0.
        names: names of columns, in order; empty text where a column has none.
        count: number of columns.
        where: the table, for error messages.

    Returns:
        Its number from 0.

    Raises:
        DataError: when there is no such column.
    """
    if wanted in names:
        return list(names).index(wanted)
    if wanted.isdecimal() and int(wanted) < count:
        return int(wanted)
    known = [name for name in names if name]
    hint = nearest(wanted, known) or ";"
    listed = f" {', '.join(known[:20])}" if known else ""
    raise DataError(
        f"{where} has no column '{wanted}'{hint} name one of its {count} columns{listed}, "
        "or give its number from 0"
    )
