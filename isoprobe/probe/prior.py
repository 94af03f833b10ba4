"""Draw from a model's prior, and measure posteriors against it row by row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.statistics.draws import normal
from isoprobe.theory.prior import PriorTerms, prior_terms

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Batch, Prior

#: antithetic pairs of draws a row for means against a prior; they cost no decoder
PAIRS = 8


def from_prior(vae: VAE, seed: int, stream: str, index: np.ndarray) -> Tensor:
    """Draw latents of the model's prior, each a function of its index.

    Args:
        vae: the model.
        seed: of the draws.
        stream: name of their use.
        index: of each draw, ``(B,)``.

    Returns:
        ``(B, n)`` in the model's type and place.
    """
    import torch

    noise = torch.as_tensor(normal(seed, stream, index, vae.latent_size))
    if vae.prior is not None:
        choice = torch.as_tensor(normal(seed, f"{stream}, component", index, 1))[:, 0]
        noise = vae.prior.draw(noise, torch.special.ndtr(choice))
    return noise.to(vae.device, vae.dtype)


def terms_by_row(
    prior: Prior, mean: Tensor, std: Tensor, index: np.ndarray, seed: int
) -> PriorTerms:
    """Measure posteriors against a prior at draws that belong to the row, in double precision.

    Args:
        prior: p(z).
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``.
        index: of each row, ``(B,)``.
        seed: of the draws.

    Returns:
        The terms, ``(B, n)`` each.
    """
    import torch

    n = mean.shape[1]
    drawn = torch.as_tensor(normal(seed, "against the prior", index, PAIRS * n))
    half = drawn.reshape(len(index), PAIRS, n).transpose(0, 1)
    return prior_terms(prior, mean.double(), std.double(), torch.cat([half, -half]))


def answer_called_for(batch: Batch) -> np.ndarray:
    """P_j of each row, ``(B, n)``: sigma_j^2 for N(0, I), and by draws for another prior."""
    found = "prior_answer" in batch.quantities
    answer: np.ndarray = batch.array("prior_answer") if found else batch.array("std") ** 2
    return answer


def slope_called_for(batch: Batch) -> np.ndarray:
    """E[s_j] of each row, ``(B, n)``: mu_j for N(0, I)."""
    return batch.array("prior_slope" if "prior_slope" in batch.quantities else "mean")
