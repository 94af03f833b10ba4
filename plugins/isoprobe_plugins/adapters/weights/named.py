"""Weights of a foreign file put into chains of layers by the names a configuration gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Networks
    from isoprobe_plugins.architectures.layers import LayersConfig
    from isoprobe_plugins.architectures.steps import Step


def fill_layers(config: LayersConfig, tensors: Mapping[str, Tensor], where: str) -> Networks:
    """Build the networks of a configuration and fill them from named tensors.

    A step with ``weights = "fc1"`` takes ``fc1.weight``, ``fc1.bias`` and so on.

    Args:
        config: chains whose steps name their weights.
        tensors: of the file, by name.
        where: how to name the file in an error.

    Returns:
        The networks with their weights.

    Raises:
        CheckpointError: when a tensor is missing, of another shape, or used by no step.
    """
    import torch

    from isoprobe.checkpoints.native import load_weights
    from isoprobe_plugins.architectures.layers import build_layers

    networks = built_without_memory(lambda: build_layers(config), where)
    modules = torch.nn.ModuleDict({"encoder": networks.encoder, "decoder": networks.decoder})
    wanted = modules.state_dict()
    sources = dict(_names(config))
    filled, used = {}, set()
    for name in wanted:
        place, _, leaf = name.rpartition(".")
        named = sources.get(place, place)
        foreign = named if leaf == "value" and named in tensors else f"{named}.{leaf}"
        if foreign in tensors:
            whole = name.startswith("decoder.prior.")
            filled[name] = _fitted(tensors[foreign], wanted[name]) if whole else tensors[foreign]
            used.add(foreign)
        elif leaf == "num_batches_tracked":
            filled[name] = torch.zeros((), dtype=torch.long)
        else:
            raise CheckpointError(f"{where} has no tensor {foreign!r}, which {place} needs")
    _refuse_unused(set(tensors) - used, where)
    load_weights(networks, filled, where)
    return networks


def _fitted(tensor: Tensor, wanted: Tensor) -> Tensor:
    """A prior's values in our shape: written down with axes of one, or as a layer's columns."""
    if tensor.numel() != wanted.numel():
        return tensor
    columns = tensor.ndim == 2 and len(tensor) != len(wanted) and tensor.shape[1] == len(wanted)
    return (tensor.T if columns else tensor).reshape(wanted.shape).contiguous()


def built_without_memory(build: Callable[[], Networks], where: str) -> Networks:
    """Build networks on the ``meta`` device, where even a forged size costs nothing.

    Args:
        build: builds them.
        where: how to name their description in an error.

    Returns:
        The networks, without weights.

    Raises:
        CheckpointError: when a size is beyond what any tensor can have.
    """
    import torch

    try:
        with torch.device("meta"):
            return build()
    except (RuntimeError, OverflowError, MemoryError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{where} describes impossible networks: {lines[0]}") from error


def _refuse_unused(names: set[str], where: str) -> None:
    """Raise when weights would be left out: then the model is another one than described."""
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise CheckpointError(f"{where}: tensor {min(names)!r}{more} is used by no layer")


def _names(config: LayersConfig) -> Iterator[tuple[str, str]]:
    """Own place -> foreign place, of every step that has weights."""
    for place, chain in (
        ("encoder.body", config.encoder),
        ("encoder.mean", config.head.mean),
        ("encoder.scale", config.head.scale),
        ("decoder.body", config.decoder),
        *((f"encoder.codes.{i}", chain) for i, chain in enumerate(_codes(config))),
        *((f"decoder.heads.{i}", chain) for i, chain in enumerate(_parameters(config))),
    ):
        yield from _names_of(place, chain)
    if config.prior is not None:
        for part, foreign in config.prior.weights.items():
            yield f"decoder.prior.{part}", foreign


def _parameters(config: LayersConfig) -> Sequence[Sequence[Step]]:
    return () if config.likelihood is None else config.likelihood.parameters


def _codes(config: LayersConfig) -> Sequence[Sequence[Step]]:
    return () if config.condition is None else config.condition.codes


def _names_of(place: str, chain: Sequence[Step]) -> Iterator[tuple[str, str]]:
    for index, step in enumerate(chain):
        foreign = getattr(step, "weights", None)
        if foreign is not None:
            yield f"{place}.{index}", foreign
