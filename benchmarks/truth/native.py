"""Build networks and write checkpoints: the one place that knows where isoprobe keeps these."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, Objective, write_checkpoint
from isoprobe.contracts import Metric
from isoprobe.registry.lookup import installed

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Metric", "networks", "write"]


def networks(architecture: str, config: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Build untrained networks.

    Args:
        architecture: a registered name.
        config: its configuration.

    Returns:
        Encoder ``x -> (mean, std)`` and decoder ``z -> x_hat``.
    """
    built = installed().architecture(architecture).build(config)
    return built.encoder, built.decoder


def write(
    path: Path,
    parts: tuple[nn.Module, nn.Module],
    architecture: str,
    config: dict[str, Any],
    objective: tuple[str, float] | None,
    training: dict[str, Any],
) -> None:
    """Write a native checkpoint in place of an older one.

    Args:
        path: of the file.
        parts: encoder and decoder.
        architecture: a registered name.
        config: its configuration.
        objective: metric spec and beta in its units; None where no registered metric says it.
        training: record of the training.
    """
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        architecture=architecture,
        config=config,
        latent_size=config["latent_size"],
        objective=None if objective is None else Objective(*objective),
        training=training,
    )
    write_checkpoint(path, *parts, manifest, overwrite=True)
