"""Put weights of a foreign file into chains of layers by the names a configuration gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.checkpoints.native import load_weights, refuse_not_finite
from isoprobe.errors import CheckpointError
from isoprobe.files.meter import Meter
from isoprobe_plugins.architectures.layers import build_layers
from isoprobe_plugins.architectures.steps import (
    ConditionStep,
    ConstantStep,
    ResidualStep,
    WeightedStep,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from torch import Tensor

    from isoprobe.contracts import Networks
    from isoprobe_plugins.architectures.layers import LayersConfig
    from isoprobe_plugins.architectures.steps import Step

    #: steps whose tensors a file names
    Named = WeightedStep | ConditionStep | ConstantStep


#: of a number that one row becomes
_BYTES = 4


def fill_layers(
    config: LayersConfig, tensors: Mapping[str, Tensor], where: str, *, strict: bool = True
) -> Networks:
    """Build the networks of a configuration and fill them from named tensors.

    A step with ``weights = "fc1"`` takes ``fc1.weight``, ``fc1.bias`` and so on.

    Args:
        config: chains whose steps name their weights.
        tensors: of the file, by name.
        where: how to name the file in an error.
        strict: refuse tensors that no step uses.

    Returns:
        The networks with their weights.

    Raises:
        CheckpointError: when a tensor is missing, of another shape, or used by no step.
    """
    import torch

    networks = built_without_memory(lambda: build_layers(config), where)
    modules = torch.nn.ModuleDict({"encoder": networks.encoder, "decoder": networks.decoder})
    steps, priors = dict(_named_steps(config)), _named_prior(config)
    filled, used = {}, set()
    for name, wanted in modules.state_dict().items():
        place, _, leaf = name.rpartition(".")
        step = steps.get(place)
        if (
            step is None and place not in priors
        ):  # a part of a step's own, such as the projection of an attention
            place, _, inner = place.rpartition(".")
            step, leaf = steps.get(place), f"{inner}.{leaf}"
        named = priors.get(place, place)
        foreign = f"{named}.{leaf}" if step is None else _foreign(step, leaf, tensors)
        if place in priors and leaf == "value" and named in tensors:
            foreign = named
        if foreign in tensors:
            refuse_not_finite(tensors[foreign], foreign, where)
            if place in priors:
                filled[name] = _fitted(tensors[foreign], wanted)
            else:
                filled[name] = (
                    tensors[foreign] if step is None else _own(step, leaf, tensors[foreign])
                )
            used.add(foreign)
        elif leaf == "num_batches_tracked":
            filled[name] = torch.zeros((), dtype=torch.long)
        else:
            raise CheckpointError(f"{where} has no tensor {foreign!r}, which {place} needs")
    if strict:
        _refuse_unused(set(tensors) - used, where)
    load_weights(networks, filled, where)
    return networks


def _fitted(tensor: Tensor, wanted: Tensor) -> Tensor:
    """A prior's values in our shape: written down with axes of one, or as a layer's columns."""
    if tensor.numel() != wanted.numel():
        return tensor
    columns = tensor.ndim == 2 and len(tensor) != len(wanted) and tensor.shape[1] == len(wanted)
    return (tensor.T if columns else tensor).reshape(wanted.shape).contiguous()


def _foreign(step: Named, leaf: str, tensors: Mapping[str, Tensor]) -> str:
    """Name in the file of a step's tensor."""
    told = {"weight": "weight", "bias": "bias_name"}.get(leaf)
    if leaf == "value" and step.weights in tensors:  # a tensor of its own
        return str(step.weights)
    name = getattr(step, told or "", None) or f"{step.weights}.{leaf}"
    if name not in tensors and leaf.endswith("_l0"):  # a cell of its own has no layers
        return name.removesuffix("_l0")
    return name


def _own(step: Named, leaf: str, tensor: Tensor) -> Tensor:
    """Turn a foreign tensor into the form in which torch keeps it."""
    if not isinstance(step, WeightedStep):
        return tensor
    if step.member is not None and tensor.ndim:
        tensor = tensor[step.member]
    if step.transposed and leaf == "weight" and tensor.ndim > 1:
        axes = list(range(tensor.ndim))
        tensor = tensor.permute(axes[-1], axes[-2], *axes[:-2])
    return tensor.contiguous()


def built_without_memory(build: Callable[[], Networks], where: str) -> Networks:
    """Build networks on the ``meta`` device, where even a forged size costs nothing.

    Args:
        build: builds them.
        where: how to name their description in an error.

    Returns:
        The networks, without weights.

    Raises:
        CheckpointError: when a size is beyond what any tensor can have.
        FileError: when one row becomes more than the weights let expect.
    """
    import torch

    try:
        with torch.device("meta"):
            networks = build()
    except (RuntimeError, OverflowError, MemoryError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise CheckpointError(f"{where} describes impossible networks: {lines[0]}") from error
    _check_widths(networks, where)
    return networks


def _check_widths(networks: Networks, where: str) -> None:
    """Refuse chains that make more of one row than their weights let expect."""
    import torch

    from isoprobe_plugins.architectures.chain import Chain

    parts = torch.nn.ModuleList([networks.encoder, networks.decoder])
    meter = Meter(where, sum(_BYTES * tensor.numel() for tensor in parts.state_dict().values()))
    for part in parts.modules():
        if isinstance(part, Chain):
            meter.check(_BYTES * part.widest, f"one row in its {part.place}")


def _refuse_unused(names: set[str], where: str) -> None:
    """Raise when weights would be left out: then the model is another one than described."""
    if names:
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise CheckpointError(f"{where}: tensor {min(names)!r}{more} is used by no layer")


def _named_steps(config: LayersConfig) -> Iterator[tuple[str, Named]]:
    """Place -> step, of every step whose weights have a name."""
    for place, chain in (
        ("encoder.body", config.encoder),
        ("encoder.mean", config.head.mean),
        ("encoder.scale", config.head.scale),
        ("encoder.below", config.head.below),
        ("decoder.body", config.decoder),
        *((f"encoder.codes.{i}", chain) for i, chain in enumerate(_codes(config))),
        *((f"decoder.heads.{i}", chain) for i, chain in enumerate(_parameters(config))),
    ):
        yield from _inside(place, chain)


def _named_prior(config: LayersConfig) -> dict[str, str]:
    """Own place -> foreign place, of what makes a prior."""
    if config.prior is None:
        return {}
    return {f"decoder.prior.{part}": name for part, name in config.prior.weights.items()}


def _parameters(config: LayersConfig) -> Sequence[Sequence[Step]]:
    return () if config.likelihood is None else config.likelihood.parameters


def _codes(config: LayersConfig) -> Sequence[Sequence[Step]]:
    return () if config.condition is None else config.condition.codes


def _inside(place: str, chain: Sequence[Step]) -> Iterator[tuple[str, Named]]:

    for index, step in enumerate(chain):
        if isinstance(step, ResidualStep):
            yield from _inside(f"{place}.{index}.body", step.body)
            yield from _inside(f"{place}.{index}.shortcut", step.shortcut)
        if (
            isinstance(step, WeightedStep | ConditionStep | ConstantStep)
            and step.weights is not None
        ):
            yield f"{place}.{index}", step
            yield from _inside(f"{place}.{index}.out", getattr(step, "out", ()))
