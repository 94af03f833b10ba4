"""The layers of a state dict in order, and where among them the posterior's head sits."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from isoprobe.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["linear", "conv", "batch_norm", "layer_norm"]

_MEAN = re.compile(r"(^|[._])(fc_|to_)?(z_)?(mu|mean|loc|means)([._]|$)", re.IGNORECASE)
_SCALE = re.compile(
    r"(log_?var|log_?sigma|log_?std|sigma|std|scale|var(iance)?)(_?layer)?([._]|$)", re.IGNORECASE
)


@dataclass(frozen=True)
class Part:
    """A module with weights.

    Attributes:
        place: its name.
        kind: by the shapes of its tensors; ``conv`` may turn out to be a transposed one.
        shape: of its weight, empty where there is none.
    """

    place: str
    kind: Kind
    shape: tuple[int, ...]

    @property
    def is_norm(self) -> bool:
        """Whether it normalises rather than maps."""
        return self.kind in {"batch_norm", "layer_norm"}


@dataclass(frozen=True)
class Split:
    """A way to cut the layers into encoder, head and decoder.

    Attributes:
        encoder: layers below the head.
        heads: two layers of n outputs, or one of 2n.
        decoder: layers above.
        latent_size: n.
    """

    encoder: tuple[Part, ...]
    heads: tuple[Part, ...]
    decoder: tuple[Part, ...]
    latent_size: int


def parts_of(tensors: Mapping[str, Tensor]) -> list[Part]:
    """Group tensors into layers, in the order of the file.

    Args:
        tensors: by name.

    Returns:
        The layers that have weights.

    Raises:
        CheckpointError: when a tensor belongs to no known kind of layer.
    """
    groups: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        place, _, leaf = name.rpartition(".")
        groups.setdefault(place, {})[leaf] = tensor
    return [_part(place, leaves) for place, leaves in groups.items()]


def _part(place: str, leaves: Mapping[str, Tensor]) -> Part:
    weight = leaves.get("weight")
    if "running_mean" in leaves:
        return Part(place, "batch_norm", tuple(leaves["running_mean"].shape))
    if weight is None or set(leaves) - {"weight", "bias"}:
        raise CheckpointError(
            f"layer {place!r} with {', '.join(leaves)} is of no kind the doctor knows; "
            "it reads dense, convolution and normalisation layers"
        )
    kinds: dict[int, Kind] = {1: "layer_norm", 2: "linear", 3: "conv", 4: "conv", 5: "conv"}
    if weight.ndim not in kinds:
        raise CheckpointError(f"{place}.weight has {weight.ndim} axes; no layer has such weights")
    return Part(place, kinds[weight.ndim], tuple(weight.shape))


def splits(parts: Sequence[Part]) -> list[Split]:
    """Find where the head could sit.

    Args:
        parts: layers in order.

    Returns:
        Possible cuts, the most likely first: two layers named for mean and scale, then two of
        equal shape on one input, then one whose outputs are twice what the next takes.
    """
    found: list[tuple[int, Split]] = []
    for index in range(1, len(parts) - 1):
        pair = _pair(parts, index)
        if pair is not None:
            found.append(pair)
        single = _single(parts, index)
        if single is not None:
            found.append(single)
    return [split for _, split in sorted(found, key=lambda item: -item[0])]


def _pair(parts: Sequence[Part], index: int) -> tuple[int, Split] | None:
    """Two layers of one shape, (n, h), followed by one that takes n."""
    if index + 2 >= len(parts):
        return None
    first, second, after = parts[index : index + 3]
    alike = first.kind == second.kind == "linear" and first.shape == second.shape
    n = first.shape[0]
    if not alike or after.kind != "linear" or after.shape[1] != n:
        return None
    named = bool(_MEAN.search(first.place)) + bool(_SCALE.search(second.place))
    # of square layers nothing but the name tells heads from a chain
    likelihood = 4 * named + 2 * (first.shape[0] != first.shape[1])
    split = Split(tuple(parts[:index]), (first, second), tuple(parts[index + 2 :]), n)
    return (likelihood, split) if likelihood else None


def _single(parts: Sequence[Part], index: int) -> tuple[int, Split] | None:
    """One layer of 2n outputs followed by one that takes n."""
    head, after = parts[index : index + 2]
    if head.kind != "linear" or after.kind != "linear" or head.shape[0] != 2 * after.shape[1]:
        return None
    n = after.shape[1]
    return 1, Split(tuple(parts[:index]), (head,), tuple(parts[index + 1 :]), n)
