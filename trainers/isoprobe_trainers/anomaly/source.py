"""Open ``anomaly/thyroid`` and the other tables of Section 5.3, with their splits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from isoprobe.contracts import Dataset, DataSource
from isoprobe.errors import DataError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.specs import construct, parse_spec
from isoprobe_trainers.anomaly import tables

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import VAE
    from isoprobe_trainers.anomaly.tables import Table

PREFIX = "anomaly/"


@dataclass(frozen=True)
class _Options:
    seed: int = 0
    part: Literal["train", "held_out", "test", "all"] = "test"


class TableDataset(Dataset):
    """Rows of one part of a table; the label is 1 for an anomaly.

    Args:
        spec: as shown in summaries.
        table: the data.
        rows: row numbers of the part, ascending.
    """

    dtype = "float32"

    def __init__(self, spec: str, table: Table, rows: np.ndarray) -> None:
        self.name, self._table, self._rows = spec, table, rows
        self.shape = (table.x.shape[1],)

    def __len__(self) -> int:
        return len(self._rows)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows, ``(len(indices), m)`` float32 in [0, 1]."""
        rows: np.ndarray = self._table.x[self._rows[indices]]
        return rows

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """Return 1 for an anomaly, 0 for a normal row, ``(len(indices),)`` uint8."""
        marks: np.ndarray = self._table.anomalous[self._rows[indices]].astype("uint8")
        return marks

    def fingerprint(self) -> str:
        """The spec: the file's checksum is fixed, and table and split follow from the seed."""
        return self.name


class AnomalySource(DataSource):
    """Opens ``anomaly/NAME[:seed=0,part=test]``."""

    name = "anomaly"
    summary = (
        "anomaly/kddcup99, thyroid, arrhythmia, kddcup-rev: Section 5.3, from the folder "
        "ISOPROBE_DATA"
    )

    def matches(self, spec: str) -> bool:
        """Return True for anything that begins with ``anomaly/``."""
        return spec.startswith(PREFIX)

    def open(self, spec: str, vae: VAE | None = None) -> TableDataset:
        """Return a part of a table's split.

        Raises:
            DataError: for an unknown table, a negative seed, or a file missing or damaged.
        """
        import numpy as np

        name, given = parse_spec(spec)
        options = construct(_Options, given, f"data '{name}'")
        if options.seed < 0:
            raise DataError(f"data '{name}' needs a seed of at least 0; found {options.seed}")
        table = tables.load(name.removeprefix(PREFIX), options.seed)
        if options.part == "all":
            rows = np.arange(len(table.x))
        else:
            rows = getattr(tables.split(table, options.seed), options.part)
        return TableDataset(data_spec(table.name, options.seed, options.part), table, rows)


def data_spec(name: str, seed: int, part: str) -> str:
    """Return the spec of a part of a table."""
    return f"{PREFIX}{name}:seed={seed},part={part}"


@hookimpl
def isoprobe_data_sources() -> list[type[DataSource]]:
    """Return the tables of Section 5.3."""
    return [AnomalySource]
