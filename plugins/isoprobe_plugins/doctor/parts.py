"""Order the layers of a set of tensors as a network most likely uses them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Kind = Literal[
    "linear", "conv", "batch_norm", "norm", "prelu", "lstm", "gru", "rnn", "attention", "free"
]

_RECURRENT = re.compile(r"(weight|bias)_(ih|hh)(_l\d+(_reverse)?)?$")
_GATES: dict[int, Kind] = {4: "lstm", 3: "gru", 1: "rnn"}
#: how weight and bias are called where they are no ``.weight`` and ``.bias``
_PAIRS = (
    ("kernel", "bias"), ("weight", "bias"), ("weights", "biases"), ("W", "b"), ("w", "b"),
    ("_0", "_1"),
)  # fmt: skip


class Shaped(Protocol):
    """A tensor, as far as its shape: layers are told apart by no more."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""

    @property
    def ndim(self) -> int:
        """How many they are."""


@dataclass(frozen=True)
class Part:
    """A module with weights, or a tensor that belongs to none.

    Attributes:
        place: its name.
        kind: by the shapes of its tensors; ``conv`` may turn out to be a transposed one, ``norm``
            one over the last axis or over groups of channels.
        shape: of its weight, outputs first; of a recurrent one ``(hidden, inputs)``.
        told: fields of its step beyond its name.
        names: of its tensors.
    """

    place: str
    kind: Kind
    shape: tuple[int, ...]
    told: Mapping[str, Any] = field(default_factory=dict)
    names: tuple[str, ...] = ()

    @property
    def is_norm(self) -> bool:
        """Whether it normalises rather than maps."""
        return self.kind in {"batch_norm", "norm"}

    @property
    def is_recurrent(self) -> bool:
        """Whether it goes along a sequence."""
        return self.kind in {"lstm", "gru", "rnn"}

    @property
    def group(self) -> str:
        """The first word of its name."""
        return self.place.partition(".")[0]

    @property
    def takes(self) -> int:
        """Inputs of a layer that maps, as a convolution."""
        return self.shape[1] if len(self.shape) > 1 else self.shape[0]

    @property
    def gives(self) -> int:
        """Outputs of a layer that maps, as a convolution."""
        return self.shape[0]


def left_out_by(rest: Sequence[Part]) -> tuple[str, ...]:
    """Return beginnings of names by which a declaration leaves parts out.

    Args:
        rest: the parts.
    """
    return tuple(
        begin
        for part in rest
        for begin in (part.names if part.kind == "free" or part.told else (f"{part.place}.",))
    )


def parts_of(tensors: Mapping[str, Shaped]) -> list[Part]:
    """Group tensors into layers.

    Args:
        tensors: by name.

    Returns:
        The layers in the order of the file; in that of their numbers where the file has sorted its
        names. Tensors that belong to no layer stand among them as ``free``.
    """
    groups: dict[str, dict[str, Shaped]] = {}
    for name, tensor in tensors.items():
        place, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        if place.endswith(".out_proj") and f"{place[:-9]}.in_proj_weight" in tensors:
            place, leaf = place[:-9], f"out_proj.{leaf}"
        groups.setdefault(place, {})[leaf] = tensor
    parts: list[Part] = []
    for place, leaves in groups.items():
        part = _known(place, leaves)
        parts += [part] if part is not None else _paired(place, leaves)
    parts = _oriented(parts, tensors)
    if list(tensors) == sorted(tensors):
        parts.sort(key=lambda part: _natural(part.place))
    return parts


def _natural(name: str) -> list[tuple[int, int, str]]:
    return [
        (0, int(word), "") if word.isdecimal() else (1, 0, word)
        for word in re.findall(r"\d+|[^\d.]+", name)
    ]


