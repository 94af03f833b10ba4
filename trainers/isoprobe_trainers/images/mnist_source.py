"""Open ``mnist/train`` and ``fashion-mnist/train``, with their other parts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.contracts import Dataset, DataSource
from isoprobe.errors import DataError, nearest
from isoprobe.hookspecs import hookimpl
from isoprobe_trainers.common.files import read_arrays

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import VAE

KINDS = ("mnist", "fashion-mnist")
#: part -> arrays, and rows of them: the first 50,000 of 60,000 are for training (Appendix F)
PARTS = {
    "train": ("train", slice(0, 50_000)),
    "validation": ("train", slice(50_000, None)),
    "test": ("test", slice(None)),
}


class DigitsDataset(Dataset):
    """Images of one part as bytes, ``(28, 28)``.

    Args:
        spec: as shown in summaries.
        images: ``(N, 28, 28)`` uint8.
        classes: ``(N,)`` uint8.
    """

    dtype = "uint8"

    def __init__(self, spec: str, images: np.ndarray, classes: np.ndarray) -> None:
        self.name, self.images, self._classes = spec, images, classes
        self.shape = images.shape[1:]

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images, ``(len(indices), 28, 28)`` uint8."""
        rows: np.ndarray = self.images[indices]
        return rows

    def labels(self, indices: np.ndarray) -> np.ndarray:
        """Classes 0 to 9, ``(len(indices),)``."""
        rows: np.ndarray = self._classes[indices]
        return rows

    def fingerprint(self) -> str:
        """The spec: the file's checksum is fixed."""
        return self.name


class DigitsSource(DataSource):
    """Opens ``mnist/PART`` and ``fashion-mnist/PART``, PART being train, validation or test."""

    name = "mnist"
    summary = "mnist/train, validation, test, and fashion-mnist/..., from the folder ISOPROBE_DATA"

    def matches(self, spec: str) -> bool:
        """Return True for anything that begins with one of the names and a slash."""
        return spec.startswith(tuple(f"{kind}/" for kind in KINDS))

    def open(self, spec: str, vae: VAE | None = None) -> DigitsDataset:
        """Return one part.

        Raises:
            DataError: for an unknown part, or a file missing or damaged.
        """
        kind, _, part = spec.partition("/")
        if part not in PARTS:
            hint = nearest(part, list(PARTS))
            raise DataError(f"{kind} has the parts {', '.join(PARTS)}, not '{part}'{hint}")
        arrays = read_arrays(kind)
        which, rows = PARTS[part]
        return DigitsDataset(spec, arrays[f"x_{which}"][rows], arrays[f"y_{which}"][rows])


@hookimpl
def isoprobe_data_sources() -> list[type[DataSource]]:
    """Return MNIST and Fashion-MNIST."""
    return [DigitsSource]
