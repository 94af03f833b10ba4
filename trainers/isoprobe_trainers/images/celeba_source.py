"""Data source ``celeba64/train`` and its other parts: faces of 64 x 64 pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.contracts import Dataset, DataSource
from isoprobe.errors import DataError, nearest
from isoprobe.hookspecs import hookimpl

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import VAE
    from isoprobe_trainers.images.faces import Faces

PREFIX = "celeba64/"


class FacesDataset(Dataset):
    """Faces as bytes, ``(64, 64, 3)``, each decoded when it is read.

    Args:
        spec: as shown in summaries.
        images: the part.
    """

    dtype = "uint8"
    shape = (64, 64, 3)

    def __init__(self, spec: str, images: Faces) -> None:
        self.name, self._images = spec, images

    def __len__(self) -> int:
        return len(self._images.ids)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images, ``(len(indices), 64, 64, 3)`` uint8."""
        import numpy as np

        return np.stack([self._images.image(int(index)) for index in indices])

    def fingerprint(self) -> str:
        """Hash of the names of the images."""
        import hashlib

        from isoprobe.data.files import short_digest

        return short_digest(hashlib.sha256("\n".join(self._images.ids).encode()).digest())


class FacesSource(DataSource):
    """Opens ``celeba64/PART``, PART being train, validation or test."""

    name = "celeba"
    summary = "celeba64/train, validation, test: 64 x 64 faces, from the folder ISOPROBE_DATA"

    def matches(self, spec: str) -> bool:
        """Return True for anything that begins with ``celeba64/``."""
        return spec.startswith(PREFIX)

    def open(self, spec: str, vae: VAE | None = None) -> FacesDataset:
        """Return one part.

        Raises:
            DataError: for an unknown part, or files missing or damaged.
        """
        from isoprobe_trainers.images.faces import PARTS, faces

        part = spec.removeprefix(PREFIX)
        if part not in PARTS:
            hint = nearest(part, list(PARTS))
            raise DataError(f"celeba64 has the parts {', '.join(PARTS)}, not '{part}'{hint}")
        return FacesDataset(spec, faces(part))


@hookimpl
def isoprobe_data_sources() -> list[type[DataSource]]:
    """Return CelebA."""
    return [FacesSource]
