"""Hold an architecture to its laws: it builds what its configuration says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch

from isoprobe.checkpoints.native import (
    FORMAT_VERSION,
    Manifest,
    load_weights,
    weights,
    write_checkpoint,
)
from isoprobe.errors import IsoprobeError
from isoprobe.testing.compare import require_close
from isoprobe.testing.laws import Law, Laws, law, require

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Architecture, Networks

BATCH = 3


def check_architecture(architecture: Architecture, config: Mapping[str, Any]) -> list[Law]:
    """List the laws of an architecture.

    Args:
        architecture: an instance.
        config: a configuration it builds; keep it small.

    Returns:
        The laws.
    """
    return ArchitectureLaws(architecture, config).collect()


class ArchitectureLaws(Laws):
    """An architecture under test."""

    def __init__(self, architecture: Architecture, config: Mapping[str, Any]) -> None:
        self.architecture, self.config = architecture, config

    @law("encoder gives a mean and a positive deviation for each latent")
    def _encoder(self) -> None:
        networks = self._build()
        mean, std = networks.encoder(self._inputs(networks))
        expected = (BATCH, _product(networks.latent_shape))
        require(mean.shape == expected, f"mean has shape {tuple(mean.shape)}, not {expected}")
        require(std.shape == expected, f"deviation has shape {tuple(std.shape)}, not {expected}")
        require((std > 0).all(), "a deviation is not positive")

    @law("decoder gives one sample for each latent vector")
    def _decoder(self) -> None:
        networks = self._build()
        found = networks.decoder(self._latents(networks))
        expected = (BATCH, *networks.input_shape)
        require(found.shape == expected, f"decoder gives {tuple(found.shape)}, not {expected}")

    @law("logits agree with the decoded mean")
    def _logits(self) -> None:
        networks = self._build()
        logits: Callable[[Tensor], Tensor] | None = getattr(networks.decoder, "logits", None)
        if logits is not None:
            z = self._latents(networks)
            mean = torch.sigmoid(logits(z))
            require_close(mean, networks.decoder(z), 1e-5, "sigmoid of the logits")

    @law("weights survive a checkpoint bit by bit")
    def _round_trip(self) -> None:
        networks = self._build()
        latent = _product(networks.latent_shape)
        manifest = Manifest(FORMAT_VERSION, self.architecture.name, dict(self.config), latent)
        with TemporaryDirectory() as folder, torch.device("meta"):
            path = Path(folder) / "model.safetensors"
            write_checkpoint(path, networks.encoder, networks.decoder, manifest)
            copy = self.architecture.build(self.config)
            with torch.device("cpu"):
                load_weights(copy, weights(path), "the copy")
        for name, part in (("encoder", networks.encoder), ("decoder", networks.decoder)):
            state, again = part.state_dict(), getattr(copy, name).state_dict()
            require(state.keys() == again.keys(), f"the {name} of a copy has other weights")
            require(all(torch.equal(state[k], again[k]) for k in state), f"the {name} differs")

    @law("initial weights come from torch's seed")
    def _seeded(self) -> None:
        first, second = self._build().decoder.state_dict(), self._build().decoder.state_dict()
        require(all(torch.equal(first[k], second[k]) for k in first), "two builds differ")

    @law("a wrong configuration is refused with an error a user can act on")
    def _wrong(self) -> None:
        for wrong in ({}, {**self.config, "no_such_field": 1}):
            try:
                self.architecture.build(wrong)
            except IsoprobeError as error:
                require("\n" not in str(error), "the error has more than one line")
            else:
                require(condition=False, message=f"it builds from {sorted(wrong)}")

    def _build(self) -> Networks:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            networks = self.architecture.build(self.config)
        networks.encoder.eval()
        networks.decoder.eval()
        return networks

    @staticmethod
    def _inputs(networks: Networks) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        return torch.rand(BATCH, *networks.input_shape, generator=generator)

    @staticmethod
    def _latents(networks: Networks) -> Tensor:
        generator = torch.Generator().manual_seed(2)
        return torch.randn(BATCH, _product(networks.latent_shape), generator=generator)


def _product(shape: tuple[int, ...]) -> int:
    size = 1
    for length in shape:
        size *= length
    return size
