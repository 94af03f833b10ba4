"""Sample the model itself: ``prior``, ``prior:N``, ``prior:seed=S``, ``prior:N,seed=S``."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from isoprobe.contracts import Dataset, DataSource
from isoprobe.data.files import short_digest
from isoprobe.errors import DataError
from isoprobe.hookspecs import hookimpl
from isoprobe.probe.prior import from_prior

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE

LENGTH = 10_000
CHUNK = 256


class PriorSource(DataSource):
    """x = Dec(z) with z from the prior: any decoder can be probed without data."""

    name: ClassVar[str] = "prior"
    summary: ClassVar[str] = "samples of the model's own prior, prior, prior:N or prior:N,seed=S"

    def matches(self, spec: str) -> bool:
        """Return True for ``prior``, with options or without."""
        return spec.partition(":")[0] == self.name

    def open(self, spec: str, vae: VAE | None = None) -> Dataset:
        """Return it opened for a model.

        Raises:
            DataError: when there is no model, or N or S is no whole number.
        """
        length, seed = _options(spec)
        if vae is None:
            raise DataError("'prior' draws samples from a model, and there is none; name a file")
        return PriorDataset(vae, length, seed)


class PriorDataset(Dataset):
    """Row i is Dec(z_i), z_i from the prior a function of i and the seed alone.

    Values are clipped to the input range the model declares: a decoder may exceed it.

    Args:
        vae: the model.
        length: number of rows.
        seed: seed of the latents.
    """

    def __init__(self, vae: VAE, length: int = LENGTH, seed: int = 0) -> None:
        self._vae, self._length, self._seed = vae, length, seed
        self.name = "prior"
        self.shape, self.dtype = tuple(vae.input_shape), "float64"
        clipped = vae.facts.input_range
        words = "N(0, I)" if vae.prior is None else vae.prior.words
        self.notes = (
            f"no data: x = Dec(z), z drawn from the prior {words} with seed {seed}"
            + (f", clipped to [{clipped[0]:g}, {clipped[1]:g}]" if clipped else ""),
        )

    def __len__(self) -> int:
        return self._length

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Return rows at the indices, ``(len(indices), *input_shape)`` float64.

        Raises:
            DataError: when the decoder's output has another shape than the model declares.
        """
        import torch

        z = from_prior(self._vae, self._seed, "prior", indices)
        with torch.no_grad():
            x = torch.cat([self._decode(part) for part in torch.split(z, CHUNK)])
        if tuple(x.shape[1:]) != self.shape:
            raise DataError(
                f"the decoder gives samples of shape {tuple(x.shape[1:])} and the model declares "
                f"inputs of {self.shape}; name data with --data"
            )
        clipped = self._vae.facts.input_range
        rows: np.ndarray = (x if clipped is None else x.clamp(*clipped)).numpy()
        return rows

    def fingerprint(self) -> str:
        """Hash of the model, the seed and the number of rows."""
        digest = hashlib.sha256(repr((self._seed, self._length)).encode())
        digest.update(_identity(self._vae).encode())
        return short_digest(digest.digest())

    def _decode(self, z: Tensor) -> Tensor:
        x = self._vae.decode(z.to(self._vae.device, self._vae.dtype))
        return x.detach().cpu().double()


def _identity(vae: VAE) -> str:
    """Return the checkpoint's hash; of a model in memory, one of its parameters."""
    if vae.sha256 or vae.module is None:
        return vae.sha256 or vae.name
    digest = hashlib.sha256()
    for name, value in vae.module.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().double().numpy().tobytes())
    return digest.hexdigest()


def _options(spec: str) -> tuple[int, int]:
    length, seed = LENGTH, 0
    for part in filter(None, spec.partition(":")[2].split(",")):
        key, equals, value = part.partition("=")
        try:
            number = int(value if equals else key)
        except ValueError:
            number = -1
        if number < 0 or (equals and key != "seed") or (not equals and number == 0):
            raise DataError(f"expected prior, prior:N or prior:N,seed=S; found '{spec}'")
        length, seed = (length, number) if equals else (number, seed)
    return length, seed


@hookimpl
def isoprobe_data_sources() -> Sequence[type[DataSource]]:
    """Return the source of prior samples."""
    return [PriorSource]
