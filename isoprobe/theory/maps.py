"""Compare what an encoder reads with what the objective asks it to read."""

from __future__ import annotations

import numpy as np

from isoprobe.theory.stated import stated


@stated("Read and write maps (beyond)")
def alignment(read: np.ndarray, asked: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Say how far the encoder reads what the objective asks it to read, along the data.

    At a minimum of the objective over mu_j, d mu_j / dx is the mixed derivative of D times
    -sigma_j^2 / beta where columns are orthogonal and the decoder bends little: the encoder reads
    what the decoder writes, seen through the metric. What no row moves in is left out: it costs
    the objective nothing, and an encoder reads anything there.

    Args:
        read: d mu_j / dx, ``(..., inputs)``.
        asked: -d^2 D / (dx dz_j), of the same shape.
        moves: rows less their mean, ``(N, inputs)``.

    Returns:
        The cosine, over rows, between what both say of the moves, ``(...)``, in [-1, 1]; NaN
        where either says 0 of all.

    Examples:
        >>> read, asked = np.array([3.0, 4.0, 7.0]), np.array([6.0, 8.0, -1.0])
        >>> float(alignment(read, asked, np.array([[1.0, 0, 0], [0, 1.0, 0]])))
        1.0
        >>> round(float(alignment(read, asked, np.eye(3))), 4)
        0.4974
    """
    said, wanted = (np.asarray(part, dtype=float) @ moves.T for part in (read, asked))
    sizes = np.linalg.norm(said, axis=-1) * np.linalg.norm(wanted, axis=-1)
    together = np.asarray((said * wanted).sum(axis=-1))
    found: np.ndarray = np.divide(
        together, sizes, out=np.full_like(together, np.nan), where=sizes > 0
    )
    return found
