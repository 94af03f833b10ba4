"""Compare two things, and say where and by how much they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.testing.laws import require

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Variable


def require_close(found: Tensor, expected: Tensor, tolerance: float, what: str) -> None:
    """Hold a tensor to another, relative to the largest expected value."""
    require(
        found.shape == expected.shape,
        f"{what} has shape {tuple(found.shape)}; expected {tuple(expected.shape)}",
    )
    require(found.isfinite().all(), f"{what} is not finite")
    found, expected = found.detach(), expected.detach().to(found.dtype)
    scale = expected.abs().max().clamp_min(1e-12) if expected.numel() else torch.ones(())
    worst = float((found - expected).abs().max() / scale) if found.numel() else 0.0
    require(
        worst <= tolerance,
        f"{what} is off by {worst:.2g} of its largest value; allowed is {tolerance:.0g}",
    )


def require_same_variables(
    found: Mapping[str, Variable], expected: Mapping[str, Variable], tolerance: float, how: str
) -> None:
    """Hold named arrays to others, element by element."""
    require(
        found.keys() == expected.keys(),
        f"{how} gives variables {sorted(found)}; expected {sorted(expected)}",
    )
    for name, variable in expected.items():
        a, b = np.asarray(found[name].values), np.asarray(variable.values)
        require(a.shape == b.shape, f"{how} gives '{name}' of shape {a.shape}; expected {b.shape}")
        if b.dtype.kind in "iubUSO":
            require((a == b).all(), f"{how} gives another '{name}'")
            continue
        finite = b[np.isfinite(b)]
        scale = max(float(np.abs(finite).max()), 1e-12) if finite.size else 1.0
        worst = float(np.nanmax(np.abs(a - b), initial=0.0)) / scale
        same_gaps = (np.isnan(a) == np.isnan(b)).all()
        require(
            same_gaps and worst <= tolerance,
            f"{how} moves '{name}' by {worst:.2g} of its largest value",
        )
