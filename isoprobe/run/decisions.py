"""Turn scores into decisions: which rows are flagged, how many wrongly, and what made them odd."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.data.groups import group_keys, group_texts
from isoprobe.theory.detection import false_alarm_rate
from isoprobe.theory.discoveries import (
    added_parts,
    adjusted_p_values,
    least_flagged,
    smallest_p_value,
)

if TYPE_CHECKING:
    from isoprobe.contracts import Dataset
    from isoprobe.run.scoring import Scoring

Columns = Mapping[str, np.ndarray]


class StepUp:
    """The procedure of Benjamini and Hochberg, from counts of each different p-value.

    Memory grows with the reference, not with the rows: conformal p-values are few numbers.
    """

    def __init__(self) -> None:
        self._counts: dict[float, int] = {}
        self._values: np.ndarray | None = None
        self._adjusted = np.empty(0)

    def count(self, p_values: np.ndarray) -> None:
        """Take in p-values of more rows."""
        found, counts = np.unique(p_values, return_counts=True)
        for value, number in zip(found.tolist(), counts.tolist(), strict=True):
            self._counts[value] = self._counts.get(value, 0) + number
        self._values = None

    def adjusted(self, p_values: np.ndarray) -> np.ndarray:
        """Least false discovery rate at which each row is flagged, of p-values taken in before."""
        if self._values is None:
            self._values = np.array(sorted(self._counts))
            counts = np.array([self._counts[value] for value in self._values.tolist()])
            self._adjusted = adjusted_p_values(self._values, counts)
        q_values: np.ndarray = self._adjusted[np.searchsorted(self._values, p_values)]
        return q_values

    def columns(self, p_values: np.ndarray, level: float) -> dict[str, np.ndarray]:
        """Columns that the decision over all rows adds."""
        q_value = self.adjusted(p_values)
        return {"q_value": q_value, "flag_fdr": q_value <= level}


def decided(batches: Iterable[Columns], level: float) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches again with what needs the p-values of all rows.

    Args:
        batches: columns of all rows, with ``p_value``.
        level: false discovery rate.

    Yields:
        The same columns with ``q_value`` and ``flag_fdr``; meanwhile they lie on disk.
    """
    with TemporaryDirectory(prefix="isoprobe-scores-") as name:
        step, folder, number = StepUp(), Path(name), 0
        for columns in batches:
            step.count(columns["p_value"])
            np.savez(folder / f"{number}.npz", **columns)  # type: ignore[arg-type]
            number += 1
        for place in range(number):
            path = folder / f"{place}.npz"
            with np.load(path, allow_pickle=False) as kept:
                columns = {key: kept[key] for key in kept.files}
            path.unlink()
            yield columns | step.columns(columns["p_value"], level)


# --------------------------------------------------------------------------- how many, and which


@dataclass
class Tally:
    """Counts of a scoring as its columns go by, and its highest rows.

    Attributes:
        keep: how many of the highest rows to keep.
        rows: rows so far.
        flagged: rows flagged so far, by rule.
        groups: by the group's name, rows and rows flagged by alpha.
    """

    keep: int = 0
    by: str | None = None
    rows: int = 0
    flagged: dict[str, int] = field(default_factory=dict)
    groups: dict[str, list[int]] = field(default_factory=dict)
    _highest: list[tuple[float, int, dict[str, Any]]] = field(default_factory=list)

    def take(self, columns: Columns) -> None:
        """Take in the columns of the next rows."""
        for name, values in columns.items():
            if name.startswith("flag_"):
                rule = name.removeprefix("flag_")
                self.flagged[rule] = self.flagged.get(rule, 0) + int(values.sum())
        if self.by is not None and self.by in columns:
            names = np.array(group_texts(columns[self.by]))
            for group in np.unique(names):
                own = names == group
                counts = self.groups.setdefault(str(group), [0, 0])
                counts[0] += int(own.sum())
                counts[1] += int(columns["flag_alpha"][own].sum())
        score = columns["score"]
        for place in np.argsort(-score, kind="stable")[: self.keep] if self.keep else ():
            position = self.rows + int(place)
            row = {n: v[place].item() for n, v in columns.items() if v.ndim == 1}
            # of equal scores the first row stays
            entry = (float(score[place]), -position, row)
            if len(self._highest) < self.keep:
                heapq.heappush(self._highest, entry)
            else:
                heapq.heappushpop(self._highest, entry)
        self.rows += len(score)

    @property
    def highest(self) -> list[tuple[int, dict[str, Any]]]:
        """Positions and columns of the highest rows, the highest first."""
        return [(-place, row) for _, place, row in sorted(self._highest, reverse=True)]


