"""Open ``celeba64/train`` and ``celeba32/train``, with their other parts: faces."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.contracts import Dataset, DataSource
from isoprobe.data.files import short_digest
from isoprobe.errors import DataError, nearest
from isoprobe.hookspecs import hookimpl
from isoprobe_trainers.images.faces import PARTS, faces

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import VAE
    from isoprobe_trainers.images.faces import Faces

#: prefix of a spec -> side of its images
SIDES = {"celeba64/": 64, "celeba32/": 32}


class FacesDataset(Dataset):
    """Faces as bytes, ``(side, side, 3)``, each decoded when it is read.

    Args:
        spec: as shown in summaries.
        images: the part, of 64 x 64 pixels.
        side: 64, or 32 for means over 2 x 2 pixels.
    """

    dtype = "uint8"

    def __init__(self, spec: str, images: Faces, side: int = 64) -> None:
        self.name, self._images = spec, images
        self.shape = (side, side, 3)

    def __len__(self) -> int:
        return len(self._images.ids)

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Images, ``(len(indices), side, side, 3)`` uint8."""
        import numpy as np

        images = np.stack([self._images.image(int(index)) for index in indices])
        return images if self.shape[0] == images.shape[1] else _halved(images)

    def fingerprint(self) -> str:
        """Hash of the names of the images."""
        import hashlib

        return short_digest(hashlib.sha256("\n".join(self._images.ids).encode()).digest())


def _halved(images: np.ndarray) -> np.ndarray:
    """Means over 2 x 2 pixels, halves rounded up: ``(N, 2 a, 2 b, C) -> (N, a, b, C)`` uint8."""
    count, height, width, channels = images.shape
    blocks = images.reshape(count, height // 2, 2, width // 2, 2, channels)
    halved: np.ndarray = ((blocks.sum(axis=(2, 4), dtype="uint16") + 2) // 4).astype("uint8")
    return halved


class FacesSource(DataSource):
    """Opens ``celeba64/PART`` and ``celeba32/PART``, PART being train, validation or test."""

    name = "celeba"
    summary = (
        "celeba64/train, validation, test, and celeba32/...: faces of 64 x 64 or 32 x 32, from "
        "the folder ISOPROBE_DATA"
    )

    def matches(self, spec: str) -> bool:
        """Return True for anything that begins with one of :data:`SIDES`."""
        return spec.startswith(tuple(SIDES))

    def open(self, spec: str, vae: VAE | None = None) -> FacesDataset:
        """Return one part.

        Raises:
            DataError: for an unknown part, or files missing or damaged.
        """
        name, _, part = spec.partition("/")
        if part not in PARTS:
            hint = nearest(part, list(PARTS))
            raise DataError(f"{name} has the parts {', '.join(PARTS)}, not '{part}'{hint}")
        return FacesDataset(spec, faces(part), SIDES[f"{name}/"])


@hookimpl
def isoprobe_data_sources() -> list[type[DataSource]]:
    """Return CelebA."""
    return [FacesSource]
