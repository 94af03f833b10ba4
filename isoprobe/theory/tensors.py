"""Read volume, condition and evenness of M(z) = J'GJ + (beta/2) I off its eigenvalues.

They are those of J'GJ, which need no beta and are stored, plus beta/2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    from torch import Tensor


@stated("Distances (beyond)")
def gram_eigenvalues(gram: Tensor) -> Tensor:
    """Eigenvalues of J'GJ ``(B, n, n)``, ascending and at least 0: ``(B, n)`` in float64."""
    import torch

    values: Tensor = torch.linalg.eigvalsh(gram.double()).clamp_min(0)
    return values


@stated("Distances (beyond)")
def log_volume(eigenvalues: np.ndarray) -> np.ndarray:
    """Log of the volume element sqrt(det M).

    Args:
        eigenvalues: of M, ``(B, n)``, positive.

    Returns:
        ``(B,)`` nats.

    Examples:
        >>> float(np.exp(log_volume(np.array([1.0, 4.0]))))
        2.0
    """
    volume: np.ndarray = 0.5 * np.log(eigenvalues).sum(axis=-1)
    return volume


@stated("Distances (beyond)")
def condition_number(eigenvalues: np.ndarray) -> np.ndarray:
    """Largest over smallest eigenvalue of M.

    Args:
        eigenvalues: of M, ``(B, n)``, positive.

    Returns:
        ``(B,)``, at least 1.

    Examples:
        >>> float(condition_number(np.array([1.0, 4.0])))
        4.0
    """
    ratio: np.ndarray = eigenvalues.max(axis=-1) / eigenvalues.min(axis=-1)
    return ratio


@stated("Distances (beyond)")
def relaxed_distortion(eigenvalues: np.ndarray) -> np.ndarray:
    """Variance of M's eigenvalues over their squared mean (Lee et al. 2022).

    Args:
        eigenvalues: of M, ``(B, n)``, positive.

    Returns:
        ``(B,)``: 0 where M is a multiple of the identity, so where z itself is isometric up to a
        scale; n - 1 at most.

    Examples:
        >>> float(relaxed_distortion(np.array([1.0, 3.0])))
        0.25
    """
    relative: np.ndarray = eigenvalues.var(axis=-1) / eigenvalues.mean(axis=-1) ** 2
    return relative