def document(scoring: Scoring, tally: Tally) -> dict[str, Any]:
    """Say what a scoring decided, as plain values.

    Args:
        scoring: what was scored.
        tally: its counts.

    Returns:
        Rows, by rule those flagged and how many of them are expected if every row is normal (of
        ``fdr``: how many of the flagged at most), groups with their least p-value, and the highest
        rows with their parts.
    """
    asked, pool = scoring.asked, scoring.reference.pool
    expected: dict[str, float | None] = {}
    for rule, found in tally.flagged.items():
        if rule == "alpha":
            expected[rule] = asked.alpha * tally.rows
        elif rule == "fdr" and asked.fdr is not None:
            expected[rule] = asked.fdr * found
        elif rule == "quantile":
            share = float(np.mean(pool.scores > scoring.reference.thresholds[rule]))
            expected[rule] = false_alarm_rate(len(pool.scores), share) * tally.rows
        else:
            expected[rule] = None
    groups = [
        {
            "group": name,
            "rows": counts[0],
            "flagged_alpha": counts[1],
            "reference_rows": (size := pool.size(int(group_keys(np.array([name]))[0]))),
            "smallest_p_value": smallest_p_value(size),
        }
        for name, counts in sorted(tally.groups.items())
    ]
    return {
        "rows": tally.rows,
        "reference_rows": len(pool.scores),
        "smallest_p_value": smallest_p_value(len(pool.scores)),
        "flagged": tally.flagged,
        "expected_false": expected,
        "groups": groups,
        "highest": [
            {
                "columns": row,
                **scoring.explained(position, row.get("loss", row["score"])).document(),
            }
            for position, row in tally.highest
        ],
        "notes": scoring.notes,
    }


def lines(said: Mapping[str, Any], alpha: float, fdr: float | None = None) -> Iterator[str]:
    """Yield a document of :func:`document` as lines of text for people.

    Args:
        said: the document.
        alpha: level of a row.
        fdr: level of false discoveries, where they are controlled.

    Yields:
        Lines.
    """
    counts = []
    for rule, found in said["flagged"].items():
        false = said["expected_false"][rule]
        if rule == "fdr":
            counts.append(f"{found:,} by fdr, at most {false:.3g} of them expected to be normal")
        elif false is not None:
            counts.append(f"{found:,} by {rule}, {false:.3g} expected if every row is normal")
        else:
            counts.append(f"{found:,} by {rule}")
    yield f"flagged: {'; '.join(counts)}"
    if not said["groups"] and said["smallest_p_value"] > alpha:
        yield _too_few("the reference", said["reference_rows"], said["smallest_p_value"], alpha)
    if not said["groups"] and fdr is not None and not said["flagged"].get("fdr"):
        yield from _too_few_for_one(said["rows"], said["reference_rows"], fdr)
    for group in said["groups"]:
        rows, least = group["reference_rows"], group["smallest_p_value"]
        yield (
            f"  group {group['group']}: {group['rows']:,} rows, {group['flagged_alpha']:,} flagged "
            f"by alpha; {rows:,} reference rows, p-values from {least:.3g} on"
        )
        if least > alpha:
            named = f"group {group['group']}"
            yield f"  {_too_few(named, rows, least, alpha)}"
    for row in said["highest"]:
        columns = row["columns"]
        along = [f"{n} {v}" for n, v in columns.items() if n not in _OWN and "_" not in n]
        yield (
            f"row {columns['row']}{''.join(f', {text}' for text in along)}: score "
            f"{columns['score']:.5g}, p-value {columns['p_value']:.3g}"
        )
        shown = row["parts"][:_SHOWN]
        rest = row["score"] - sum(part["part"] for part in shown)
        texts = [_part(part) for part in shown]
        yield f"    {'; '.join(texts)}; the other {len(row['parts']) - len(shown)}: {rest:.4g}"


