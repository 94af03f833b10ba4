"""Measure by likelihoods of decoders that give more than a mean: variances, classes, counts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from isoprobe.hookspecs import hookimpl
from isoprobe.theory.likelihood import Likelihood

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

    from isoprobe.contracts import Metric


class HeteroscedasticGaussian(Likelihood):
    """A Gaussian whose variance the decoder gives too."""

    name = "gaussian-heteroscedastic"
    summary = "-log N(x; mean, variance), both from the decoder: mean and log variance"
    parameters = ("mean", "log variance")
    reference = "half the Fisher information"

    def distribution(self, theta: Tensor) -> Distribution:
        """The Gaussian of each input."""
        from torch.distributions import Normal

        return Normal(theta[:, 0], (0.5 * theta[:, 1]).exp(), validate_args=False)

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """Log p of each input."""
        mean, log_variance = theta[:, 0], theta[:, 1]
        square = (x - mean).square() * (-log_variance).exp()
        return -0.5 * (square + log_variance + math.log(2 * math.pi))

    def diagonal(self, theta: Tensor) -> Tensor:
        """1 / (2 variance) for the mean, 1/4 for the log variance."""
        import torch

        precision = 0.5 * (-theta[:, 1]).exp()
        return torch.stack([precision, torch.full_like(precision, 0.25)], dim=1)


class Categorical(Likelihood):
    """One of K classes for each input; x holds whole numbers from 0."""

    name = "categorical"
    whole_numbers = True
    summary = "-log p of a class from K logits, summed over inputs"
    reference = "half the Fisher information"

    def distribution(self, theta: Tensor) -> Distribution:
        """The distribution over classes of each input."""
        from torch.distributions import Categorical as Classes

        return Classes(logits=theta.movedim(1, -1), validate_args=False)

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """Log p of each input's class."""
        found: Tensor = theta.log_softmax(1).gather(1, x.long()[:, None])[:, 0]
        return found

    def mean_of(self, theta: Tensor) -> Tensor:
        """Expected class, taken as a number."""
        import torch

        classes = torch.arange(theta.shape[1], dtype=theta.dtype, device=theta.device)
        mean: Tensor = torch.einsum("bk...,k->b...", theta.softmax(1), classes)
        return mean

    def tensor_action(self, theta: Tensor, v: Tensor) -> Tensor:
        """(1/2) (p v - p (p'v))."""
        axis = v.ndim - theta.ndim + 1
        p = theta.softmax(1)
        weighed = p * v
        return 0.5 * (weighed - p * weighed.sum(axis, keepdim=True))


def _nb_log_prob(x: Tensor, log_mean: Tensor, log_size: Tensor) -> Tensor:
    """Log of the negative binomial with mean mu and dispersion r: variance mu + mu^2 / r."""
    import torch
    from torch.nn.functional import softplus

    r, gap = log_size.exp(), log_mean - log_size
    counted = torch.lgamma(x + r) - torch.lgamma(r) - torch.lgamma(x + 1)
    # log r / (r + mu) and log mu / (r + mu), stable where one of them is far above the other
    return counted - r * softplus(gap) - x * softplus(-gap)


class NegativeBinomial(Likelihood):
    """Counts of mean mu and variance mu + mu^2 / r."""

    name = "nb"
    whole_numbers = True
    summary = "-log p of counts, negative binomial: log mean and log dispersion from the decoder"
    parameters = ("log mean", "log dispersion")
    reference = "half the Fisher information"

    def distribution(self, theta: Tensor) -> Distribution:
        """The negative binomial of each input."""
        from torch.distributions import NegativeBinomial as Counts

        gap = theta[:, 0] - theta[:, 1]
        return Counts(theta[:, 1].exp(), logits=gap, validate_args=False)

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """Log p of each count, which may be no whole number."""
        return _nb_log_prob(x, theta[:, 0], theta[:, 1])

    def mean_of(self, theta: Tensor) -> Tensor:
        """Mu."""
        return theta[:, 0].exp()

    def tensor_action(self, theta: Tensor, v: Tensor) -> Tensor:
        """(1/2) mu r / (r + mu) for the log mean; that of the dispersion is summed if it moves."""
        import torch

        mean, size = v.unbind(v.ndim - theta.ndim + 1)
        inner = theta[:, 0].exp() * torch.sigmoid(theta[:, 1] - theta[:, 0])
        other = torch.zeros_like(size)
        if bool((size != 0).any()):
            other = self.summed_fisher(theta)[:, 1, 1] * size
        return 0.5 * torch.stack([inner * mean, other], dim=v.ndim - theta.ndim + 1)

    def divergence(self, theta: Tensor, other: Tensor) -> Tensor:
        """KL divergence: closed where the dispersions agree, as log p is linear in x then."""
        import torch

        if not torch.equal(theta[:, 1], other[:, 1]):
            return self.summed_divergence(theta, other).flatten(1).sum(1)
        mean = theta[:, 0].exp()
        return (self.log_prob(mean, theta) - self.log_prob(mean, other)).flatten(1).sum(1)


