"""Blame plugins by name for what goes wrong inside them.

Each object that a plugin of another distribution gives is called through one wrapper: whatever is
raised in it becomes a line that names the plugin, its distribution and the method, and what a
metric returns is looked at before anybody computes with it. Our own plugins are not wrapped: what
goes wrong in them is a defect of ours, and is said so.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Hashable
from functools import lru_cache
from typing import Any, TypeVar, cast

from isoprobe.errors import IsoprobeError, PluginError

T = TypeVar("T")
OURS = "isoprobe"
_CONTRACTS = "isoprobe.contracts"


def guard(plugin: T, what: str, distribution: str) -> T:
    """Return a plugin's object, its methods wrapped where it is not our own.

    Args:
        plugin: the object; its class is replaced by one derived from it.
        what: the plugin in words, such as ``metric 'bce'``.
        distribution: that brought it.
    """
    if distribution == OURS:
        return plugin
    try:
        plugin.__class__ = _guarded(cast("Hashable", type(plugin)), f"{what} of {distribution}")
    except TypeError:  # a class of a fixed layout cannot be replaced, and is called as it is
        return plugin
    return plugin


def blamed(error: BaseException, what: str, method: str) -> PluginError:
    """Return the line for what was raised inside a plugin."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    return PluginError(f"{what}: {method}: {kind}{': ' if text else ''}{text}")


@lru_cache(maxsize=256)
def _guarded(base: Hashable, what: str) -> type[Any]:
    parent: Any = base
    methods = {
        name: _wrapped(value, what, name)
        for kind in reversed(parent.__mro__)
        if kind is not object and kind.__module__ != _CONTRACTS
        for name, value in vars(kind).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }
    own = {"__module__": parent.__module__, "__qualname__": parent.__qualname__}
    body: dict[str, Any] = {**methods, **own, "__reduce_ex__": _reducer(parent, what)}
    made: type[Any] = type(parent.__name__, (parent,), body)
    return made


def _reducer(base: type[Any], what: str) -> Callable[[Any, int], Any]:
    """Return how an object is pickled: as one of the plugin's own class, guarded once more."""

    def reduce(self: Any, _: int) -> Any:
        return _again, (base, what, dict(vars(self)))

    return reduce


def _again(base: type[Any], what: str, state: dict[str, Any]) -> Any:
    plugin: Any = object.__new__(base)
    vars(plugin).update(state)
    plugin.__class__ = _guarded(cast("Hashable", base), what)
    return plugin


def _wrapped(function: Callable[..., Any], what: str, name: str) -> Callable[..., Any]:
    @functools.wraps(function)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        try:
            result = function(self, *args, **kwargs)
        except (IsoprobeError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            if _is_transformed():  # other ways to derive are tried after some of these
                raise
            raise blamed(error, what, name) from error
        if name == "distortion" and not _is_transformed():
            _check_distortion(result, args, what)
        return result

    return call


def _is_transformed() -> bool:
    """Return True inside a transform of torch.func, where values are not at hand."""
    torch = sys.modules.get("torch")
    return torch is not None and torch._C._functorch.peek_interpreter_stack() is not None


def _check_distortion(result: Any, args: tuple[Any, ...], what: str) -> None:
    """Refuse what is no distortion: one finite number a row.

    Raises:
        PluginError: saying what was returned.
    """
    import torch

    where = f"{what}: distortion returned"
    if not isinstance(result, torch.Tensor):
        raise PluginError(f"{where} a {type(result).__name__}; expected a tensor")
    rows = args[0].shape[:1] if args and isinstance(args[0], torch.Tensor) else result.shape[:1]
    if result.shape != rows:
        raise PluginError(
            f"{where} shape {tuple(result.shape)}; expected one number a row, {tuple(rows)}"
        )
    if not result.is_floating_point():
        raise PluginError(f"{where} {result.dtype}; expected floating numbers")
    given = [a for a in args if isinstance(a, torch.Tensor)]
    if result.isnan().any() and all(bool(a.isfinite().all()) for a in given):
        raise PluginError(f"{where} NaN for finite inputs")
