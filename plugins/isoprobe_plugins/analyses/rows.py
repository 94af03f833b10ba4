"""Choose rows of a run, so that what grows with their square stays affordable.

One row is drawn from each of as many equal stretches. Every sixth row would do for shuffled data
only: MNIST's rows alternate between two groups of writers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.errors import OptionError
from isoprobe_plugins.analyses.figures import WithFigures

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from isoprobe.contracts import Context, Variable


class OverRows(WithFigures):
    """An analysis of some rows, which are compared with one another when all have come.

    Args:
        rows: rows used, spread over the data.
    """

    needs = frozenset({"mean", "std"})

    def __init__(self, rows: int = 10_000) -> None:
        super().__init__()
        self.rows = checked_rows(rows, self.name)

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Nothing before all rows have come."""
        return {}


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
    columns: Callable[[str], np.ndarray], rows: int, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Posteriors of some rows.

    Args:
        columns: stored columns by name.
        rows: at most so many.
        seed: of their choice.

    Returns:
        Row numbers ``(N,)``, ascending, mu and sigma ``(N, n)`` in float64; rows whose posterior
        is not finite are left out.
    """
    import numpy as np

    mean, std = columns("mean"), columns("std")
    count = min(rows, len(mean))
    ends = np.arange(count + 1) * len(mean) // max(count, 1)
    chosen = np.random.default_rng((seed, count)).integers(ends[:-1], ends[1:])
    mean, std = mean[chosen].astype(float), std[chosen].astype(float)
    usable = np.isfinite(mean).all(axis=1) & np.isfinite(std).all(axis=1) & (std > 0).all(axis=1)
    return chosen[usable], mean[usable], std[usable]
