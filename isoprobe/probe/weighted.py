"""Draw from posteriors and weigh the draws, for bounds on log p(x) tighter than the ELBO."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from isoprobe.derivatives.metric_tensor import output_metric
from isoprobe.errors import CheckpointError
from isoprobe.probe.told import encoded
from isoprobe.statistics.draws import normal
from isoprobe.theory.weighted import log_weights

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric

#: rows that are decoded at once
_ROWS = 32


@torch.no_grad()
def weighted_draws(
    vae: VAE, metric: Metric, x: Tensor, beta: float, draws: int, seed: int = 0
) -> np.ndarray:
    """Log weights of draws from the posterior of each row.

    Args:
        vae: the model.
        metric: the distortion.
        x: rows, ``(N, *input_shape)``, which the model is bound to where it takes conditions.
        beta: KL weight in units of the metric.
        draws: K, a row.
        seed: of the draws.

    Returns:
        ``(N, K)`` in nats, less the constant of the decoder's density.

    Raises:
        CheckpointError: when the model has no encoder, or a weight is not finite.
    """
    found = []
    for start in range(0, len(x), _ROWS):
        where = slice(start, start + _ROWS)
        part, told = x[where], vae.rows(where)
        view, posterior = output_metric(metric, told), encoded(told, part)
        mean, std = posterior.mean, posterior.std
        index = np.arange(start, start + len(part))
        noise = normal(seed, "weighted", index, draws * vae.latent_size)
        noise = noise.reshape(len(part), draws, vae.latent_size)
        at = torch.as_tensor(noise, dtype=mean.dtype, device=mean.device)
        distortions = [
            view.distortion(part, view.decode(mean + std * at[:, k])).double().cpu().numpy()
            for k in range(draws)
        ]
        posteriors = (mean.double().cpu().numpy(), std.double().cpu().numpy())
        own = None
        if vae.prior is not None:
            z = torch.as_tensor(posteriors[0][:, None] + posteriors[1][:, None] * noise)
            own = vae.prior.log_density(z.flatten(0, 1)).reshape(z.shape[:2]).numpy()
        found.append(log_weights(np.stack(distortions, axis=1), noise, *posteriors, beta, own))
    weights = np.concatenate(found)
    if not np.isfinite(weights).all():
        row = int(np.argmin(np.isfinite(weights).all(axis=1)))
        raise CheckpointError(
            f"{vae.name}: the weight of a draw of row {row} is not finite, as it has to be. "
            "The decoder may overflow some sigmas off the mean."
        )
    return weights
