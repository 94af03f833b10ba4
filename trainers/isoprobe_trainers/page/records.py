"""Read what finished trainings gave: one JSON file for each, committed as soon as it is there."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Sequence


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model of an experiment, for one seed or several.

    Attributes:
        experiment: table or figure of the paper.
        model: what was trained, or method.
        seeds: in the order of the values.
        batch: rows of a step.
        device: where it was trained.
        date: of the training, YYYY-MM-DD.
        versions: of what computed.
        values: what was measured.
        data: data set, where an experiment has several.
        iterations: steps done; None where epochs count.
        epochs: passes over the data done; None where iterations count.
        planned: steps or passes of the paper's schedule.
        rate: of Adam; None where nothing is trained.
        decay: share of the schedule, the last one, in which the rate falls to 0.
        seconds: by the wall clock, of all seeds together; None where nobody measured.
        beside: other trainings on the same device in that time.
    """

    experiment: str
    model: str
    seeds: tuple[int, ...]
    batch: int
    device: str
    date: str
    versions: dict[str, str]
    values: dict[str, Any]
    data: str = ""
    iterations: int | None = None
    epochs: int | None = None
    planned: int = 0
    rate: float | None = None
    decay: float = 0.0
    seconds: float | None = None
    beside: int = 0

    @property
    def done(self) -> int:
        """Steps or passes done."""
        return (self.epochs if self.iterations is None else self.iterations) or 0

    @property
    def schedule(self) -> str:
        """How long it was trained of what the paper asks, in words."""
        if not self.planned:
            return "-"
        unit = "epochs" if self.iterations is None else "iterations"
        if self.done == self.planned:
            return f"{self.done:,} {unit}"
        return f"{self.done:,} of {self.planned:,} {unit}"


@lru_cache(maxsize=1)
def records() -> dict[str, Record]:
    """Every record by the name of its file without suffix, in the order of the names."""
    folder = files("isoprobe_trainers").joinpath("results")
    found = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".json"))
    return {
        name.removesuffix(".json"): msgspec.json.decode(
            folder.joinpath(name).read_bytes(), type=Record
        )
        for name in found
    }


def of(experiment: str, data: str = "") -> list[Record]:
    """Records of an experiment, and of one of its data sets where it has several."""
    return [r for r in records().values() if r.experiment == experiment and r.data == data]


def column(record: Record, name: str) -> Sequence[float]:
    """A measured figure by seed."""
    found: Sequence[float] = record.values[name]
    return found
