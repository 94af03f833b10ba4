"""Push many tangents through a decoder at once, layer by layer.

A :class:`Stacked` tensor travels through an unmodified module and carries its tangents along. A
linear layer acts on all tangents in one call, folded into the batch; an elementwise function
multiplies them by one derivative; anything else is differentiated on its own by ``torch.func``. The
primal pass is shared, and a tangent that is the same for every sample stays one row until a layer
makes it differ, so the first linear layer costs no more than reading its columns.

``vmap(jvp(decoder))`` gives the same numbers, but convolves every tangent twice: a convolution's
forward derivative there includes the product with its weight's tangent, which is zero.

Tangents that a layer has just made are multiplied in place, where fresh memory would cost several
times the product. Whoever uses the layer's value once more, as a residual connection does, finds
them spent, and takes them without that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional
from torch.utils import _pytree as pytree

from isoprobe.derivatives.few_channels import convolve

Rule = Callable[..., Any]
#: weight of the last layer and what stands for it, while tangents are folded
_FOLDED: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("folded", default=None)
#: an upper triangular matrix of this size or more is taken in as many bands
_BANDED, _BANDS = 192, 4
#: no tangents may be written over
_KEEPING: ContextVar[bool] = ContextVar("keeping", default=False)


class UnsupportedError(Exception):
    """An operation whose tangents cannot be followed here; another route must be taken."""


@dataclass
class _Store:
    """Memory of tangents that a layer has just made, and all views of it.

    Attributes:
        shared: something else may still read it, so that nothing is written there.
        spent: it holds other tangents by now.
    """

    shared: bool = False
    spent: bool = False


class Stacked(Tensor):
    """A tensor ``(B, ...)`` with its tangents ``(C, B or 1, ...)`` in ``tangents``.

    Attributes:
        tangents: as above.
        value: the same numbers as a plain tensor, which costs a dispatch to make.
        weight: of the linear layer that it left last, if nothing but a new shape came after.
        folded: the tangents are those of :func:`push_folded`, ``(C, B or 1, h)``.
        store: memory of the tangents, where a layer has just made them.
    """

    tangents: Tensor
    value: Tensor
    weight: Tensor | None = None
    folded: bool = False
    store: _Store | None = None

    @classmethod
    def __torch_function__(
        cls,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Apply one operation to the value and to the tangents."""
        rule: Rule = _RULES.get(func, _other)
        with torch._C.DisableTorchFunctionSubclass():
            return rule(func, *args, **(kwargs or {}))


