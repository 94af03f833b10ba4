"""Fix the draws that scores are taken at, the same for every row, so that equal rows score alike.

Averages over rows take draws of each sample's own; a score has to be a function of its row alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.statistics.draws import normal

if TYPE_CHECKING:
    from torch import Tensor

GAUSSIAN, TWO_POINT = "gaussian", "two-point"
#: how E_z D may be taken
EXPECTATIONS = (GAUSSIAN, TWO_POINT)
#: antithetic pairs of the set
PAIRS = 8


@lru_cache(maxsize=8)
def fixed_noise(latents: int, expectation: str = GAUSSIAN) -> Tensor:
    """Return the noise of every row: z = mu + sigma * noise.

    Args:
        latents: number of dimensions n.
        expectation: one of :data:`EXPECTATIONS`; ``two-point`` gives ones and minus ones (A.6).

    Returns:
        ``(K, n)`` float64, antithetic, so that every odd moment is 0. Gaussian noise has variance 1
        in each latent to rounding, and no correlation where there are as many pairs as latents.
    """
    if expectation == TWO_POINT:
        ones = torch.ones(1, latents, dtype=torch.float64)
        return torch.cat((ones, -ones))
    drawn = normal(0, "scores", np.arange(PAIRS), latents)
    if latents <= PAIRS:
        # drawn = U S V', and U V' is the orthogonal matrix that lies nearest to it
        left, _, right = np.linalg.svd(drawn, full_matrices=False)
        drawn = np.sqrt(PAIRS) * left @ right
    half = torch.as_tensor(drawn / np.sqrt((drawn**2).mean(axis=0)))
    return torch.stack((half, -half), dim=1).reshape(-1, latents)
