"""Choose rows of a run evenly, so that what grows with their square stays affordable."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np


def checked_rows(rows: int, analysis: str) -> int:
    """Refuse fewer than two rows.

    Args:
        rows: as asked.
        analysis: that was asked.

    Returns:
        The same number.

    Raises:
        OptionError: when it is below two.
    """
    if rows < 2:
        raise OptionError(f"{analysis}'s rows is a number of at least 2; found {rows}.")
    return rows


def posterior(
    columns: Callable[[str], np.ndarray], rows: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posteriors of evenly spaced rows.

    Args:
        columns: stored columns by name.
        rows: at most so many.

    Returns:
        Row numbers ``(N,)``, mu and sigma ``(N, n)`` in float64; rows whose posterior is not
        finite are left out.
    """
    import numpy as np

    mean, std = columns("mean"), columns("std")
    count = min(rows, len(mean))
    chosen = np.arange(count) * len(mean) // max(count, 1)
    mean, std = mean[chosen].astype(float), std[chosen].astype(float)
    usable = np.isfinite(mean).all(axis=1) & np.isfinite(std).all(axis=1) & (std > 0).all(axis=1)
    return chosen[usable], mean[usable], std[usable]
