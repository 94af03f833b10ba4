"""Give any function of block sums a standard error and an interval, by leaving out one block."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from isoprobe.statistics.moments import Estimate
from isoprobe.statistics.quantiles import student_t95


def jackknife(function: Callable[..., np.ndarray], *sums: np.ndarray) -> Estimate:
    """Estimate a smooth function of sums over samples.

    The interval is Student's, turned by Hall's cubic for the skewness of what each block says (J.
    R. Stat. Soc. B 54, 1992): of rows whose rare large values push means and errors up together,
    plain intervals miss the truth on one side.

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
        used |= np.any(part != 0, axis=tuple(range(1, part.ndim)))
    kept = [part[used] for part in sums]
    blocks = int(used.sum())
    totals = [part.sum(axis=0) for part in kept]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.asarray(function(*totals))
        if blocks < 2:
            unknown = np.full_like(value, np.inf, dtype=float)
            return Estimate(value, unknown, value - unknown, value + unknown)
        without = function(*(total - part for total, part in zip(totals, kept, strict=True)))
        said = without.mean(axis=0) - without
        square = (said**2).mean(axis=0)
        skewness = np.nan_to_num((said**3).mean(axis=0) / square**1.5)
    se = np.sqrt((blocks - 1) * square)
    low, high = (_turned(sign * student_t95(blocks - 1), skewness, blocks) for sign in (1, -1))
    return Estimate(value, se, value - low * se, value - high * se)


def _turned(quantile: float, skewness: np.ndarray, blocks: int) -> np.ndarray:
    # the root T of Hall's T + a T^2 / 3 + a^2 T^3 / 27 + a / 6 = quantile, 3 (cube - 1) / a,
    # written so that it holds for a = 0 too
    a = skewness / np.sqrt(blocks)
    straight = quantile - a / 6
    cube = np.cbrt(1 + a * straight)
    root: np.ndarray = 3 * straight / (cube**2 + cube + 1)
    return root
