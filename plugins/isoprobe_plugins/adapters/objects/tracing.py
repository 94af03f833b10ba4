"""Watch which submodules a forward pass calls, with what, and call it again with another latent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from isoprobe_plugins.adapters.objects.noise import Noise

#: layers that stay in eval mode when a model is asked how it draws while it is trained
_SETTLED = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True)
class Call:
    """One call of a submodule, or of a method that was watched.

    Attributes:
        name: of the submodule or method.
        module: the submodule; None for a method.
        taken: its first argument.
        given: what it returned, where that is one tensor.
    """

    name: str
    module: nn.Module | None
    taken: Tensor
    given: Tensor | None


@contextlib.contextmanager
def watched(model: Any, calls: list[Call]) -> Iterator[None]:
    """Note every call of a submodule, and of the model's own ``decode``, on one tensor."""
    hooks = []
    modules = model.named_modules() if isinstance(model, nn.Module) else ()

    def note(name: str, module: nn.Module, taken: Any, given: Any) -> None:
        if taken and isinstance(taken[0], Tensor):
            out = given.detach() if isinstance(given, Tensor) else None
            calls.append(Call(name, module, taken[0].detach(), out))

    for name, module in modules:
        if name:
            hooks.append(
                module.register_forward_hook(
                    lambda m, taken, given, n=name: note(n, m, taken, given)
                )
            )
    with contextlib.ExitStack() as stack:
        for hook in hooks:
            stack.callback(hook.remove)
        method = getattr(model, "decode", None)
        if callable(method) and not isinstance(method, nn.Module):
            stack.enter_context(_shadowed(model, "decode", method, calls))
        yield


@contextlib.contextmanager
def _shadowed(
    model: Any, name: str, method: Callable[..., Any], calls: list[Call]
) -> Iterator[None]:
    """Let a method note what it is given, for a while."""

    def noted(z: Any, *more: Any, **named: Any) -> Any:
        if isinstance(z, Tensor):
            calls.append(Call(name, None, z.detach(), None))
        return method(z, *more, **named)

    space = vars(model)
    had = name in space
    before = space.get(name)
    space[name] = noted
    try:
        yield
    finally:
        if had:
            space[name] = before
        else:
            del space[name]


def run(model: Any, x: Tensor, eps: float, *, drawing: bool = False) -> tuple[Any, list[Call], int]:
    """Call a model with every normal draw replaced.

    Args:
        model: the model.
        x: inputs.
        eps: what stands for each draw.
        drawing: in training mode, but for layers whose answer then depends on the batch.

    Returns:
        Its answer, the calls inside in order, and how many draws were replaced.
    """
    calls: list[Call] = []
    noise = Noise(eps)
    with torch.no_grad(), _mode(model, drawing), watched(model, calls), noise:
        answer = model(x)
    return answer, calls, noise.draws


@contextlib.contextmanager
def _mode(model: Any, drawing: bool) -> Iterator[None]:
    if not drawing or not isinstance(model, nn.Module):
        yield
        return
    changed = [part for part in model.modules() if not isinstance(part, _SETTLED)]
    before = [part.training for part in changed]
    try:
        for part in changed:
            part.training = True
        yield
    finally:
        for part, flag in zip(changed, before, strict=True):
            part.training = flag


@contextlib.contextmanager
def replaced(modules: list[nn.Module], z: Tensor) -> Iterator[None]:
    """Let submodules take another first argument, for a while."""

    def hook(_: nn.Module, taken: tuple[Any, ...]) -> tuple[Any, ...]:
        return (z, *taken[1:])

    with contextlib.ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(hook).remove)
        yield
