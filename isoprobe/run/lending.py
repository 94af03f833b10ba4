"""Borrow a caller's module for a run and give it back as it was, whatever happens on the way.

A module in the middle of its training has flags, gradients, buffers and attributes that a run must
not change: what is saved here is everything that evaluation, moving, casting and a forward pass of
the caller's own code can touch. Nothing is copied but buffers, so that a borrowed module costs no
second set of weights.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

#: attributes of a module that hold its parts: restored in place, since others may refer to them
_HOLDERS = (dict, list, set)


@dataclass(frozen=True)
class _Kept:
    """A tensor of the caller's, and what it was."""

    tensor: Tensor
    data: Tensor
    values: Tensor | None
    requires_grad: bool
    grad: Tensor | None
    grad_data: Tensor | None

    @classmethod
    def of(cls, tensor: Tensor, *, copied: bool) -> _Kept:
        grad = tensor.grad if tensor.is_leaf else None
        return cls(
            tensor,
            tensor.data,
            tensor.detach().clone() if copied else None,
            tensor.requires_grad,
            grad,
            None if grad is None else grad.data,
        )

    def give_back(self) -> None:
        """Put the values, the gradient and the flag back."""
        with torch.no_grad():
            if self.tensor.data_ptr() != self.data.data_ptr() or (
                self.tensor.dtype != self.data.dtype or self.tensor.device != self.data.device
            ):
                self.tensor.data = self.data
            if self.values is not None:
                self.data.copy_(self.values)
        if self.tensor.is_leaf:
            self.tensor.requires_grad_(self.requires_grad)
            if self.grad is not None and self.grad_data is not None:
                self.grad.data = self.grad_data
            self.tensor.grad = self.grad


@contextmanager
def lent(module: nn.Module | None) -> Iterator[None]:
    """Evaluate a module without gradients of its parameters, and give it back as it was.

    Training flags of every submodule, requires_grad, gradients, device, type and values of every
    parameter and buffer, attributes that a forward pass sets, the modes of autograd, and the
    random number generators of torch, numpy and Python are as before afterwards, also after an
    exception.

    Args:
        module: the caller's; None for a model made of plain functions.

    Yields:
        Nothing; inside, the module is in eval mode and its parameters need no gradient.
    """
    with ExitStack() as stack:
        stack.enter_context(_generators())
        stack.enter_context(torch.inference_mode(mode=False))
        stack.enter_context(torch.enable_grad())
        for device in {"cpu", *(["cuda"] if torch.cuda.is_available() else [])}:
            stack.enter_context(torch.autocast(device, enabled=False))
        if module is not None:
            if "torch._dynamo" in sys.modules:  # seconds to import, and nothing compiled without it
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            stack.enter_context(_kept(module))
            module.eval().requires_grad_(requires_grad=False)
        yield


@contextmanager
def _kept(module: nn.Module) -> Iterator[None]:
    parts = list(module.modules())
    training = [part.training for part in parts]
    parameters = [_Kept.of(p, copied=False) for p in module.parameters()]
    buffers = [_Kept.of(b, copied=True) for b in module.buffers()]
    attributes = [(vars(part), dict(vars(part)), _held(vars(part))) for part in parts]
    try:
        yield
    finally:
        for space, before, held in attributes:
            space.clear()
            space.update(before)
            for holder, content in held:
                _refill(holder, content)
        for part, flag in zip(parts, training, strict=True):
            part.training = flag  # that of a script module is no attribute of Python
        for kept in (*parameters, *buffers):
            kept.give_back()


def _held(space: dict[str, Any]) -> list[tuple[Any, Any]]:
    """Containers among a module's attributes, each with a shallow copy of what is in it."""
    return [(value, value.copy()) for value in space.values() if isinstance(value, _HOLDERS)]


def _refill(holder: Any, content: Any) -> None:
    """Make a container hold what it held, in the same order, and be the same object."""
    if len(holder) == len(content) and all(
        a is b for a, b in zip(_flat(holder), _flat(content), strict=True)
    ):
        return
    holder.clear()
    if isinstance(holder, list):
        holder.extend(content)
    else:
        holder.update(content)


def _flat(holder: Any) -> list[Any]:
    if isinstance(holder, dict):
        return [part for item in holder.items() for part in item]
    return list(holder)


@contextmanager
def _generators() -> Iterator[None]:
    """Give the random number generators back as they were."""
    cuda = torch.cuda.is_available() and torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    on_torch = torch.get_rng_state()
    on_cuda = torch.cuda.get_rng_state_all() if cuda else []
    on_numpy, on_python = np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(on_torch)
        if cuda:
            torch.cuda.set_rng_state_all(on_cuda)
        np.random.set_state(on_numpy)
        random.setstate(on_python)
