"""Draw a network's parameters anew, as before training, and swap them in and out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Untrained:
    """Parameters and buffers as initialisation leaves them.

    Attributes:
        tensors: by name; empty when some parameter could not be drawn anew.
        missing: names of the parameters that no ``reset_parameters`` fills.
    """

    tensors: Mapping[str, Tensor]
    missing: tuple[str, ...]


def untrained(module: nn.Module, seed: int) -> Untrained:
    """Draw every parameter anew by its module's own ``reset_parameters``; the module is unchanged.

    Args:
        module: the trained network.
        seed: of the draws; the global generator is left as it was.

    Returns:
        The untrained tensors, or the names of the parameters that cannot be drawn anew.
    """
    trained = {name: tensor.detach().clone() for name, tensor in _tensors(module)}
    cuda = {t.device.index or 0 for t in trained.values() if t.is_cuda}
    try:
        with torch.random.fork_rng(sorted(cuda)), torch.no_grad():
            torch.manual_seed(seed)
            # A value that no initialisation leaves behind shows which parameters one fills.
            for parameter in module.parameters():
                parameter.fill_(math.nan)
            _reset(module)
            fresh = {name: tensor.detach().clone() for name, tensor in _tensors(module)}
            missing = [n for n, p in module.named_parameters() if bool(p.isnan().any())]
    finally:
        with torch.no_grad():
            for name, tensor in _tensors(module):
                tensor.copy_(trained[name])
    return Untrained({} if missing else fresh, tuple(missing))


@contextmanager
def swapped(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Run the module with other tensors, and put its own back whatever happens."""
    own = dict(_tensors(module))
    kept = {name: own[name].data for name in tensors}
    try:
        for name, tensor in tensors.items():
            own[name].data = tensor
        yield
    finally:
        for name, data in kept.items():
            own[name].data = data


def _reset(module: nn.Module) -> None:
    """Reset children before their parents, whose own initialisation is the last word."""
    for part in reversed(list(module.modules())):
        reset = getattr(part, "reset_parameters", None)
        if callable(reset):
            try:
                reset()
            except (AttributeError, TypeError, ValueError, RuntimeError):
                continue  # what it should have filled is found missing


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return chain(module.named_parameters(), module.named_buffers())
