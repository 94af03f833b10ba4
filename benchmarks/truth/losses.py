"""Write down the distortions and objectives that the bench's models are trained on.

They are written here anew rather than taken from isoprobe, so that a wrong formula there cannot
train the models that are to find it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

Distortion = Callable[[Tensor, Tensor], Tensor]

#: weight of total correlation beside 1 for the rest of the KL
CORRELATION = 6.0
#: the target of a capacity loss, as a share of the rate of the plain model, and its weight in betas
CAPACITY_SHARE, CAPACITY_WEIGHT = 0.6, 20.0
#: weight of the first latent's KL where it has a beta of its own
OWN = 0.25
DRAWS = 5
FIXED_SIGMA = 0.3


def _sse(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).sum(1)


def _mse(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().flatten(1).mean(1)


def _l1(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().flatten(1).sum(1)


def logcosh(x: Tensor, y: Tensor) -> Tensor:
    """Sum over inputs of log cosh(x - y), ``(B,)``: a square near zero, an absolute value far."""
    d = (x - y).abs().flatten(1)
    return (d + functional.softplus(-2 * d) - math.log(2)).sum(1)


def _bce(x: Tensor, logits: Tensor) -> Tensor:
    """From logits, which :func:`decoded` gives for this loss."""
    return (functional.softplus(logits) - x * logits).flatten(1).sum(1)


def _ssim(x: Tensor, y: Tensor) -> Tensor:
    from pytorch_msssim import ssim

    similarity: Tensor = ssim(x[:, None], y[:, None], data_range=1.0, size_average=False)
    return 1 - similarity


#: loss -> (metric spec that isoprobe knows it by, None where it knows none; D)
LOSSES: dict[str, tuple[str | None, Distortion]] = {
    "sse": ("sse", _sse),
    "mse": ("mse", _mse),
    "bce": ("bce", _bce),
    "l1": ("l1", _l1),
    "ssim": ("ssim", _ssim),
    "logcosh": (None, logcosh),
    "gaussian0.5": ("gaussian:sigma2=0.5", _sse),  # the constant changes no gradient
    # with a variance learnt in training, see Gaussian below
    "gaussian": ("gaussian", _sse),
}


class Gaussian(nn.Module):
    """D = -log N(x; x_hat, s2 I) with one variance s2 learnt in training."""

    def __init__(self) -> None:
        super().__init__()
        self.log_variance = nn.Parameter(torch.tensor(-1.0))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """D of each row, ``(B,)``."""
        constant = x[0].numel() / 2 * (math.log(2 * math.pi) + self.log_variance)
        return _sse(x, y) / (2 * self.log_variance.exp()) + constant


def decoded(decoder: nn.Module, z: Tensor, loss: str) -> Tensor:
    """Return what the loss compares with x: logits for bce, else the reconstruction."""
    found: Tensor = decoder.logits(z) if loss == "bce" else decoder(z)  # type: ignore[operator]
    return found


@dataclass(frozen=True)
class Draw:
    """What an objective sees of a batch.

    Attributes:
        mean: ``(B, n)``.
        std: ``(B, n)``.
        z: a draw of the posterior, ``(B, n)``.
        distort: ``z -> D (B,)`` for this batch.
        beta: weight of the KL.
        progress: share of the training that is done.
        target: rate in nats that a capacity loss aims at, or floor of a latent's free bits.
    """

    mean: Tensor
    std: Tensor
    z: Tensor
    distort: Distortion | Callable[[Tensor], Tensor]
    beta: float
    progress: float
    target: float

    def kl(self, center: float = 0.0, variance: float = 1.0) -> Tensor:
        """KL_j of each row from N(center, variance), ``(B, n)``, nats."""
        own = self.std.square()
        far = (self.mean - center).square()
        return 0.5 * ((far + own) / variance - 1 - (own / variance).log())

    def plain(self) -> Tensor:
        """E D, a number."""
        return self.distort(self.z).mean()  # type: ignore[call-arg]


def _beta_vae(d: Draw) -> Tensor:
    return d.plain() + d.beta * d.kl().sum(1).mean()


def _annealing(d: Draw) -> Tensor:
    return d.plain() + d.progress * d.beta * d.kl().sum(1).mean()


def _capacity(d: Draw) -> Tensor:
    return d.plain() + CAPACITY_WEIGHT * d.beta * (d.kl().sum(1).mean() - d.target).abs()


def _free_bits(d: Draw) -> Tensor:
    return d.plain() + d.beta * d.kl().mean(0).clamp_min(d.target).sum()


def _total_correlation(d: Draw) -> Tensor:
    """Minibatch-weighted estimate of log q(z) and of log q(z_j); constants do not matter."""
    log_q = log_normal(d.z[:, None], d.mean[None], d.std[None])
    joint = log_q.sum(2).logsumexp(1)
    apart = log_q.logsumexp(1).sum(1)
    correlation = (joint - apart).mean()
    return _beta_vae(d) + d.beta * (CORRELATION - 1) * correlation


def _wide_prior(d: Draw) -> Tensor:
    return d.plain() + d.beta * d.kl(variance=4.0).sum(1).mean()


def _shifted_prior(d: Draw) -> Tensor:
    return d.plain() + d.beta * d.kl(center=3.0, variance=0.25).sum(1).mean()


def _mixture_prior(d: Draw) -> Tensor:
    """KL by the draw, from 0.5 N(-1.5, 0.25) + 0.5 N(1.5, 0.25) in each latent."""
    log_q = log_normal(d.z, d.mean, d.std)
    half = torch.full_like(d.z, 0.5)
    humps = [log_normal(d.z, sign * 3 * half, half) for sign in (-1, 1)]
    log_p = torch.stack(humps).logsumexp(0) - math.log(2)
    return d.plain() + d.beta * (log_q - log_p).sum(1).mean()


def _own_beta(d: Draw) -> Tensor:
    kl = d.kl().mean(0)
    return d.plain() + d.beta * (kl.sum() - (1 - OWN) * kl[0])


def _iwae(d: Draw) -> Tensor:
    """Importance-weighted bound of five draws, in units of D."""
    logs = []
    for k in range(DRAWS):
        z = d.z if k == 0 else d.mean + d.std * torch.randn_like(d.std)
        rate = log_normal(z, d.mean, d.std) - log_normal(z, torch.zeros_like(z), torch.ones_like(z))
        logs.append(-d.distort(z) / d.beta - rate.sum(1))  # type: ignore[call-arg]
    return -d.beta * (torch.stack(logs).logsumexp(0) - math.log(DRAWS)).mean()


def log_normal(z: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Log density of N(mean, std^2) at z, element by element."""
    return -0.5 * ((z - mean) / std).square() - std.log() - 0.5 * math.log(2 * math.pi)


OBJECTIVES: dict[str, Callable[[Draw], Tensor]] = {
    "beta-vae": _beta_vae,
    "annealing": _annealing,
    "capacity": _capacity,
    "free-bits": _free_bits,
    "total-correlation": _total_correlation,
    "wide-prior": _wide_prior,
    "shifted-prior": _shifted_prior,
    "mixture-prior": _mixture_prior,
    "own-beta": _own_beta,
    "iwae": _iwae,
    "fixed-sigma": _beta_vae,  # the scale head is frozen, see the training
}
