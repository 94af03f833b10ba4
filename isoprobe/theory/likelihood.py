"""Take a decoder's outputs as parameters theta of p(x | theta): D = -log p, G half the Fisher.

Every input has its own parameters, ``theta (B, P, *shape)``. A family of ``torch.distributions`` is
a class of a few lines: its name, the names of its parameters, and :meth:`Likelihood.distribution`.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

from isoprobe.contracts import Metric
from isoprobe.errors import MetricError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributions import Distribution

#: probability that a sum over a support may leave out
_TAIL = 1e-13
#: points of a support at most
_MOST_POINTS = 1 << 20
#: values held at once
_AT_ONCE = 1 << 21
#: a probability that is none
_NOTHING = 1e-60
#: what a sum over a support may miss 1 by
_WHOLE = 1e-8
#: a sum over an interval runs over t from and to here: nearer to its upper end numbers are equal
_WITHIN = (-5.7, 3.5)
#: a sum over half of the reals runs over x = centre + scale exp(sinh(t) / 4), t from and to here,
#: in so many steps
_REACH, _STEPS = (-7.78, 6.17), 481


class Likelihood(Metric, abc.ABC):
    """A distortion -log p(x | theta), in nats, of a decoder that gives theta.

    Attributes:
        parameters: names of the parameters, in their order; empty where their number varies.
    """

    parameters: ClassVar[tuple[str, ...]] = ()
    likelihood = True

    @abc.abstractmethod
    def distribution(self, theta: Tensor) -> Distribution:
        """Return the distribution of each input, ``theta (B, P, *shape)`` to ``(B, *shape)``."""

    def log_prob(self, x: Tensor, theta: Tensor) -> Tensor:
        """Log p of each input, ``(B, *shape)``."""
        found: Tensor = self.distribution(theta).log_prob(x)
        return found

    def distortion(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """Return -log p(x | theta) of each sample, ``(B,)``, nats."""
        return -self.log_prob(x, x_hat).flatten(1).sum(1)

    def by_input(self, x: Tensor, theta: Tensor) -> Tensor:
        """Parts of the distortion by input, ``(B, *shape)``, which sum to it."""
        return -self.log_prob(x, theta)

    def own_distortion(self, x: Tensor) -> Tensor:
        """Zero: a likelihood is no distance, and has no least value to subtract."""
        return x.new_zeros(len(x))

    def mean_of(self, theta: Tensor) -> Tensor:
        """Mean of the distribution, the decoded sample, ``(B, *shape)``."""
        mean: Tensor = self.distribution(theta).mean
        return mean

    def fisher(self, theta: Tensor) -> Tensor:
        """Fisher information of each input's parameters, ``(B, P, P, *shape)``."""
        return self.summed_fisher(theta)

    def tensor_action(self, theta: Tensor, v: Tensor) -> Tensor:
        """Half the Fisher information times v, ``(..., B, P, *shape)``."""
        import torch

        flat = v.flatten(v.ndim - theta.ndim + 2) if theta.ndim > 2 else v[..., None]
        matrix = self.fisher(theta)
        matrix = matrix.flatten(3) if matrix.ndim > 3 else matrix[..., None]
        found: Tensor = 0.5 * torch.einsum("bpqm,...bqm->...bpm", matrix, flat)
        return found.reshape(v.shape)

    def divergence(self, theta: Tensor, other: Tensor) -> Tensor:
        """KL(theta || other) of each sample, ``(B,)``, nats, summed where torch knows none."""
        import torch

        try:
            pair = (self.distribution(theta), self.distribution(other))
            found: Tensor = torch.distributions.kl_divergence(*pair)
        except NotImplementedError:
            found = self.summed_divergence(theta, other)
        return found.flatten(1).sum(1)

    def log_normaliser(self, beta: float, input_size: int) -> float | None:
        """Return 0 where beta is 1: exp(-D) is a density then; None elsewhere."""
        return 0.0 if abs(beta - 1) < 1e-9 else None

    # ------------------------------------------------------------------ sums over the support

    def summed_fisher(self, theta: Tensor) -> Tensor:
        """Covariance of the score over the support, ``(B, P, P, *shape)``."""
        import torch

        rows, unfold = _elements(theta)
        parts = []
        for part in self._blocks(rows):
            x, weight = self._support(part)
            with torch.enable_grad():
                at = part.expand(len(x), *part.shape).detach().requires_grad_()
                logs = self.log_prob(x.flatten(), at.flatten(0, 1)).reshape(x.shape)
                (score,) = torch.autograd.grad(logs.sum(), at)
            p = _mass(logs.detach(), weight)
            self._require_whole(p)
            score = torch.where(p[..., None] > 0, score, 0.0)
            mean = torch.einsum("se,sep->ep", p, score)
            second = torch.einsum("se,sep,seq->epq", p, score, score)
            parts.append(second - mean[:, :, None] * mean[:, None, :])
        found: Tensor = unfold(torch.cat(parts), 2).to(theta.dtype)
        return found

    def summed_divergence(self, theta: Tensor, other: Tensor) -> Tensor:
        """KL divergence of each input, ``(B, *shape)``, summed over the support of theta's."""
        import torch

        (rows, unfold), (others, _) = _elements(theta), _elements(other)
        parts, start = [], 0
        for part in self._blocks(rows):
            x, weight = self._support(part)
            mine = self._logs(x, part)
            theirs = self._logs(x, others[start : start + len(part)])
            p = _mass(mine, weight)
            self._require_whole(p)
            parts.append(torch.where(p > 0, p * (mine - theirs), 0.0).sum(0))
            start += len(part)
        found: Tensor = unfold(torch.cat(parts), 0).to(theta.dtype)
        return found

    def _logs(self, x: Tensor, theta: Tensor) -> Tensor:
        """Log p of points ``(S, E)`` under parameters ``(E, P)``."""
        every = theta.expand(len(x), *theta.shape).flatten(0, 1)
        return self.log_prob(x.flatten(), every).reshape(x.shape)

    def _blocks(self, rows: Tensor) -> list[Tensor]:
        """Elements in blocks whose supports fit at once."""
        points = len(self._support(rows[:1])[0])
        size = max(1, _AT_ONCE // (points * rows.shape[1]))
        return [rows[start : start + size] for start in range(0, len(rows), size)]

    def _support(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Points ``(S, E)`` and weights of a sum over the support of ``theta (E, P)``."""
        import torch

        p: Any = self.distribution(theta)
        if p.has_enumerate_support:
            points: Tensor = p.enumerate_support()
            return points, torch.ones_like(points)
        if p.support.is_discrete:
            return self._whole_numbers(theta)
        low, high = (getattr(p.support, f"{end}_bound", None) for end in ("lower", "upper"))
        if high is not None:  # x = low + (high - low) / (1 + exp(-2 sinh t))
            t = torch.linspace(*_WITHIN, _STEPS, dtype=torch.float64).to(theta)
            share = (2 * t.sinh()).sigmoid()
            weight = 2 * t.cosh() * share * (-2 * t.sinh()).sigmoid() * (t[1] - t[0])
            points = (low + (high - low) * share[:, None]).expand(-1, len(theta))
            return points, ((high - low) * weight[:, None]).expand(-1, len(theta))
        t = torch.linspace(*_REACH, _STEPS, dtype=torch.float64).to(theta)
        far = (t.sinh() / 4).exp()[:, None]
        step = far * (t.cosh() / 4 * (t[1] - t[0]))[:, None]
        centre, scale = _place(p, theta)
        if low is not None:
            return low + (centre - low) * far, (centre - low) * step
        # from the centre to both sides: a density may have an edge there
        points = torch.cat([centre - scale * far, centre + scale * far])
        return points, scale * torch.cat([step, step])

    def _require_whole(self, p: Tensor) -> None:
        """Refuse probabilities ``(S, E)`` that do not sum to one."""
        off = float((p.sum(0) - 1).abs().max())
        if not off < _WHOLE:
            raise MetricError(
                f"likelihood '{self.name}': the sum over its support misses 1 by {off:.1g}, so "
                "nothing is taken from it; give it fisher(theta) and divergence(theta, other)"
            )

    def _whole_numbers(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """0, 1, 2 ... as far as any probability is left."""
        import torch

        count = 64
        while count <= _MOST_POINTS:
            x = torch.arange(count, dtype=theta.dtype, device=theta.device)[:, None]
            x = x.expand(count, len(theta))
            logs = self._logs(x, theta)
            last = logs[-1].exp() * count  # more than what follows, where it falls
            if bool((1 - logs.exp().sum(0) < 1e-9).all()) and bool((last < _TAIL).all()):
                return x, torch.ones_like(x)
            count *= 2
        raise MetricError(
            f"likelihood '{self.name}': more than {_MOST_POINTS:,} values carry probability; its "
            "Fisher information is not summed over so many"
        )


def _mass(logs: Tensor, weight: Tensor) -> Tensor:
    """Probability at points; none where so little is left that a density may give no number."""
    import torch

    found = logs.exp() * weight
    return torch.where(found > _NOTHING, found, 0.0)


def _place(p: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Where each of ``(E,)`` distributions lies and how wide it is, by what it tells of itself."""
    centre, scale = getattr(p, "loc", None), getattr(p, "scale", None)
    if centre is not None and scale is not None and getattr(p.support, "lower_bound", None) is None:
        return centre, scale
    try:
        centre, scale = p.mean, p.stddev
        if bool(centre.isfinite().all() and scale.isfinite().all()):
            return centre, scale
    except NotImplementedError:
        pass
    low, middle, high = (p.icdf(like.new_full((len(like),), q)) for q in (0.25, 0.5, 0.75))
    return middle, (high - low) / 1.35


def _elements(theta: Tensor) -> tuple[Tensor, Any]:
    """Parameters of each input in double precision, ``(E, P)``, and the way back."""
    batch, count, shape = theta.shape[0], theta.shape[1], theta.shape[2:]
    rows = theta.detach().double().movedim(1, -1).reshape(-1, count)

    def unfold(values: Tensor, axes: int) -> Tensor:
        found = values.reshape(batch, *shape, *values.shape[1:])
        for _ in range(axes):
            found = found.movedim(-1, 1)
        return found

    return rows, unfold
