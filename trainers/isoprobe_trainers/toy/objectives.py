"""What the toy models are trained on; every quantity has the member as its first axis.

A loss is a weighted sum of named parts, L = sum_p weight_p part_p, averaged over the batch. With
weight lambda on the distortion and 1 on the KL this is Eq. 95, so beta = 1 / lambda.
"""

from __future__ import annotations

import abc
import math
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from isoprobe.theory.formulas import kl_divergence

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from isoprobe_trainers.toy.members import Member

    Map = Callable[[Tensor], Tensor]

#: power of 2/3 + 2 |x|^2 / 21 in a_x: the square error, Eq. 24 and Eq. 96
METRIC_POWERS = {"sse": 0.0, "downward": 1.0, "upward": -1.0}


class Objective(nn.Module, abc.ABC):
    """The loss of a group of members.

    Args:
        members: whose loss it is; the distortion's parts weigh lambda, the others 1.

    Attributes:
        parts: names of the parts.
        heads: encoder outputs for each latent.
    """

    parts: ClassVar[tuple[str, ...]]
    heads: ClassVar[int] = 2
    power: Tensor
    weights: Tensor

    def __init__(self, members: Sequence[Member]) -> None:
        super().__init__()
        powers = [METRIC_POWERS[m.metric] for m in members]
        self.scaled = any(powers)
        rows = [[1.0 if part in {"kl", "rate"} else m.lam for m in members] for part in self.parts]
        self.register_buffer("power", torch.tensor(powers)[:, None])
        self.register_buffer("weights", torch.tensor(rows))

    @abc.abstractmethod
    def forward(self, encode: Map, decode: Map, x: Tensor, noise: Tensor) -> Tensor:
        """Parts averaged over the batch.

        Args:
            encode: ``(E, B, m) -> (E, B, heads n)``.
            decode: ``(E, B, n) -> (E, B, m)``.
            x: inputs, ``(E, B, m)``.
            noise: standard normal draws, ``(E, B, n)``.

        Returns:
            ``(P, E)``.
        """

    def total(self, parts: Tensor) -> Tensor:
        """Loss of each member from its parts: ``(P, E) -> (E,)``."""
        return (self.weights * parts).sum(0)

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """D = a_x |x - x_hat|^2 summed over the inputs, ``(E, B)``."""
        square = (x_hat - x).square().sum(-1)
        if not self.scaled:
            return square
        return square * (2 / 3 + 2 / 21 * x.square().sum(-1)) ** self.power


class Plain(Objective):
    """The VAE's own: E_z D(x, Dec(z)) with one draw of z, and the KL (Eq. 3, 95)."""

    parts = ("distortion", "kl")

    def forward(self, encode: Map, decode: Map, x: Tensor, noise: Tensor) -> Tensor:
        """Distortion and KL, ``(2, E)``."""
        _, z, kl = _posterior(encode(x), noise)
        return torch.stack([self.distortion(x, decode(z)).mean(1), kl])


class Decomposed(Objective):
    """D(x, x_check) + E_z D(x_check, x_hat) and the KL (Lemma 1, Section 5.3)."""

    parts = ("transform", "coding", "kl")

    def forward(self, encode: Map, decode: Map, x: Tensor, noise: Tensor) -> Tensor:
        """Transform loss, coding loss and KL, ``(3, E)``."""
        mean, z, kl = _posterior(encode(x), noise)
        x_check, x_hat = decode(torch.cat([mean, z], 1)).chunk(2, 1)
        transform, coding = self.distortion(x, x_check), self.distortion(x_check, x_hat)
        return torch.stack([transform.mean(1), coding.mean(1), kl])


class Radogaga(Objective):
    """Kato et al. (2020): constant noise and a learned prior, as Section 3 describes it.

    The noise has variance beta/2 in every direction, so that at the optimum the decoder is
    isometric as it stands: J' G J = I (Eq. 4). The prior is a mixture of Gaussians for each latent,
    and the rate -log p(z) replaces the KL.

    Args:
        members: whose loss it is.
        components: Gaussians in the prior of each latent.
    """

    parts = ("transform", "coding", "rate")
    heads = 1
    noise_std: Tensor

    def __init__(self, members: Sequence[Member], components: int = 16) -> None:
        super().__init__(members)
        shape = (len(members), 1, members[0].latent_size, components)
        spread = torch.linspace(-3, 3, components).expand(shape).clone()
        self.prior_mean = nn.Parameter(spread)
        self.prior_log_std = nn.Parameter(torch.full(shape, -0.5))
        self.prior_logit = nn.Parameter(torch.zeros(shape))
        stds = torch.tensor([math.sqrt(m.beta / 2) for m in members])
        self.register_buffer("noise_std", stds[:, None, None])

    def forward(self, encode: Map, decode: Map, x: Tensor, noise: Tensor) -> Tensor:
        """Transform loss, coding loss and rate in nats, ``(3, E)``."""
        mean = encode(x)
        z = mean + self.noise_std * noise
        x_check, x_hat = decode(torch.cat([mean, z], 1)).chunk(2, 1)
        transform, coding = self.distortion(x, x_check), self.distortion(x_check, x_hat)
        return torch.stack([transform.mean(1), coding.mean(1), -self.log_prior(z).mean(1)])

    def log_prior(self, z: Tensor) -> Tensor:
        """Log of the learned prior density, ``(E, B, n) -> (E, B)``."""
        scaled = (z[..., None] - self.prior_mean) * (-self.prior_log_std).exp()
        log_normal = -0.5 * scaled.square() - self.prior_log_std - 0.5 * math.log(2 * math.pi)
        return (self.prior_logit.log_softmax(-1) + log_normal).logsumexp(-1).sum(-1)


OBJECTIVES: dict[str, type[Objective]] = {
    "plain": Plain,
    "decomposed": Decomposed,
    "radogaga": Radogaga,
}


def _posterior(heads: Tensor, noise: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, a draw of z, and the KL averaged over the batch (Eq. 2), from mean and log variance."""
    mean, log_variance = heads.chunk(2, -1)
    std = (0.5 * log_variance).exp()
    kl = kl_divergence(mean, std, log_variance).sum(-1).mean(1)
    return mean, torch.addcmul(mean, std, noise), kl
