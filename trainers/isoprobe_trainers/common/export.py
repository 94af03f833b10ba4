"""Write a dense network that was trained as batched matrices as a native checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isoprobe.checkpoints.native import FORMAT_VERSION, Manifest, write_checkpoint
from isoprobe_plugins.architectures.mlp import Mlp

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from torch import Tensor, nn

    from isoprobe.checkpoints.native import Objective

    #: weight ``(out, in)`` and bias ``(out,)``
    Layer = tuple[Tensor, Tensor]


def write_mlp(
    path: Path,
    config: Mapping[str, Any],
    encoder: Sequence[Layer],
    heads: Mapping[str, Layer],
    decoder: Sequence[Layer],
    *,
    objective: Objective,
    dataset: str,
    training: Mapping[str, Any],
) -> None:
    """Write encoder and decoder as architecture ``mlp``, replacing what is there.

    Args:
        path: of the checkpoint.
        config: of the architecture.
        encoder: its layers up to the heads.
        heads: ``mean`` and ``scale``.
        decoder: all of its layers.
        objective: the loss.
        dataset: data spec.
        training: record.
    """
    networks = Mlp().build(dict(config))
    *trunk, out = decoder
    _fill(networks.encoder, encoder, heads)
    _fill(networks.decoder, trunk, {"out": out})
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        architecture=Mlp.name,
        config=dict(config),
        latent_size=int(config["latent_size"]),
        objective=objective,
        dataset=dataset,
        training=dict(training),
    )
    write_checkpoint(path, networks.encoder, networks.decoder, manifest, overwrite=True)


def _fill(module: nn.Module, trunk: Sequence[Layer], named: Mapping[str, Layer]) -> None:
    # a trunk is linear, activation, linear, activation ...
    layers = {f"trunk.{2 * i}": layer for i, layer in enumerate(trunk)} | dict(named)
    state = {f"{name}.weight": weight for name, (weight, _) in layers.items()}
    state |= {f"{name}.bias": bias for name, (_, bias) in layers.items()}
    module.load_state_dict(state)