def _known(place: str, leaves: Mapping[str, Shaped]) -> Part | None:
    """A layer whose tensors are called as torch calls them."""
    names = tuple(f"{place}.{leaf}" if place else leaf for leaf in leaves)
    if "running_mean" in leaves:
        return Part(place, "batch_norm", tuple(leaves["running_mean"].shape), names=names)
    if "in_proj_weight" in leaves:
        width = leaves["in_proj_weight"].shape[-1]
        return Part(place, "attention", (width, width), names=names)
    if leaves and all(_RECURRENT.search(leaf) for leaf in leaves):
        hidden = next((t for leaf, t in leaves.items() if "weight_hh" in leaf), None)
        inputs = next((t for leaf, t in leaves.items() if "weight_ih" in leaf), None)
        if hidden is not None and inputs is not None and hidden.ndim == inputs.ndim == 2:
            kind = _GATES.get(hidden.shape[0] // max(hidden.shape[1], 1))
            if kind is not None:
                return Part(place, kind, (hidden.shape[1], inputs.shape[1]), names=names)
    weight = leaves.get("weight")
    if weight is None or set(leaves) - {"weight", "bias"} or not place:
        return None
    if weight.ndim == 1 and "bias" not in leaves:
        return Part(place, "prelu", tuple(weight.shape), names=names)
    kinds: dict[int, Kind] = {1: "norm", 2: "linear", 3: "conv", 4: "conv", 5: "conv"}
    table = weight.ndim == 2 and "bias" not in leaves and "emb" in place.lower()
    kind = "free" if table else kinds.get(weight.ndim)
    return None if kind is None else Part(place, kind, tuple(weight.shape), names=names)


def _paired(place: str, leaves: Mapping[str, Shaped]) -> list[Part]:
    """Layers whose weight and bias are called otherwise; what is left is free."""
    rest = dict(leaves)
    found: list[Part] = []
    for name, weight in leaves.items():
        if name not in rest or weight.ndim < 2:
            continue
        for first, second in _PAIRS:
            bias = _partner(name, first, second, rest)
            stem = name.removesuffix(first).rstrip("._")
            if bias is None and name != first:
                continue
            where = ".".join(word for word in (place, stem) if word) or name
            full = [f"{place}.{n}" if place else n for n in (name, bias) if n is not None]
            told: dict[str, Any] = {"weight": full[0]}
            if bias is not None:
                told["bias_name"] = full[1]
                rest.pop(bias)
            rest.pop(name)
            kind: Kind = "linear" if weight.ndim == 2 else "conv"
            if first == "kernel":
                told["transposed"] = True
            found.append(Part(where, kind, tuple(weight.shape), told, tuple(full)))
            break
    scale = rest.get("scale")
    if scale is not None and scale.ndim == 1 and "bias" in rest:
        names = (f"{place}.scale", f"{place}.bias")
        told = {"weight": names[0]}
        found.append(Part(place, "norm", tuple(scale.shape), told, names))
        rest = {n: t for n, t in rest.items() if n not in {"scale", "bias"}}
    for name, tensor in rest.items():
        full_name = f"{place}.{name}" if place else name
        found.append(Part(full_name, "free", tuple(tensor.shape), names=(full_name,)))
    return found


def _partner(name: str, first: str, second: str, others: Mapping[str, Shaped]) -> str | None:
    """The vector that a weight's name leads to, when one word of it is replaced."""
    spots = [m.start() for m in re.finditer(re.escape(first), name)]
    for spot in reversed(spots):
        other = name[:spot] + second + name[spot + len(first) :]
        if other != name and other in others and others[other].ndim == 1:
            return other
    return None


def _oriented(parts: Sequence[Part], tensors: Mapping[str, Shaped]) -> list[Part]:
    """Put outputs first in shapes of weights that are kept inputs first."""

    def inputs_first(part: Part) -> bool | None:
        bias = part.told.get("bias_name")
        if part.told.get("transposed"):
            return True
        if bias is None or part.shape[0] == part.shape[-1]:
            return None
        return bool(tensors[bias].shape[0] == part.shape[-1])

    told = [inputs_first(p) for p in parts if "weight" in p.told and p.kind != "norm"]
    usual = told.count(True) > told.count(False)
    found = []
    for part in parts:
        turned = inputs_first(part) if "weight" in part.told and part.kind != "norm" else False
        if usual if turned is None else turned:
            shape = (part.shape[-1], part.shape[-2], *part.shape[:-2])
            told_more = {**part.told, "transposed": True}
            found.append(Part(part.place, part.kind, shape, told_more, part.names))
        else:
            found.append(part)
    return found
