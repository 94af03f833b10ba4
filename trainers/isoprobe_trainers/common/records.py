"""Keep what finished trainings gave: one JSON file for each, from which the docs' page is made."""

from __future__ import annotations

import datetime
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import msgspec

from isoprobe.checkpoints.native import read_manifest
from isoprobe.results.whole import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


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


@lru_cache
def records(schedule: str = "") -> dict[str, Record]:
    """Every record by the name of its file without suffix, in the order of the names.

    Args:
        schedule: ``quick`` for those of shortened schedules; the paper's when empty.

    Returns:
        The records.
    """
    folder = files("isoprobe_trainers").joinpath("results", schedule)
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


def origin(checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Where, when and in what time models were trained, as their checkpoints say.

    Args:
        checkpoints: native ones, of one training.

    Returns:
        Device, date, versions and seconds, as keyword arguments of :class:`Record`.
    """
    said = [read_manifest(path).training for path in checkpoints]
    latest = max(path.stat().st_mtime for path in checkpoints)
    first = said[0]
    # models of one ensemble train together, and each says the time of all
    seconds = max((float(one["seconds"]) for one in said if "seconds" in one), default=None)
    return {
        "device": str(first.get("device", "unknown")),
        "date": datetime.datetime.fromtimestamp(latest, datetime.UTC).date().isoformat(),
        "versions": dict(first.get("versions", {})),
        "seconds": seconds,
    }


def write(record: Record, folder: Path, name: str) -> Path:
    """Write a record whole, in the place of an earlier one.

    Args:
        record: to write.
        folder: of records; made where it is missing.
        name: of the file, without suffix.

    Returns:
        The file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    set_fields = {k: v for k, v in msgspec.structs.asdict(record).items() if v not in (None, "")}
    with replacing(path) as part:
        part.write_bytes(msgspec.json.format(msgspec.json.encode(set_fields), indent=1) + b"\n")
    return path


def rounded(values: Sequence[float]) -> list[float]:
    """Values to six digits, as records keep them."""
    return [float(f"{value:.6g}") for value in values]
