"""Give any function of block sums a standard error and an interval, by leaving out one block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isoprobe.statistics.moments import Estimate, student_t95


def jackknife(function: Callable[..., np.ndarray], *sums: np.ndarray) -> Estimate:
    """Estimate a smooth function of sums over samples.

    Args:
        function: of arrays shaped like the sums without their first axis, any number of axes before
            them; element by element along those.
        sums: block sums, ``(BLOCKS, ...)`` each; blocks without samples hold zeros in all of them.

    Returns:
        Value, standard error and 95 % interval, of the function's shape; infinite errors where
        fewer than two blocks have samples.
    """
    used = np.zeros(len(sums[0]), dtype=bool)
    for part in sums:
        used |= np.any(part.reshape(len(part), -1) != 0, axis=1)
    kept = [part[used] for part in sums]
    blocks = int(used.sum())
    totals = [part.sum(axis=0) for part in kept]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.asarray(function(*totals))
        if blocks < 2:
            spread = np.full_like(value, np.inf, dtype=float)
            return Estimate(value, spread, value - spread, value + spread)
        without = function(*(total - part for total, part in zip(totals, kept, strict=True)))
        deviations = ((without - without.mean(axis=0)) ** 2).sum(axis=0)
        se = np.sqrt((blocks - 1) / blocks * deviations)
    half = student_t95(blocks - 1) * se
    return Estimate(value, se, value - half, value + half)
