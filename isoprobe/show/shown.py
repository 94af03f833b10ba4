"""List what a result shows: columns for its latents and tiles, as its variables say themselves.

Summary, JSON, report and comparison take everything from here, so that an analysis nobody has
heard of is shown like a built-in one. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from isoprobe.contracts import DEFAULT_ANALYSES, FORMS

if TYPE_CHECKING:
    from isoprobe.contracts import Variable

#: the table of latents that everyone knows, in order: variable and the most letters of a value.
#: Other columns follow it
TABLE = {
    "overview/kl_mean": 6,
    "importance/exact": 12,
    "importance/share": 8,
    "importance/state": 10,
    "isometry/norm_mean": 7,
    "isometry/residual_mean": 9,
    "isometry/beta_recovered": 8,
}
COLLAPSED = "collapsed"
#: letters of a label; one from a stranger's file may be of any length
_LONGEST = 28


class Shelf(Protocol):
    """A group of a result."""

    def __getitem__(self, name: str) -> Variable:
        """Variable of that name."""

    def __contains__(self, name: object) -> bool:
        """Whether there is one."""

    def shown(self) -> Mapping[str, str]:
        """Names of the variables to show, each a ``column`` or a ``tile``."""


class Readable(Protocol):
    """What it takes to show a result."""

    @property
    def attrs(self) -> Mapping[str, Any]:
        """Root attributes."""

    def groups(self) -> Sequence[str]:
        """Names of the groups."""

    def __getitem__(self, group: str) -> Shelf:
        """Variables of a group."""


@dataclass(frozen=True)
class Shown:
    """A variable, ready to be shown.

    Attributes:
        group: analysis it comes from.
        name: in that group.
        label: short name, with the analysis where several use it.
        units: empty where there are none, or they are the metric's.
        hint: what it is, with its equation.
        form: as of :class:`isoprobe.contracts.Variable`.
        values: plain values, None for what is not finite; one for each latent, or one alone.
    """

    group: str
    name: str
    label: str
    units: str
    hint: str
    form: str
    values: tuple[Any, ...]

    @property
    def place(self) -> str:
        """Where it lies in the file, ``group/name``."""
        return f"{self.group}/{self.name}"

    @property
    def title(self) -> str:
        """The label with its units."""
        return f"{self.label} [{self.units}]" if self.units else self.label

    @property
    def numeric(self) -> bool:
        """Whether its values are numbers."""
        numbers = all(value is None or isinstance(value, (int, float)) for value in self.values)
        return numbers and "|" not in self.form

    @property
    def text(self) -> str:
        """The first value for people: that of a tile."""
        return said(self.values[0], self.form)

    @property
    def words(self) -> tuple[Any, ...]:
        """Values with codes put into words: what JSON and tables hold."""
        return tuple(_word(value, self.form) for value in self.values)


def columns(result: Readable) -> list[Shown]:
    """Return what a result shows of each latent: the known table first, then by group.

    Args:
        result: a complete result.

    Returns:
        The columns, each with a value for every latent.
    """
    found = _all(result, "column", ("latent",))
    length = len(result["overview"]["active"].values)
    known = list(TABLE)
    places = {column.place: column for column in found if len(column.values) == length}
    ordered = [place for place in known if place in places]
    return [places[place] for place in [*ordered, *(p for p in places if p not in TABLE)]]


def tiles(result: Readable) -> list[Shown]:
    """Return the single numbers a result shows, those of every run first, then by group.

    Args:
        result: a complete result.

    Returns:
        The tiles.
    """
    return _all(result, "tile", ())


def column(result: Readable, place: str) -> list[Any]:
    """Return plain values of a variable, shown or not; all None where it was not computed."""
    group, _, name = place.partition("/")
    if group in result.groups() and name in result[group]:
        return [plain(value) for value in result[group][name].values]
    return [None] * len(result["overview"]["active"].values)


def number(result: Readable, place: str) -> float | None:
    """Return a single number, shown or not; None where it was not computed or is not finite."""
    group, _, name = place.partition("/")
    if group not in result.groups() or name not in result[group]:
        return None
    value: float | None = plain(result[group][name].values)
    return value


def plain(value: Any) -> Any:
    """Return a Python value for any scalar; None for one that is not finite."""
    if value is None:
        return None
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def said(value: Any, form: str = "", dash: str = "-") -> str:
    """Return a value for people.

    Args:
        value: a plain one.
        form: as of :class:`isoprobe.contracts.Variable`; three digits, or a count, where empty.
        dash: stands for none.

    Returns:
        The text.
    """
    value = _word(value, form)
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return dash
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return format(value, "d" if "|" in form else form or "d")
    form = ".3g" if not form or form.endswith("d") or "|" in form else form
    sign = "+" if form.startswith("+") else ""
    return format(value, f"{sign}z{form.removeprefix(sign)}")  # z: no minus before a zero


def _all(result: Readable, kind: str, dims: tuple[str, ...]) -> list[Shown]:
    """Every variable shown that way; one whose axes do not allow it is left out."""
    found = []
    groups = result.groups()
    first = [group for group in ("overview", *DEFAULT_ANALYSES) if group in groups]
    for group in dict.fromkeys([*first, *groups]):
        for name, how in result[group].shown().items():
            if how == kind:
                variable = result[group][name]
                if tuple(variable.dims) == dims:
                    found.append(_ready(group, name, variable))
    return [_told_apart(one, found) for one in found]


def _told_apart(one: Shown, found: list[Shown]) -> Shown:
    """Name the analysis in a label that several use; the known table keeps its own."""
    shared = any(other is not one and other.label == one.label for other in found)
    if not shared or one.place in TABLE:
        return one
    return replace(one, label=f"{one.label} ({one.group})")


def _ready(group: str, name: str, variable: Variable) -> Shown:
    metric = "metric" in variable.units
    equation = variable.equation
    # as files of old have them: a number alone, or a section of a page that is not published
    if equation[:1].isdigit():
        equation = f"Eq. {equation}"
    equation = "" if equation.startswith("theory") else equation
    hint = variable.long_name + (", in units of the metric" if metric else "")
    return Shown(
        group=group,
        name=name,
        label=_line(variable.label or name.replace("_", " ")),
        units="" if metric or variable.units == "1" else _line(variable.units),
        hint=hint + (f" ({equation})" if equation else ""),
        form=variable.form if FORMS.fullmatch(variable.form) else "",
        values=tuple(plain(value) for value in np.atleast_1d(variable.values)),
    )


def _word(value: Any, form: str) -> Any:
    if "|" not in form or isinstance(value, (str, float, type(None))):
        return value
    words = form.split("|")
    return words[int(value)] if 0 <= int(value) < len(words) else value


def _line(text: str) -> str:
    """Short text that a terminal shows as it is."""
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return clean if len(clean) <= _LONGEST else clean[: _LONGEST - 3] + "..."
