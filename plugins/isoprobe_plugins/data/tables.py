"""Open tables of numbers, CSV, TSV and Parquet; ``:columns=A,B;label=C;id=D`` says more."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from isoprobe.checkpoints.headers import is_text
from isoprobe.contracts import Dataset, DataSource
from isoprobe.data.files import check_file, first_bytes, split_spec
from isoprobe.data.recipe import Recipe, Recorded
from isoprobe.errors import DataError
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.data.columns import Roles
from isoprobe_plugins.data.parquet import ParquetDataset
from isoprobe_plugins.data.text import TextDataset

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import VAE

PARQUET_MAGIC = b"PAR1"
GZIP_MAGIC = b"\x1f\x8b"
SUFFIXES = frozenset({".csv", ".tsv"})


class TableSource(DataSource):
    """Tables whose columns are numbers; each row is a sample."""

    name: ClassVar[str] = "tables"
    summary: ClassVar[str] = (
        "tables of numbers, FILE.csv, FILE.tsv (or .gz), FILE.parquet, "
        "with FILE.csv:columns=A,B;label=C;id=D;keep=E"
    )

    def matches(self, spec: str) -> bool:
        """Return True for Parquet by its first bytes, and for text or gzip named .csv or .tsv."""
        path, _ = split_spec(spec)
        head = first_bytes(path)
        return head.startswith(PARQUET_MAGIC) or (
            _is_named_table(path) and (head.startswith(GZIP_MAGIC) or is_text(head))
        )

    def open(self, spec: str, vae: VAE | None = None) -> Dataset:
        """Return it opened; text is read through once, to count and to check its rows.

        Raises:
            DataError: when it is damaged, ragged, or has columns that are no numbers.
        """
        path, member = split_spec(spec)
        check_file(path)
        roles = Roles.parse(member, path.name)
        recipe = Recipe.of(vae)
        if recipe is None:
            return _opened(path, roles)
        # the model says which columns it takes, so that only ids and labels need be named
        kept = tuple(dict.fromkeys((*recipe.names, *roles.kept)))
        return Recorded(_opened(path, Roles(roles.label, (), kept)), recipe, roles.kept)


@dataclass(frozen=True)
class Cells:
    """A whole table in memory, as it stands in its file.

    Attributes:
        name: as shown in summaries.
        columns: that would be inputs, by name, ``(N,)`` each, text or numbers.
        labels: of the rows, ``(N,)``; None where no column was named.
    """

    name: str
    columns: dict[str, np.ndarray]
    labels: np.ndarray | None


def read_cells(spec: str) -> Cells:
    """Read a table whose first line names the columns, before any model says what it takes.

    Args:
        spec: ``FILE.csv:columns=A,B;label=C;id=D``.

    Returns:
        Its cells.

    Raises:
        DataError: when it is no table, or damaged.
    """
    import numpy as np

    path, member = split_spec(spec)
    check_file(path)
    if not TableSource().matches(spec):
        raise DataError(f"{path} is no table; expected a .csv, .tsv (or .gz) or .parquet file")
    with closing(_opened(path, replace(Roles.parse(member, path.name), raw=True))) as table:
        if not len(table):
            raise DataError(f"{path} has no rows; expected at least one")
        every = np.arange(len(table))
        cells = table.carry(every)
        names = table.carried[: table.raw]
        return Cells(path.name, {name: cells[name] for name in names}, table.labels(every))


def _opened(path: Path, roles: Roles) -> TextDataset | ParquetDataset:
    if first_bytes(path, 4) == PARQUET_MAGIC:
        return ParquetDataset(path, roles)

    return TextDataset(path, roles)


def _is_named_table(path: Path) -> bool:
    name = path.with_suffix("") if path.suffix.lower() == ".gz" else path
    return name.suffix.lower() in SUFFIXES and path.is_file()


@hookimpl
def isoprobe_data_sources() -> Sequence[type[DataSource]]:
    """Return the source of tables."""
    return [TableSource]
