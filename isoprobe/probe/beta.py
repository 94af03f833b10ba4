"""Beta from the checkpoint's own behaviour: sums over blocks of samples that it is a ratio of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.statistics.moments import BlockSums, Estimate, ratio
from isoprobe.theory.formulas import decoder_response, unused_variance

if TYPE_CHECKING:
    from isoprobe.contracts import Batch


class BetaSums(BlockSums):
    """Block sums of what beta is a ratio of, for each latent.

    Column 0: 1 - sigma^2; 1: E[sigma eps dD/dz]; 2: 2 sigma^2 g_jj (zero without a pullback).

    Args:
        latents: number of dimensions n.
    """

    def __init__(self, latents: int) -> None:
        super().__init__((latents, 3))

    def take(self, batch: Batch) -> None:
        """Take in a batch that has ``std``, ``stationarity`` and perhaps ``pullback``."""
        std, response = batch.array("std"), batch.array("stationarity")
        pulled = np.zeros_like(std)
        if "pullback" in batch.quantities:
            pulled = decoder_response(std, batch.array("pullback"))
        self.update(batch.index, np.stack([unused_variance(std**2), response, pulled], axis=2))

    def by_latent(self, column: int) -> Estimate:
        """Beta recovered from each latent alone, ``(n,)``; column 1 or 2."""
        return ratio(self.sums[:, :, column], self.sums[:, :, 0])

    def pooled(self, column: int, active: np.ndarray) -> Estimate | None:
        """Beta recovered from all active latents, a ratio of sums; None when none is active."""
        if not active.any():
            return None
        numerator = self.sums[:, active, column].sum(axis=1)
        if not numerator.any():
            return None
        return ratio(numerator, self.sums[:, active, 0].sum(axis=1))
