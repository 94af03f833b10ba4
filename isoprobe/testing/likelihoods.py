"""Hold a likelihood to its laws: G is half the covariance of the score, divergences are sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from isoprobe.testing.compare import require_close
from isoprobe.testing.laws import Laws, law, require

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.theory.likelihood import Likelihood

_ROWS = 3
#: parameters of a likelihood that takes any number
_ANY = 4


class LikelihoodLaws(Laws):
    """A likelihood under test."""

    def __init__(self, metric: Likelihood, shapes: Sequence[tuple[int, ...]], seed: int) -> None:
        self.metric, self.shapes, self.seed = metric, shapes, seed

    def _cases(self) -> list[tuple[Tensor, Tensor]]:
        """Rows drawn from the likelihood, and parameters that are not theirs."""
        cases = []
        count = len(self.metric.parameters) or _ANY
        for shape in self.shapes:
            generator = torch.Generator().manual_seed(self.seed)
            size = (2 * _ROWS, count, *shape)
            theta = 0.7 * torch.randn(size, generator=generator, dtype=torch.float64)
            with torch.random.fork_rng([]):
                torch.manual_seed(self.seed)
                x = self.metric.distribution(theta[:_ROWS]).sample()
            cases.append((x.double(), theta[_ROWS:]))
        return cases

    @law("distortion gives one number a sample, the sum of its parts by input")
    def _one_number(self) -> None:
        for x, theta in self._cases():
            found = self.metric.distortion(x, theta)
            require(found.shape == (len(x),), f"distortion has shape {tuple(found.shape)}")
            require(bool(found.isfinite().all()), "distortion is not finite")
            parts = self.metric.by_input(x, theta)
            require(parts.shape == x.shape, f"parts by input have shape {tuple(parts.shape)}")
            require_close(parts.flatten(1).sum(1), found, 1e-9, "sum of the parts by input")

    @law("rows of a batch are independent, and the same inputs give the same distortion")
    def _rows(self) -> None:
        for x, theta in self._cases():
            whole = self.metric.distortion(x, theta)
            require(torch.equal(whole, self.metric.distortion(x, theta)), "two calls differ")
            alone = [self.metric.distortion(x[i : i + 1], theta[i : i + 1]) for i in range(len(x))]
            require_close(torch.cat(alone), whole, 1e-9, "distortion of a row by itself")

    @law("float32 agrees with float64")
    def _precision(self) -> None:
        for x, theta in self._cases():
            single = self.metric.distortion(x.float(), theta.float())
            require(single.dtype == torch.float32, f"distortion of float32 is {single.dtype}")
            require_close(single.double(), self.metric.distortion(x, theta), 1e-4, "in float32")

    @law("the metric tensor is half the covariance of the score")
    def _tensor(self) -> None:
        for _, theta in self._cases():
            count = theta.shape[1]
            units = torch.zeros(count, *theta.shape, dtype=theta.dtype)
            for p in range(count):
                units[p, :, p] = 1
            action: Callable[[Tensor, Tensor], Tensor] = self.metric.tensor_action
            diagonal = self.metric.diagonal
            found = action(theta, units) if diagonal is None else diagonal(theta) * units
            expected = 0.5 * self.metric.summed_fisher(theta)
            require_close(found.movedim(0, 2), expected, 1e-6, "G")

    @law("the divergence is its sum over the support, and 0 from itself")
    def _divergence(self) -> None:
        for _, theta in self._cases():
            other = theta.flip(0)
            expected = self.metric.summed_divergence(theta, other).flatten(1).sum(1)
            require_close(self.metric.divergence(theta, other), expected, 1e-6, "divergence")
            own = self.metric.divergence(theta, theta)
            require(bool((own.abs() < 1e-9).all()), f"the divergence from itself is {own.max():g}")
