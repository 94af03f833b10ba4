"""Give images a margin of zeros, as many networks were trained on them (28 x 28 as 32 x 32)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.contracts import Dataset
from isoprobe.data.fitting import plane, with_plane
from isoprobe.errors import DataError, OptionError

if TYPE_CHECKING:
    from isoprobe.contracts import VAE


def padded(dataset: Dataset, size: int | Sequence[int] | None) -> Dataset:
    """Give images a margin of zeros; they stay in the middle.

    Args:
        dataset: images as stored.
        size: height and width (one number: both) that they are to have; None for no margin.

    Returns:
        The data set with larger images; itself where they have that size.

    Raises:
        DataError: for rows that are no images, or larger ones.
        OptionError: for a size that is none.
    """
    if size is None:
        return dataset
    height, width = (size, size) if isinstance(size, int) else size
    have = plane(tuple(dataset.shape))
    if min(height, width) < 1:
        raise OptionError(f"--pad needs a height and width of at least 1; found {size}")
    if have is None:
        raise DataError(
            f"--pad needs images, and a sample of {dataset.name} has shape {dataset.shape}"
        )
    if have == (height, width):
        return dataset
    if have[0] > height or have[1] > width:
        raise DataError(
            f"--pad {height}x{width} is less than the images of {dataset.name}, {have[0]}x"
            f"{have[1]}; --resize makes them smaller"
        )
    return Padded(dataset, (height, width))


def wanted(vae: VAE, dataset: Dataset) -> tuple[int, int] | None:
    """Return the size that a checkpoint says its images were padded to, where rows are smaller."""
    have = plane(tuple(dataset.shape))
    size = vae.pad
    return None if size is None or have is None or max(have) > max(size) else size


class Padded(Dataset):
    """A data set whose images have a margin of zeros.

    Args:
        inner: the images.
        size: height and width with the margin.
    """

    def __init__(self, inner: Dataset, size: tuple[int, int]) -> None:
        self._inner = inner
        self.name, self.dtype = inner.name, inner.dtype
        self.shape = with_plane(tuple(inner.shape), size)
        more = [w - h for w, h in zip(self.shape, inner.shape, strict=True)]
        self._margins = [(0, 0), *((m // 2, m - m // 2) for m in more)]
        note = f"{inner.shape} padded with zeros to {self.shape}"
        self.notes = (*inner.notes, note)
        self.factors, self.carried = inner.factors, inner.carried

    def __len__(self) -> int:
        return len(self._inner)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Rows at ascending indices, with their margin."""
        return np.pad(self._inner.read(indices), self._margins)

    def labels(self, indices: np.ndarray) -> np.ndarray | None:
        """Labels of the rows."""
        return self._inner.labels(indices)

    def carry(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Columns that go along with the rows."""
        return self._inner.carry(indices)

    def fingerprint(self) -> str:
        """Short text that changes when images or margin do."""
        return f"{self._inner.fingerprint()}-{'x'.join(map(str, self.shape))}"

    def close(self) -> None:
        """Release files."""
        self._inner.close()