def push_stacked(
    decode: Callable[[Tensor], Tensor], z: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Decoder output and J v for several directions.

    Args:
        decode: the decoder.
        z: latents, ``(B, n)``.
        directions: ``(C, B, n)``, or ``(C, 1, n)`` where every sample has the same.

    Returns:
        Output ``(B, *shape)`` and tangents ``(C, B, *shape)``.

    Raises:
        UnsupportedError: when some operation cannot be followed, or a value is used twice after its
            tangents were written over.
    """
    output = decode(_stacked(z.clone(), directions))
    if not isinstance(output, Stacked):
        raise UnsupportedError("the decoder's output carries no tangents")
    return _plain(output), _tangents(output)


def push_keeping(
    decode: Callable[[Tensor], Tensor], z: Tensor, directions: Tensor
) -> tuple[Tensor, Tensor]:
    """Do as :func:`push_stacked` does, and write nothing over."""
    with _keeping():
        return push_stacked(decode, z, directions)


@contextmanager
def _keeping() -> Iterator[None]:
    token = _KEEPING.set(True)
    try:
        yield
    finally:
        _KEEPING.reset(token)


def last_linear(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor | None:
    """Find the linear layer that gives a decoder's output.

    Args:
        decode: the decoder.
        z: latents to try it on, ``(B, n)``.

    Returns:
        Its weight, ``(m, h)``; None without such a layer.
    """
    with _keeping():
        output = decode(_stacked(z.clone(), torch.ones_like(z)[None]))
    return output.weight if isinstance(output, Stacked) else None


def push_folded(
    decode: Callable[[Tensor], Tensor],
    z: Tensor,
    directions: Tensor,
    weight: Tensor,
    root: Tensor,
    *,
    keeping: bool = False,
) -> tuple[Tensor, Tensor]:
    """Decoder output, and tangents that have the products of J v and are shorter.

    Args:
        decode: the decoder, whose last layer is linear.
        z: latents, ``(B, n)``.
        directions: ``(C, B or 1, n)``.
        weight: of that layer, ``(m, h)``.
        root: with root' root = weight' weight, upper triangular, ``(h, h)``.
        keeping: write nothing over, as :func:`push_keeping`.

    Returns:
        Output ``(B, *shape)`` and tangents ``(C, B, h)``.

    Raises:
        UnsupportedError: when the output does not come from that layer.
    """
    token = _FOLDED.set((weight, root))
    try:
        with _keeping() if keeping else nullcontext():
            output = decode(_stacked(z.clone(), directions))
    finally:
        _FOLDED.reset(token)
    if not (isinstance(output, Stacked) and output.folded):
        raise UnsupportedError("the output does not leave the layer that was folded")
    short = output.tangents
    return _plain(output), short.expand(len(short), len(z), short.shape[2])


def _stacked(value: Tensor, tangents: Tensor) -> Stacked:
    wrapped: Stacked = value.as_subclass(Stacked)
    wrapped.tangents, wrapped.value = tangents, value
    return wrapped


def _fresh(value: Tensor, tangents: Tensor) -> Stacked:
    """A value with tangents that nothing else can read yet."""
    wrapped = _stacked(value, tangents)
    if not _KEEPING.get():
        wrapped.store = _Store()
    return wrapped


def _plain(value: Any) -> Any:
    if not isinstance(value, Stacked):
        return value
    held: Tensor | None = getattr(value, "value", None)  # None where an operation lost it
    return value.as_subclass(Tensor) if held is None else held


def _tangents(x: Stacked) -> Tensor:
    """Tangents of every sample.

    Returns:
        ``(C, *x.shape)``.

    Raises:
        UnsupportedError: when an operation passed the tensor on without them.
    """
    tangents: Tensor | None = getattr(x, "tangents", None)
    if tangents is None or x.folded:
        raise UnsupportedError("an operation lost the tangents, or came after the last layer")
    _unspent(x)
    shape = _plain(x).shape
    return tangents if tangents.shape[1:] == shape else tangents.expand(len(tangents), *shape)


def _unspent(x: Stacked) -> None:
    if x.store is not None and x.store.spent:
        raise UnsupportedError("a value is used again whose tangents were written over")


def _only_first(x: Any, *others: Any) -> bool:
    """True when the first argument alone has tangents, one row of them for each sample."""
    if isinstance(x, Stacked):
        _unspent(x)
    return (
        isinstance(x, Stacked)
        and not x.folded
        and x.tangents.ndim == _plain(x).ndim + 1
        and not any(map(_carries, others))
    )


def _carries(value: Any) -> bool:
    """Whether tangents are anywhere in an argument."""
    if isinstance(value, tuple | list):
        return any(map(_carries, value))
    if isinstance(value, dict):
        return any(map(_carries, value.values()))
    return isinstance(value, Stacked)


def triangular(tangents: Tensor, root: Tensor) -> Tensor:
    """R t for tangents ``(C, B, h)`` and an upper triangular R, without most of its zeros."""
    size = len(root)
    step = -(-size // _BANDS)
    if size < _BANDED:
        return functional.linear(tangents, root)
    flat = tangents.reshape(-1, size)
    product = flat.new_empty(flat.shape)
    for start in range(0, size, step):
        band = slice(start, start + step)
        torch.mm(flat[:, start:], root[band, start:].T, out=product[:, band])
    return product.view(tangents.shape)


# --------------------------------------------------------------------------- rules


def _linear(func: Rule, x: Any, weight: Tensor, bias: Tensor | None = None) -> Any:
    if not _only_first(x, weight, bias) or _plain(x).ndim < 2:
        return _other(func, x, weight, bias)
    value = functional.linear(_plain(x), weight, bias)
    folded = _FOLDED.get()
    if folded is not None and weight is folded[0] and x.tangents.ndim == 3:
        result = _stacked(value, triangular(x.tangents, folded[1]))
        result.folded = True
        return result
    result = _fresh(value, functional.linear(x.tangents, weight))
    if x.tangents.ndim == 3:
        result.weight = weight
    return result


def _convolution(
    func: Rule, x: Any, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any
) -> Any:
    if not _only_first(x, weight, bias) or _plain(x).ndim != weight.ndim:
        return _other(func, x, weight, bias, *args, **kwargs)
    value, rows = (_channels_last(t) for t in (_plain(x), x.tangents.flatten(0, 1)))
    way = partial(func, **kwargs) if kwargs else func
    moved = convolve(way, rows, weight, None, *args)
    tangents = moved.view(*x.tangents.shape[:2], *moved.shape[1:])
    return _fresh(convolve(way, value, weight, bias, *args), tangents)


def _channels_last(images: Tensor) -> Tensor:
    """Images ``(B, C, H, W)`` as convolutions take them fastest; anything else as it is."""
    if images.ndim != 4:
        return images
    return images.contiguous(memory_format=torch.channels_last)


def _elementwise(func: Rule, x: Any, *args: Any, **kwargs: Any) -> Any:
    """One derivative for each element multiplies all tangents."""
    if not _only_first(x, args, kwargs):
        return _other(func, x, *args, **kwargs)
    in_place = kwargs.pop("inplace", False)
    value, slope = _value_and_slope(func, _plain(x), args, kwargs)
    store = x.store
    if store is not None and not store.shared and x.tangents.shape[1:] == slope.shape:
        result = _fresh(value, x.tangents.mul_(slope))
        store.spent = True
    else:
        result = _fresh(value, x.tangents * slope)
    if in_place:
        _plain(x).copy_(_plain(result))
        x.tangents, x.store = result.tangents, result.store
    return result


def _value_and_slope(
    func: Rule, x: Tensor, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, Tensor]:
    """f(x) and f'(x) of a function of each element."""
    if func in _RECTIFIERS:
        value = torch.relu(x)
        return value, (value > 0).to(x)
    if func in _SLOPES:  # as autograd has it, without a graph of one node
        return func(x, *args, **kwargs), _SLOPES[func](x, *args, **kwargs)
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        value = func(leaf, *args, **kwargs)
        # of the sum: torch looks at a cotangent of ours with sympy, a second to import
        (slope,) = torch.autograd.grad(value.sum(), leaf)
    return value.detach(), slope


def _batch_norm(func: Rule, x: Any, *args: Any, **kwargs: Any) -> Any:
    """Elementwise once its statistics are fixed.

    Returns:
        The value with its tangents.

    Raises:
        UnsupportedError: in training mode, where samples of a batch depend on each other.
    """
    if kwargs.get("training", len(args) > 4 and args[4]):
        raise UnsupportedError("batch norm in training mode")
    return _elementwise(func, x, *args, **kwargs)


def _reshaping(func: Rule, x: Any, *args: Any, **kwargs: Any) -> Any:
    if isinstance(x, Stacked) and x.folded:  # products of tangents have no shape
        result = _stacked(func(_plain(x), *args, **kwargs), x.tangents)
        result.folded = True
        return result
    if not _only_first(x, args, kwargs):
        return _other(func, x, *args, **kwargs)
    tangents = _tangents(x)
    moved = vmap(lambda t: func(t, *args, **kwargs))(tangents)
    result = _stacked(func(_plain(x), *args, **kwargs), moved)
    result.weight, result.store = x.weight, x.store
    if x.store is not None and tangents.shape != x.tangents.shape:
        # every sample's are the same memory now: nobody may write over it
        result.store, x.store.shared = None, True
    return result


def _other(func: Rule, *args: Any, **kwargs: Any) -> Any:
    """Any operation, by its own forward derivative.

    Returns:
        What it returns, floating tensors with their tangents, anything else as it is.

    Raises:
        UnsupportedError: for an operation that writes into its argument.
    """
    name = getattr(func, "__name__", "")
    if name in _WRITES or (name.endswith("_") and not name.endswith("__")) or kwargs.get("inplace"):
        raise UnsupportedError(f"{name} writes in place")
    leaves, tree = pytree.tree_flatten((args, kwargs))
    places = [i for i, leaf in enumerate(leaves) if isinstance(leaf, Stacked)]
    values = tuple(_plain(leaves[i]) for i in places)

    def call(*inputs: Tensor) -> Any:
        filled = list(leaves)
        for place, value in zip(places, inputs, strict=True):
            filled[place] = value
        positional, named = pytree.tree_unflatten(filled, tree)
        return func(*positional, **named)

    value = call(*values)
    if not any(_differentiable(leaf) for leaf in pytree.tree_leaves(value)):
        return value
    directions = tuple(_tangents(leaves[i]) for i in places)
    for place in places:
        if leaves[place].store is not None:
            leaves[place].store.shared = True  # what comes out may be a view of it
    return _wrap(value, _push_each(call, values, directions))


def _push_each(
    call: Callable[..., Any], values: tuple[Tensor, ...], directions: tuple[Tensor, ...]
) -> Any:
    def push(*one: Tensor) -> Any:
        return jvp(call, values, one)[1]

    try:
        return vmap(push)(*directions)
    except RuntimeError:
        # Recurrent cells have a forward derivative that cannot be vmapped.
        each = [push(*one) for one in zip(*directions, strict=True)]
        return pytree.tree_map(lambda *parts: torch.stack(parts), *each)


def _wrap(value: Any, tangents: Any) -> Any:
    def pair(one: Any, moved: Any) -> Any:
        return _stacked(one, moved) if _differentiable(one) else one

    return pytree.tree_map(pair, value, tangents)


def _differentiable(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()


_WRITES = frozenset({"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ipow__"})


def _softplus_slope(x: Tensor, beta: float = 1, threshold: float = 20) -> Tensor:
    one = x.new_ones(()).expand_as(x)
    return torch.ops.aten.softplus_backward(one, x, beta, threshold)  # type: ignore[no-any-return]


def _elu_slope(x: Tensor, alpha: float = 1.0) -> Tensor:
    one = x.new_ones(()).expand_as(x)
    return torch.ops.aten.elu_backward(one, alpha, 1, 1, False, x)  # type: ignore[no-any-return]


_SLOPES: dict[Any, Callable[..., Tensor]] = {
    functional.softplus: _softplus_slope,
    functional.elu: _elu_slope,
}
_RECTIFIERS = frozenset({functional.relu, torch.relu, Tensor.relu})
_CONVOLUTIONS = (
    functional.conv1d,
    functional.conv2d,
    functional.conv3d,
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_ELEMENTWISE = (
    *(
        functional.relu,
        functional.relu6,
        functional.leaky_relu,
        functional.elu,
        functional.selu,
        functional.celu,
        functional.silu,
        functional.gelu,
        functional.mish,
    ),
    *(
        functional.softplus,
        functional.logsigmoid,
        functional.hardtanh,
        functional.hardswish,
        functional.hardsigmoid,
        functional.softsign,
    ),
    *(functional.tanh, functional.sigmoid, functional.tanhshrink),
    *(torch.relu, torch.tanh, torch.sigmoid, torch.exp, torch.sin, torch.cos, torch.erf),
    *(Tensor.relu, Tensor.tanh, Tensor.sigmoid, Tensor.exp, Tensor.sin, Tensor.cos),
)
_RESHAPING = (
    *(Tensor.view, Tensor.reshape, Tensor.flatten, Tensor.unflatten, Tensor.unsqueeze),
    *(Tensor.permute, Tensor.transpose, Tensor.contiguous),
    *(torch.reshape, torch.flatten, torch.unflatten, torch.unsqueeze),
    *(torch.permute, torch.transpose, functional.pixel_shuffle),
)
_RULES: dict[Any, Rule] = {
    functional.linear: _linear,
    functional.batch_norm: _batch_norm,
    **dict.fromkeys(_CONVOLUTIONS, _convolution),
    **dict.fromkeys(_ELEMENTWISE, _elementwise),
    **dict.fromkeys(_RESHAPING, _reshaping),
}
