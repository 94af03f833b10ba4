"""Write out layers that are named briefly, their sizes read off the weights.

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
_RECURRENT = ("lstm", "gru", "rnn")
_WEIGHTED = (
    "linear", "conv", "conv_transpose", "batch_norm", "layer_norm", "group_norm", "prelu",
    *_RECURRENT, "attention",
)  # fmt: skip
#: brief key -> (op, the field that the brief value fills)
_VALUED = {
    "reshape": ("reshape", "shape"),
    "append": ("append", "values"),
    "upsample": ("upsample", "factor"),
    "permute": ("permute", "order"),
    "pad": ("pad", "widths"),
    "pool": ("pool", "kind"),
    "log_share": ("log_share", "column"),
    "global_pool": ("global_pool", "kind"),
    "resize": ("resize", "size"),
    "softmax": ("softmax", "axis"),
    "repeat": ("repeat", "steps"),
}
#: brief key -> (op, the fields that a pair of brief values fills)
_COMPOSED = ("residual", "standardise", "condition", "clamp", "constant")
_PAIRED = {"take": ("take", ("start", "stop"))}
_FUNCTIONS = frozenset({"exp", "abs", "square", "sqrt"})
#: steps with nothing to say
_BARE = ("flatten", "softmax", "log1p", "log_share")
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
    if not isinstance(step, Mapping):
        raise CheckpointError(f"{where}: a step is a word or a table, found {step!r:.40}")
    if "op" in step:
        return dict(step)
    rest = dict(step)
    key = next((k for k in (*_COMPOSED, *_PAIRED, *_WEIGHTED, *_VALUED, *_SLOPED) if k in rest), "")
    if key in _COMPOSED:
        return _composed(key, rest, tensors, where)
    if key in _PAIRED:
        return _pair(key, rest, where)
    if key in _WEIGHTED:
        return _weighted(key, str(rest.pop(key)), rest, tensors, where)
    op, field = ("activation", "slope") if key in _SLOPED else _VALUED.get(key, ("", ""))
    if op:
        named = {"name": key} if key in _SLOPED else {}
        return {"op": op, **named, field: rest.pop(key), **rest}
    known = [*_WEIGHTED, *_COMPOSED, *_VALUED, *_PAIRED, *_SLOPED]
    first = next(iter(step), "")
    raise CheckpointError(
        f"{where}: no layer is called {first!r}{nearest(first, known)}; known: {', '.join(known)}"
    )


def _composed(
    key: str, rest: dict[str, Any], tensors: Mapping[str, Tensor], where: str
) -> dict[str, Any]:
    """Write out a step that holds chains, or values by name."""
    value = rest.pop(key)
    if key in _SPECIAL:
        return _SPECIAL[key](value, rest, tensors, where)
    if key == "standardise":
        if not isinstance(value, Mapping) or set(value) != {"mean", "scale"}:
            raise CheckpointError(f"{where}: standardise = {{ mean = [..], scale = [..] }}")
        return {"op": key, **value, **rest}
    shortcut = _steps(rest.pop("shortcut", []), where)
    return {
        "op": "residual",
        "body": expand(_steps(value, where), tensors, f"{where}.residual"),
        "shortcut": expand(shortcut, tensors, f"{where}.shortcut"),
        **rest,
    }


def _pair(key: str, rest: dict[str, Any], where: str) -> dict[str, Any]:
    """Write out a step of two values."""
    op, names = _PAIRED[key]
    pair = rest.pop(key)
    if not isinstance(pair, list) or len(pair) != len(names):
        raise CheckpointError(f"{where}: {key} = [{names[0].upper()}, {names[1].upper()}]")
    return {"op": op, **dict(zip(names, pair, strict=True)), **rest}


def _steps(value: Any, where: str) -> list[Brief]:
    if isinstance(value, str):  # a key of its own for one layer
        return [value]
    if not isinstance(value, list):
        raise CheckpointError(f"{where}: a chain is a list of layers, found {value!r}")
    return value


def _word(word: str, where: str) -> dict[str, Any]:
    if word in _ACTIVATIONS:
        return {"op": "activation", "name": word}
    if word in _BARE:
        return {"op": word}
    if word in _FUNCTIONS:
        return {"op": "function", "name": word}
    known = [*sorted(_ACTIVATIONS), *sorted(_FUNCTIONS), *_BARE]
    raise CheckpointError(
        f"{where}: no layer is called {word!r}{nearest(word, known)}; known: {', '.join(known)}"
    )


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
    if kind in _RECURRENT:
        return {**step, **_recurrent(kind, name, tensors, where), **_expanded(rest, tensors, where)}
    if kind == "attention":
        return {**step, "bias": f"{name}.in_proj_bias" in tensors, **rest}
    foreign = str(rest.get("weight", f"{name}.weight"))
    weight = tensors.get(foreign)
    if weight is None:
        raise CheckpointError(f"{where}: the file has no {_missing(foreign, name, tensors)}")
    if kind in {"layer_norm", "group_norm", "prelu"}:
        return {**step, **({"count": weight.numel()} if kind == "prelu" else {}), **rest}
    member = rest.get("member")
    shape = list(weight.shape)
    if isinstance(member, int) and not isinstance(member, bool):
        if not 0 <= member < (shape or [0])[0]:
            raise CheckpointError(f"{where}: {foreign} of shape {tuple(shape)} has no {member}")
        shape = shape[1:]
    if len(shape) < (2 if kind == "linear" else 3):
        raise CheckpointError(f"{where}: {foreign} of shape {tuple(shape)} is no {kind}")
    step["bias"] = str(rest.get("bias_name", f"{name}.bias")) in tensors
    if rest.get("transposed"):  # (in, out), (*kernel, in, out)
        shape = [shape[-1], shape[-2], *shape[:-2]]
    groups = rest.get("groups", 1)
    channels = shape[0] if kind == "conv" else shape[1] * (groups if type(groups) is int else 1)
    sizes = {"channels": channels, "kernel": shape[2:]}
    return {**step, **({"width": shape[0]} if kind == "linear" else sizes), **rest}


def _missing(foreign: str, name: str, tensors: Mapping[str, Tensor]) -> str:
    """Say which tensors there are, and how to name them, where one is not there."""
    known = [n.removesuffix(".weight") for n in tensors if n.endswith(".weight")]
    if known:
        listed = f"{', '.join(known[:8])}{' ...' if len(known) > 8 else ''}"
        return f"weights {name!r}{nearest(name, known)}; it has {listed}"
    names = list(tensors)
    listed = f"{', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
    return (
        f"tensor {foreign!r}; it has {listed or 'none'}: name weight and bias, as in "
        f"{{ linear = {name!r}, weight = {names[0] if names else 'NAME'!r}, bias_name = ... }}"
    )


def _recurrent(kind: str, name: str, tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Read the sizes of a recurrent network off its tensors."""
    inside = {n.removeprefix(f"{name}."): t for n, t in tensors.items() if n.startswith(f"{name}.")}
    state = next((t for n, t in inside.items() if n.startswith("weight_hh")), None)
    if state is None or state.ndim != 2:
        known = sorted({n.rpartition(".")[0] for n in tensors if ".weight_hh" in n})
        raise CheckpointError(
            f"{where}: {name!r} has no weight_hh_l0, so it is no {kind}"
            f"{nearest(name, known)}; recurrent are {', '.join(known) or 'none'}"
        )
    numbers = [n for n in inside if n.startswith("weight_hh") and not n.endswith("_reverse")]
    return {
        "hidden": state.shape[1],
        "layers": len(numbers),
        "bidirectional": any(n.endswith("_reverse") for n in inside),
        "bias": any(n.startswith("bias") for n in inside),
    }


def _expanded(rest: dict[str, Any], tensors: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    """Write out the chain that feeds a recurrent network its own output."""
    if "out" not in rest:
        return rest
    return {**rest, "out": expand(_steps(rest["out"], where), tensors, f"{where}.out")}