#: parts of a row shown to people
_SHOWN = 5
_OWN = frozenset({"row", "score", "loss", "distortion", "transform", "rate"})


def _too_few(what: str, rows: int, least: float, alpha: float) -> str:
    return (
        f"{what} has {rows:,} reference rows: no p-value can be below {least:.3g}, so nothing can "
        f"be flagged at {alpha:g}; it takes {int(np.ceil(1 / alpha)) - 1:,} rows or more"
    )


def _too_few_for_one(rows: int, reference_rows: int, fdr: float) -> Iterator[str]:
    """Say how many rows have to be odd together where the reference is too small for one."""
    together = least_flagged(rows, reference_rows, fdr)
    if together > 1:
        either = f"{together:,} of {rows:,} rows together or none" if together <= rows else "no row"
        alone = math.ceil(rows / fdr - 1e-9) - 1
        yield (
            f"{reference_rows:,} reference rows let fdr {fdr:g} flag {either}; to flag one alone "
            f"it takes {alone:,} or more"
        )


def _part(part: Mapping[str, Any]) -> str:
    name = part["name"] if part["kind"] == "input" else f"{part['kind']} {part['name']}"
    name = "distortion" if part["kind"] == "distortion" else name
    name += f" (moves {part['through']})" if "through" in part else ""
    usual = "" if part["usual"] is None else f" (usually {part['usual']:.3g})"
    return f"{name} {part['part']:.4g}{usual}"


# --------------------------------------------------------------------------- what made a row odd


@dataclass(frozen=True)
class Explained:
    """A score taken apart.

    Attributes:
        score: L_x.
        names: kind and name of each part: ``input`` or ``distortion``, and ``latent``; those
            furthest above what is usual first.
        parts: in units of the metric; ``math.fsum(parts) == score``.
        usual: mean of each part over the reference rows; None where that is not known.
        through: input that a latent moves most from what is usual, by the latent's number.
    """

    score: float
    names: tuple[tuple[str, str], ...]
    parts: np.ndarray
    usual: np.ndarray | None
    through: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        score: float,
        names: Sequence[tuple[str, str]],
        values: Sequence[float],
        usual: Sequence[float] | None,
        through: Mapping[str, str] | None = None,
    ) -> Explained:
        """Sort parts by how far they lie above what is usual, and make them add up."""
        exact = added_parts(score, np.array(values))
        above = exact if usual is None else exact - np.array(usual)
        order = np.argsort(-above, kind="stable")
        mean = None if usual is None else np.array(usual)[order]
        return cls(score, tuple(names[i] for i in order), exact[order], mean, through or {})

    def document(self) -> dict[str, Any]:
        """The parts as plain values."""
        usual = [None] * len(self.parts) if self.usual is None else self.usual.tolist()
        parts = [
            {"kind": kind, "name": name, "part": part, "usual": mean}
            | ({"through": self.through[name]} if kind == "latent" and self.through else {})
            for (kind, name), part, mean in zip(self.names, self.parts.tolist(), usual, strict=True)
        ]
        return {"score": self.score, "parts": parts}


def input_names(dataset: Dataset, shape: Sequence[int]) -> dict[str, np.ndarray]:
    """Names of a row's inputs and their places, inputs of one name together.

    Args:
        dataset: the rows, which may name their columns; a category's inputs are ``name=value``.
        shape: of one input.

    Returns:
        Places in the flattened input, by name; pixels and unnamed inputs by their place.
    """
    size = int(np.prod(shape))
    folds = len(dataset.columns) == size and dataset.folded
    found: dict[str, list[int]] = {}
    for place, name in enumerate(dataset.folded if folds else flat_names(dataset, shape)):
        found.setdefault(name, []).append(place)
    return {name: np.array(places) for name, places in found.items()}


def flat_names(dataset: Dataset, shape: Sequence[int]) -> list[str]:
    """Names of a row's inputs, flattened: of columns, or ``input (0, 3, 4)`` by their place."""
    size = int(np.prod(shape))
    if len(dataset.columns) == size:
        return list(dataset.columns)
    if len(shape) == 1:
        return [f"input {place}" for place in range(size)]
    places = np.array(np.unravel_index(np.arange(size), tuple(shape))).T.tolist()
    return [f"input ({', '.join(map(str, place))})" for place in places]
