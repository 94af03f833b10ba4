"""Keep sums over blocks of samples, of which beta and everything judged by latent are ratios."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.probe.prior import answer_called_for
from isoprobe.statistics.jackknife import jackknife
from isoprobe.statistics.moments import BlockSums, Estimate
from isoprobe.theory.formulas import decoder_response, unused_variance
from isoprobe.theory.pooling import balance_trust, pooled_ratio

if TYPE_CHECKING:
    from isoprobe.contracts import Batch, Facts

#: columns: 1 - sigma^2, or 1 - P under another prior; E[sigma eps dD/dz]; 2 sigma^2 g_jj (zero
#: without a pullback); E[mu dD/dz], which at an optimum balances the second
ROOM, STATIONARY, RESPONSE, DRIFT = range(4)


#: a latent whose mean KL is no more than this times what is free is held there
FLOOR = 1.1


def weighed(active: np.ndarray, facts: Facts, rate: np.ndarray) -> np.ndarray:
    """Leave out latents that free bits hold at their floor, where the KL has no one weight.

    Args:
        active: which latents do something, ``(n,)`` bool.
        facts: what the checkpoint declares.
        rate: E[KL_j], ``(n,)``, nats.

    Returns:
        ``(n,)`` bool; ``active`` where nothing is free, or nothing else would be left.
    """
    if facts.free_bits is None:
        return active
    kept: np.ndarray = active & (rate > FLOOR * facts.free_bits)
    return kept if kept.any() else active


class BetaSums(BlockSums):
    """Block sums of what beta is a ratio of, for each latent.

    Args:
        latents: number of dimensions n.
    """

    def __init__(self, latents: int) -> None:
        super().__init__((latents, 4))

    def take(self, batch: Batch) -> None:
        """Take in what ``stationarity`` and ``gradient`` give, and perhaps ``pullback``."""
        std = batch.array("std")
        pulled = np.zeros_like(std)
        if "pullback" in batch.quantities:
            pulled = decoder_response(std, batch.array("pullback"))
        columns = (
            unused_variance(answer_called_for(batch)),
            batch.array("stationarity"),
            pulled,
            batch.array("mean") * batch.array("gradient"),
        )
        self.update(batch.index, np.stack(columns, axis=2))

    def column(self, number: int) -> np.ndarray:
        """Block sums of one column, ``(BLOCKS, n)``."""
        sums: np.ndarray = self.sums[:, :, number]
        return sums

    def variance(self) -> np.ndarray:
        """E[sigma_j^2], P_j under another prior, over the other columns' samples, ``(n,)``."""
        return 1 - self.mean()[:, ROOM]

    def by_latent(self, column: int) -> Estimate:
        """Beta recovered from each latent alone, ``(n,)``; by stationarity or by the response."""
        return jackknife(lambda above, below: above / below, self.column(column), self.column(ROOM))

    def pooled(self, column: int, active: np.ndarray) -> Estimate | None:
        """Beta recovered from all active latents, those that disagree counting less; or None."""
        above = self.column(column)[:, active]
        if not above.any():
            return None
        return pooled_ratio(above, self.column(ROOM)[:, active], self.trust()[active])

    def trust(self) -> np.ndarray:
        """How far each latent's sigma and decoder belong together, ``(n,)``."""
        means = self.mean()
        return balance_trust(means[:, STATIONARY], means[:, DRIFT])
