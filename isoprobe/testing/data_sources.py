"""Hold a data source to its laws: rows by index, the same ones every time."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import DataError
from isoprobe.testing.laws import Law, Laws, law, require

if TYPE_CHECKING:
    from isoprobe.contracts import VAE, Dataset, DataSource

MANY = 50


def check_data_source(source: DataSource, spec: str, vae: VAE | None = None) -> list[Law]:
    """List the laws of a data source.

    Args:
        source: an instance.
        spec: a spec it opens.
        vae: a model, for sources whose samples come from one.

    Returns:
        The laws.
    """
    return DataSourceLaws(source, spec, vae).collect()


class DataSourceLaws(Laws):
    """A data source under test."""

    def __init__(self, source: DataSource, spec: str, vae: VAE | None) -> None:
        self.source, self.spec, self.vae = source, spec, vae

    @law("matches accepts its spec and no other")
    def _matches(self) -> None:
        require(self.source.matches(self.spec), f"'{self.spec}' is not accepted")
        for other in ("no-such-data/at-all", "no-such-file.unheard-of", "::", "\x00"):
            require(not self.source.matches(other), f"{other!r} is accepted")

    @law("what is not there is refused with an error a user can act on")
    def _missing(self) -> None:
        missing = self.spec.replace(".", "-is-missing.", 1)
        if missing == self.spec or not self.source.matches(missing):
            return
        try:
            self.source.open(missing, self.vae).close()
        except DataError as error:
            require("\n" not in str(error), "the error has more than one line")
        else:
            require(condition=False, message=f"'{missing}' opens")

    @law("rows have the declared shape and type")
    def _shape(self) -> None:
        with self._opened() as data:
            rows = data.read(self._indices(data))
        require(len(data) > 0, "there are no rows")
        require(bool(data.name), "the data has no name")
        expected = (len(rows), *data.shape)
        require(rows.shape == expected, f"rows have shape {rows.shape}, not {expected}")
        require(rows.dtype.name == data.dtype, f"rows are {rows.dtype.name}, not {data.dtype}")

    @law("a row is the same in any company")
    def _rows(self) -> None:
        with self._opened() as data:
            indices = self._indices(data)
            together, apart = data.read(indices), data.read(indices[::3])
            alone = np.concatenate([data.read(indices[i : i + 1]) for i in range(len(indices))])
        require(_close(alone, together), "rows read one by one differ")
        require(_close(apart, together[::3]), "every third row differs")

    @law("labels belong to rows")
    def _labels(self) -> None:
        with self._opened() as data:
            indices = self._indices(data)
            labels = data.labels(indices)
            alone = [data.labels(indices[i : i + 1]) for i in range(len(indices))]
        if labels is not None:
            require(len(labels) == len(indices), f"{len(labels)} labels for {len(indices)} rows")
            again = [label for row in alone if row is not None for label in row]
            require(again == list(labels), "labels read one by one differ")

    @law("opening twice gives the same rows and fingerprint")
    def _same(self) -> None:
        with self._opened() as first, self._opened() as second:
            indices = self._indices(first)
            require(
                np.array_equal(first.read(indices), second.read(indices), equal_nan=True),
                "rows differ",
            )
            require(first.fingerprint() == second.fingerprint(), "fingerprints differ")
            require(bool(first.fingerprint()), "the fingerprint is empty")

    def _opened(self) -> closing[Dataset]:
        return closing(self.source.open(self.spec, self.vae))

    @staticmethod
    def _indices(data: Dataset) -> np.ndarray:
        return np.arange(min(len(data), MANY), dtype=np.int64)


def _close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Equal up to the rounding of samples that a model decodes in batches of another size."""
    if expected.dtype.kind != "f":
        return bool((found == expected).all())
    return np.allclose(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)
