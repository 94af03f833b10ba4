"""Say what a prior p(z) other than N(0, I) asks of a posterior: KL, slopes, and the answer P.

With s_j = d(-log p(z))/dz_j at draws z = mu + sigma eps, an optimum has
E[sigma_j eps_j dD/dz_j] = beta (1 - P_j), P_j = E[sigma_j eps_j s_j], exactly, whatever the prior
and the decoder; P_j is sigma_j^2 for N(0, I).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from isoprobe.contracts import Prior
from isoprobe.errors import OptionError
from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.theory.either import Real

#: bytes that are held at once where each point meets each component
HELD = 32 << 20
_ARRAYS = 8  # of points times components, that a density and its slopes take on the way
_LOG_TWO_PI = math.log(2 * math.pi)


@stated("Other priors (beyond)")
def log_mixture_parts(z: Tensor, log_weights: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """Log p(z_j | z_1 .. z_(j-1)) of a mixture of diagonal Gaussians.

    Args:
        z: points, ``(B, n)``.
        log_weights: logs of K shares that add up to 1, ``(K,)``.
        means: of the components, ``(K, n)``.
        stds: standard deviations, ``(K, n)``.

    Returns:
        ``(B, n)`` in nats, adding up to log p(z).
    """
    import torch

    upto = torch.logsumexp(_log_components(z, means, stds).cumsum(2) + log_weights[:, None], 1)
    before = torch.cat([torch.zeros_like(upto[:, :1]), upto[:, :-1]], 1)
    return upto - before


def _log_components(z: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """Log density of each latent in each component, ``(B, K, n)``."""
    return -0.5 * ((z[:, None] - means) / stds) ** 2 - stds.log() - 0.5 * _LOG_TWO_PI


def _in_blocks(of: Callable[[Tensor], Tensor], z: Tensor, means: Tensor) -> Tensor:
    """Take what is of each row alone in blocks of rows, so that few meet all components at once."""
    import torch
    from torch.utils.checkpoint import checkpoint

    each = _ARRAYS * max(means.shape[0], means.numel()) * z.element_size()
    rows = max(1, HELD // each)
    if len(z) <= rows:
        return of(z)
    parts = [z[start : start + rows] for start in range(0, len(z), rows)]
    if not (torch.is_grad_enabled() and z.requires_grad):
        return torch.cat([of(part) for part in parts])
    # what slopes need of a block is made again when they are taken, and not kept until then
    found: list[Tensor] = [
        checkpoint(of, part, use_reentrant=False, preserve_rng_state=False) for part in parts
    ]
    return torch.cat(found)


class MixturePrior(Prior):
    """A mixture of diagonal Gaussians.

    Args:
        components: gives logs of the shares ``(K,)``, means ``(K, n)`` and standard deviations
            ``(K, n)`` as the model's parameters stand.
        words: what it is.
    """

    def __init__(
        self, components: Callable[[], tuple[Tensor, Tensor, Tensor]], words: str = "a mixture"
    ) -> None:
        self.components, self.words = components, words

    def _at(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        log_weights, means, stds = (part.detach().to(z) for part in self.components())
        return log_weights, means, stds

    def log_parts(self, z: Tensor) -> Tensor:
        """Log p(z_j | z_1 .. z_(j-1)), ``(B, n) -> (B, n)``."""
        at = self._at(z)
        return _in_blocks(lambda part: log_mixture_parts(part, *at), z, at[1])

    def log_density(self, z: Tensor, used: Tensor | None = None) -> Tensor:
        """Log p(z), or its marginal over the used latents, ``(B, n) -> (B,)``."""
        import torch

        log_weights, means, stds = self._at(z)
        if used is not None:
            kept = used.to(z.device)
            z, means, stds = z[:, kept], means[:, kept], stds[:, kept]
        return _in_blocks(
            lambda part: torch.logsumexp(
                _log_components(part, means, stds).sum(2) + log_weights, 1
            ),
            z,
            means,
        )

    def curvature(self, z: Tensor) -> Tensor:
        """Mean inverse variance of the components that may have made z, ``(B, n)``."""
        log_weights, means, stds = self._at(z)
        precisions = stds**-2

        def mean_precision(part: Tensor) -> Tensor:
            shares = (_log_components(part, means, stds).sum(2) + log_weights).softmax(1)
            return shares @ precisions

        return _in_blocks(mean_precision, z, means)

    def draw(self, noise: Tensor, choice: Tensor) -> Tensor:
        """Draws of the mixture, ``(B, n)``."""
        import torch

        log_weights, means, stds = self._at(noise)
        ends = log_weights.exp().cumsum(0)
        which = torch.searchsorted(ends, choice.to(ends)).clamp_max(len(ends) - 1)
        drawn: Tensor = means[which] + stds[which] * noise
        return drawn


def prior_of(given: object) -> Prior:
    """Take a prior as one may have it at hand.

    Args:
        given: a :class:`~isoprobe.contracts.Prior`; or, of ``torch.distributions``, ``Independent``
            of a ``Normal`` over ``(n,)``, or ``MixtureSameFamily`` of K of these.

    Returns:
        The prior, which follows its tensors as they stand.

    Raises:
        OptionError: for anything else.
    """
    import torch

    if isinstance(given, Prior):
        return given
    family = torch.distributions
    mixed = isinstance(given, family.MixtureSameFamily)
    parts = given.component_distribution if isinstance(given, family.MixtureSameFamily) else given
    base = parts.base_dist if isinstance(parts, family.Independent) else None
    if not isinstance(base, family.Normal) or base.loc.ndim != 1 + mixed:
        raise OptionError(
            f"prior is a {type(given).__name__}; needed is an isoprobe.contracts.Prior, "
            "Independent(Normal(means, deviations), 1), or MixtureSameFamily of K of these"
        )

    def components() -> tuple[Tensor, Tensor, Tensor]:
        if isinstance(given, family.MixtureSameFamily):
            return given.mixture_distribution.logits, base.loc, base.scale
        return base.loc.new_zeros(1), base.loc[None], base.scale[None]

    words = f"a mixture of {len(base.loc)} Gaussians" if mixed else "a Gaussian"
    return MixturePrior(components, words)


@stated("Other priors (beyond)")
def prior_moment(mean: Real, slope: Real, answer: Real) -> Real:
    """E[z_j s_j] = mu_j E[s_j] + P_j, whose mean over rows is 1 at an optimum, as for N(0, I).

    Args:
        mean: mu, ``(..., n)``.
        slope: E[s_j], mu_j for N(0, I).
        answer: P_j, sigma_j^2 for N(0, I).

    Returns:
        ``(..., n)``, dimensionless; mu_j^2 + sigma_j^2 for N(0, I).
    """
    moment: Real = mean * slope + answer
    return moment


@dataclass(frozen=True)
class PriorTerms:
    """What a prior asks of posteriors, each ``(B, n)``.

    Attributes:
        kl: KL(q(z_j) | p(z_j | z_1 .. z_(j-1))) in nats, whose sum is the KL divergence.
        slope: E[s_j], mu_j for N(0, I).
        answer: P_j = E[sigma_j eps_j s_j], sigma_j^2 for N(0, I).
    """

    kl: Tensor
    slope: Tensor
    answer: Tensor


@stated("Other priors (beyond)")
def prior_terms(
    prior: Prior, mean: Tensor, std: Tensor, noise: Tensor, weights: Tensor | None = None
) -> PriorTerms:
    """Take the means over draws of a posterior that tell it from its prior.

    Args:
        prior: p(z).
        mean: mu, ``(B, n)``.
        std: sigma, ``(B, n)``.
        noise: eps, ``(K, n)`` for every row, or ``(K, B, n)``.
        weights: of the K draws where they are nodes of a quadrature; equal when None.

    Returns:
        The terms. Draws are steadied by E[eps^2] = 1 with the prior's guess of its curvature,
        which changes no mean.
    """
    import torch

    h = prior.curvature(mean) * std**2
    size = len(noise)
    kl, slope, answer = (torch.zeros_like(mean) for _ in range(3))
    for k, eps in enumerate(noise.to(mean)):
        share = 1 / size if weights is None else float(weights[k])
        z = (mean + std * eps).detach().requires_grad_()
        with torch.enable_grad():
            parts = prior.log_parts(z)
            (found,) = torch.autograd.grad(-parts.sum(), z)
        surplus = h * (eps**2 - 1)
        kl -= share * (parts.detach() + 0.5 * surplus)
        slope += share * found
        answer += share * (std * eps * found - surplus)
    return PriorTerms(kl - std.log() - 0.5 * (_LOG_TWO_PI + 1), slope, answer)