class ZeroInflated(Likelihood):
    """Counts of a negative binomial, or with some probability none at all."""

    name = "zinb"
    whole_numbers = True
    summary = "-log p of counts with dropout: log mean, log dispersion, logit of dropout"
    parameters = ("log mean", "log dispersion", "logit of dropout")
    reference = "half the Fisher information"

    def distribution(self, theta: Tensor) -> Distribution:
        """The counts that are no dropouts: sums run over their support, where all the rest is."""
        return NegativeBinomial().distribution(theta)

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """Log p of each count."""
        import torch
        from torch.nn.functional import softplus

        gate = theta[:, 2]
        kept = _nb_log_prob(x, theta[:, 0], theta[:, 1]) - softplus(gate)
        return torch.where(x < 0.5, torch.logaddexp(-softplus(-gate), kept), kept)

    def mean_of(self, theta: Tensor) -> Tensor:
        """Mu times the probability of no dropout."""
        import torch

        return theta[:, 0].exp() * torch.sigmoid(-theta[:, 2])

    def fisher(self, theta: Tensor) -> Tensor:
        """In closed form, but for the dispersion's own part; see :meth:`tensor_action`."""
        return self.summed_fisher(theta)

    def tensor_action(self, theta: Tensor, v: Tensor) -> Tensor:
        """Closed form for log mean and dropout; with a moving dispersion all is summed."""
        import torch
        from torch.nn.functional import softplus

        axis = v.ndim - theta.ndim + 1
        mean, size, gate = v.unbind(axis)
        if bool((size != 0).any()):
            return super().tensor_action(theta, v)
        log_mean, log_size, logit = theta.unbind(1)
        drop, keep = torch.sigmoid(logit), torch.sigmoid(-logit)
        inner = log_mean.exp() * torch.sigmoid(log_size - log_mean)  # of the negative binomial
        none = (-log_size.exp() * softplus(log_mean - log_size)).exp()  # its p(0)
        slope = -inner  # d log p(0) / d log mean
        zero = drop + keep * none
        # what a zero tells, d p(0) / d (log mean, logit), and what a count above it tells
        first, second = keep * none * slope, drop * keep * (1 - none)
        mm = keep * (inner - none * slope**2) + first**2 / zero
        mg = keep * drop * none * slope + first * second / zero
        gg = keep * (1 - none) * drop**2 + second**2 / zero
        parts = [mm * mean + mg * gate, torch.zeros_like(size), mg * mean + gg * gate]
        return 0.5 * torch.stack(parts, dim=axis)

    def divergence(self, theta: Tensor, other: Tensor) -> Tensor:
        """KL divergence, closed where the dispersions agree."""
        import torch
        from torch.nn.functional import softplus

        if not torch.equal(theta[:, 1], other[:, 1]):
            return self.summed_divergence(theta, other).flatten(1).sum(1)
        nothing = torch.zeros_like(theta[:, 0])
        mean, keep = theta[:, 0].exp(), torch.sigmoid(-theta[:, 2])
        ours, theirs = (_nb_log_prob(nothing, t[:, 0], t[:, 1]) for t in (theta, other))
        counts = _nb_log_prob(mean, theta[:, 0], theta[:, 1])
        counts = counts - _nb_log_prob(mean, other[:, 0], other[:, 1])
        kept = softplus(other[:, 2]) - softplus(theta[:, 2])
        none = ours.exp()
        above = keep * (counts - none * (ours - theirs) + (1 - none) * kept)
        zero = self.log_prob(nothing, theta)
        found = zero.exp() * (zero - self.log_prob(nothing, other)) + above
        return found.flatten(1).sum(1)


@hookimpl
def isoprobe_metrics() -> list[type[Metric]]:
    """Likelihoods."""
    return [HeteroscedasticGaussian, Categorical, NegativeBinomial, ZeroInflated]
