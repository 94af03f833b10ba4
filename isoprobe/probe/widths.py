"""Say how wide posteriors are, whether their latents are independent or correlated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from isoprobe.contracts import Batch


def variance_of(batch: Batch) -> np.ndarray:
    """Variance of each latent, ``(B, n)``: sigma_j^2, or Sigma_jj of a full covariance."""
    found = "variance" in batch.quantities
    variance: np.ndarray = batch.array("variance") if found else batch.array("std") ** 2
    return variance


def factor_of(batch: Batch) -> np.ndarray:
    """Deviations whose product is the root of the determinant, ``(B, n)``: sigma_j, or L_jj."""
    if "root" not in batch.quantities:
        return batch.array("std")
    diagonal: np.ndarray = np.diagonal(batch.array("root"), 0, -2, -1)
    return diagonal


def own_answer(batch: Batch) -> np.ndarray:
    """E[(z_j - mu_j) dD/dz_j], ``(B, n)``: the answer of a latent where they are independent."""
    return batch.array("own_answer" if "own_answer" in batch.quantities else "stationarity")
