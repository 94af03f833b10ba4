"""List the layers of a network that can be watched while they run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import nn


def watchable(module: nn.Module | None) -> dict[str, nn.Module]:
    """Return layers by name, without scripted ones, which take no hooks.

    Args:
        module: the network; None where it is not known.

    Returns:
        Name -> layer, the network itself under an empty name.
    """
    named = () if module is None else module.named_modules()
    return {n: layer for n, layer in named if not isinstance(layer, torch.jit.ScriptModule)}
