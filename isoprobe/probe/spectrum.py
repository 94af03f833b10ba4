"""Tell what a decoder alone shows: how much each latent moves the output, at samples of the prior.

A trained VAE has norm + sigma^2 = 1, that is sigma_j^2 = 1 / (1 + 2 g_jj / beta), so the decoder
fixes the sigma an encoder would have learnt for it, and with it importance and rate. Nothing here
tests that: whether the encoder is the decoder's partner takes data and :func:`isoprobe.analyze`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.derivatives.exact import exact_pullback
from isoprobe.derivatives.memory import plan
from isoprobe.derivatives.metric_tensor import output_metric, require_tensor
from isoprobe.derivatives.quicker import quickest_route
from isoprobe.probe.prior import from_prior
from isoprobe.progress import bar
from isoprobe.statistics.moments import Moments
from isoprobe.theory.formulas import (
    cosines,
    hadamard_gap,
    ideal_rate,
    inverse_variance_called_for,
    rough_importance,
)

if TYPE_CHECKING:
    import torch

    from isoprobe.contracts import VAE, Metric
    from isoprobe.derivatives.routes import Route

#: more latents than this, and the angles between all pairs are left out
PAIRED = 512


@dataclass(frozen=True)
class Spectrum:
    """A decoder's columns over the prior.

    Attributes:
        samples: how many were drawn.
        beta: KL weight in units of the metric; None when unknown.
        pullback: E[g_jj], ``(n,)``, in units of the metric.
        pullback_se: its standard error.
        importance: (beta/2) E[sigma_j^-2] = beta/2 + E[g_jj], ``(n,)``, in units of the metric
            (Eq. 22, with sigma at the optimum); E[g_jj] itself where beta is unknown.
        rate: E[KL_j] = E[ln(1 + 2 g_jj / beta)] / 2 in nats, ``(n,)``, for an encoder that fills
            the prior; None where beta is unknown.
        cosine: mean |cos| between columns in the metric, ``(n, n)``; None for many latents.
        hadamard_gap: mean of half of sum_j log g_jj - log det g, nats; None likewise, and where
            columns depend on each other.
    """

    samples: int
    beta: float | None
    pullback: np.ndarray
    pullback_se: np.ndarray
    importance: np.ndarray
    rate: np.ndarray | None
    cosine: np.ndarray | None
    hadamard_gap: float | None


class _Columns:
    """Running means over samples of the prior."""

    def __init__(self, n: int, beta: float | None, *, paired: bool) -> None:
        self.beta = beta
        self.pullback, self.rate = Moments((n,)), Moments((n,))
        self.cosine = Moments((n, n)) if paired else None
        self.gap = Moments() if paired else None

    def update(self, diagonal: torch.Tensor, gram: torch.Tensor | None) -> None:
        g = diagonal.double()
        self.pullback.update(g.cpu().numpy())
        if self.beta is not None:
            self.rate.update(ideal_rate(g, self.beta).cpu().numpy())
        if gram is not None and self.cosine is not None and self.gap is not None:
            self.cosine.update(cosines(gram.double()).abs().cpu().numpy())
            self.gap.update(hadamard_gap(gram).cpu().numpy())


def spectrum(
    vae: VAE,
    metric: Metric,
    *,
    beta: float | None = None,
    samples: int = 1000,
    seed: int = 0,
    memory: int = 1 << 30,
    progress: bool = False,
) -> Spectrum:
    """Measure a decoder's columns at samples of the prior; no encoder and no data are needed.

    Args:
        vae: the model, of which the decoder is used.
        metric: the distortion.
        beta: KL weight in its units, where known.
        samples: of the prior.
        seed: of them.
        memory: bytes that derivatives may take.
        progress: show a bar on stderr.

    Returns:
        The columns' means.

    Raises:
        MetricError: for a metric without a tensor.
        CheckpointError: for a decoder that cannot be differentiated.
    """
    require_tensor(metric)
    n, paired = vae.latent_size, vae.latent_size <= PAIRED
    view = output_metric(metric, vae)
    sizes = plan(vae, view.decode, memory, gram=paired)
    columns = _Columns(n, beta, paired=paired)
    route: Route | None = None
    with bar(samples, 0, "decoding", shown=progress) as advance:
        for start in range(0, samples, sizes.batch):
            index = np.arange(start, min(start + sizes.batch, samples))
            z = from_prior(vae, seed, "prior", index)
            route = route or quickest_route(view, z[:2])
            pulled = exact_pullback(
                view, z, gram=paired, chunk=sizes.chunk, block=sizes.block, route=route
            )
            columns.update(pulled.diagonal, pulled.gram)
            advance(len(index))
    return _finished(columns, samples, beta)


def _finished(columns: _Columns, samples: int, beta: float | None) -> Spectrum:
    mean = columns.pullback.mean
    gap = None if columns.gap is None else float(columns.gap.mean)
    return Spectrum(
        samples=samples,
        beta=beta,
        pullback=mean,
        pullback_se=columns.pullback.se,
        importance=mean
        if beta is None
        else rough_importance(inverse_variance_called_for(mean, beta), beta),
        rate=None if beta is None else columns.rate.mean,
        cosine=None if columns.cosine is None else columns.cosine.mean,
        hadamard_gap=gap if gap is not None and np.isfinite(gap) else None,
    )
