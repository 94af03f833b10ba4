"""Dense float64 computations that every fast path must equal."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import hessian, jacrev

from isoprobe.contracts import VAE, Facts, Metric, Posterior
from isoprobe.theory.detection import conformal_p_values


def dense_jacobian(decode: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    """J of each sample in float64 by reverse mode: (B, m, n)."""
    rows = [jacrev(lambda v: decode(v[None])[0].flatten())(one) for one in z.double()]
    return torch.stack(rows)


def dense_tensor(metric: Metric, x: Tensor) -> Tensor:
    """G of each sample as half the full Hessian of D(x, .) at x: (B, m, m)."""

    def one(sample: Tensor) -> Tensor:
        flat = sample.flatten()
        fixed = sample.detach()[None]
        return 0.5 * hessian(lambda y: metric.distortion(fixed, y.reshape(fixed.shape))[0])(flat)

    return torch.stack([one(sample) for sample in x.double()])


def dense_pullback(vae: VAE, metric: Metric, z: Tensor) -> Tensor:
    """J' G J of each sample, all dense, in float64: (B, n, n)."""
    jacobian = dense_jacobian(vae.decode, z)
    tensor = dense_tensor(metric, vae.decode(z.double()))
    return jacobian.mT @ tensor @ jacobian


class SmallNetworks(nn.Module):
    """A small nonlinear encoder and decoder; the decoder ends in logits."""

    def __init__(self, size: int, latents: int, width: int = 12, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(
                nn.Linear(size, width), nn.Tanh(), nn.Linear(width, 2 * latents)
            )
            self.decoder = nn.Sequential(
                nn.Linear(latents, width), nn.Tanh(), nn.Linear(width, size)
            )

    def encode(self, x: Tensor) -> Posterior:
        mean, logvar = self.encoder(x.flatten(1)).chunk(2, dim=1)
        return Posterior(mean, torch.exp(0.5 * logvar))


def small_vae(
    *,
    size: int = 9,
    latents: int = 4,
    sigmoid: bool = False,
    shape: tuple[int, ...] | None = None,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    **facts: object,
) -> VAE:
    """A small random VAE in memory."""
    networks = SmallNetworks(size, latents, seed=seed).to(dtype)
    shape = shape or (size,)

    def logits(z: Tensor) -> Tensor:
        return networks.decoder(z).reshape(-1, *shape)

    return VAE(
        decode=(lambda z: torch.sigmoid(logits(z))) if sigmoid else logits,
        encode=networks.encode,
        input_shape=shape,
        latent_shape=(latents,),
        decode_logits=logits if sigmoid else None,
        module=networks,
        facts=Facts(**facts),  # type: ignore[arg-type]
    )


def false_alarms(
    scores: np.ndarray, alpha: float, generator: np.random.Generator
) -> tuple[float, float]:
    """Share of rows flagged at alpha, and its error, over 200 splits into reference and new."""
    half, rates = len(scores) // 2, []
    for _ in range(200):
        mixed = generator.permutation(scores)
        p_values = conformal_p_values(mixed[half:], np.sort(mixed[:half]))
        rates.append((p_values <= alpha).mean())
    return float(np.mean(rates)), float(np.std(rates, ddof=1) / np.sqrt(len(rates)))
