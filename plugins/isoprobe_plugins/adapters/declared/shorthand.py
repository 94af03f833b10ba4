"""Layers written briefly, their sizes read off the weights.

``"relu"`` is an activation, ``{linear = "fc1"}`` a dense layer whose weights are ``fc1.weight``
and ``fc1.bias``, ``{conv = "e1", stride = 2, padding = 1}`` a convolution. Whatever can be seen
from the weights' shapes need not be said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args

from isoprobe.errors import CheckpointError, nearest
from isoprobe_plugins.architectures.activations import Activation

if TYPE_CHECKING:
    from torch import Tensor

Brief = str | Mapping[str, Any]

_ACTIVATIONS = frozenset(get_args(Activation))
_WEIGHTED = ("linear", "conv", "conv_transpose", "batch_norm", "layer_norm")
#: brief key -> (op, the field that the brief value fills)
_VALUED = {
    "reshape": ("reshape", "shape"),
    "append": ("append", "values"),
    "upsample": ("upsample", "factor"),
    "permute": ("permute", "order"),
    "pad": ("pad", "widths"),
    "pool": ("pool", "kind"),
    "log_share": ("log_share", "column"),
}
#: steps with nothing to say
_BARE = ("flatten", "log1p", "log_share")
_SLOPED = ("leaky_relu", "elu")


def expand(chain: Sequence[Brief], tensors: Mapping[str, Tensor], where: str) -> list[Any]:
    """Write a chain out in full.

    Args:
        chain: brief steps.
        tensors: of the file, by name.
        where: how to name the chain in an error.

    Returns:
        Steps as :class:`isoprobe_plugins.architectures.layers.LayersConfig` has them.

    Raises:
        CheckpointError: for a step of no known form, or weights that are not there.
    """
    return [expand_step(step, tensors, f"{where}[{i}]") for i, step in enumerate(chain)]


def expand_step(step: Brief, tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Write one step out in full; arguments and errors as for :func:`expand`."""
    if isinstance(step, str):
        return _word(step, where)
    if "op" in step:
        return dict(step)
    rest = dict(step)
    if rest.keys() & _SPECIAL.keys():
        key = next(iter(rest.keys() & _SPECIAL.keys()))
        return _SPECIAL[key](rest.pop(key), rest, tensors, where)
    for key in _WEIGHTED:
        if key in rest:
            return _weighted(key, str(rest.pop(key)), rest, tensors, where)
    for key, (op, field) in _VALUED.items():
        if key in rest:
            return {"op": op, field: rest.pop(key), **rest}
    for key in _SLOPED:
        if key in rest:
            return {"op": "activation", "name": key, "slope": rest.pop(key), **rest}
    known = [*_WEIGHTED, *_VALUED, *_SLOPED, *_SPECIAL]
    first = next(iter(step), "")
    raise CheckpointError(f"{where}: no layer is called {first!r}{nearest(first, known)}")


def _word(word: str, where: str) -> dict[str, Any]:
    if word in _ACTIVATIONS:
        return {"op": "activation", "name": word}
    if word in _BARE:
        return {"op": word}
    known = [*_ACTIVATIONS, *_BARE]
    raise CheckpointError(f"{where}: no layer is called {word!r}{nearest(word, known)}")


def _clamped(
    bounds: Any, rest: dict[str, Any], tensors: Mapping[str, Tensor], where: str
) -> dict[str, Any]:
    """Bounds; a foreign file has nothing to say of them."""
    if not isinstance(bounds, list) or len(bounds) != 2:
        raise CheckpointError(f"{where}: clamp takes two bounds, as clamp = [-3, 3]; not {bounds}")
    return {"op": "clamp", "low": bounds[0], "high": bounds[1], **rest}


def _constant(
    name: Any, rest: dict[str, Any], tensors: Mapping[str, Tensor], where: str
) -> dict[str, Any]:
    """A tensor of the file, as it is."""
    if name not in tensors:
        raise CheckpointError(f"{where}: the file has no tensor {name!r} of constants")
    return {"op": "constant", "weights": name, "shape": list(tensors[name].shape), **rest}


def _told(
    form: Any, rest: dict[str, Any], tensors: Mapping[str, Tensor], where: str
) -> dict[str, Any]:
    """A condition, the sizes of its table read off the weights."""
    step = {"op": "condition", "form": form, **rest}
    if form != "embedding":
        return step
    name = rest.get("weights")
    table = tensors.get(f"{name}.weight")
    if table is None or table.ndim != 2:
        raise CheckpointError(
            f'{where}: an embedded condition names its table, as weights = "label_embedding"; '
            f"{name!r} is no table of the file"
        )
    return {"classes": table.shape[0], "width": table.shape[1], **step}


_SPECIAL = {"condition": _told, "clamp": _clamped, "constant": _constant}


def _weighted(
    kind: str, name: str, rest: dict[str, Any], tensors: Mapping[str, Tensor], where: str
) -> dict[str, Any]:
    step: dict[str, Any] = {"op": kind, "weights": name}
    if kind == "batch_norm":
        return {**step, "affine": f"{name}.weight" in tensors, **rest}
    weight = tensors.get(f"{name}.weight")
    if weight is None:
        known = [n.removesuffix(".weight") for n in tensors if n.endswith(".weight")]
        raise CheckpointError(
            f"{where}: the file has no weights {name!r}{nearest(name, known)}; "
            f"it has {', '.join(known[:8])}{' ...' if len(known) > 8 else ''}"
        )
    if kind == "layer_norm":
        return {**step, **rest}
    if weight.ndim < (2 if kind == "linear" else 3):
        raise CheckpointError(f"{where}: {name}.weight of shape {tuple(weight.shape)} is no {kind}")
    step["bias"] = f"{name}.bias" in tensors
    if kind == "linear":
        return {**step, "width": weight.shape[0], **rest}
    channels = weight.shape[0 if kind == "conv" else 1]
    return {**step, "channels": channels, "kernel": list(weight.shape[2:]), **rest}
