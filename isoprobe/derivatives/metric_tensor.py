"""Apply the metric tensor G of a distortion, by a closed form or the Hessian, never dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch.func import grad, jvp, vmap

from isoprobe.errors import MetricError
from isoprobe.theory.likelihood import Likelihood

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from isoprobe.contracts import VAE, Metric


@dataclass(frozen=True)
class OutputMetric:
    """A metric seen from the decoder's output: its mean x_hat, or its logits where better.

    In logit space BCE's tensor is x (1 - x) / 2, finite where x itself saturates.

    Attributes:
        metric: the distortion.
        decode: ``z (B, n) -> output (B, *shape)``, the decoder in that space.
        logits: True when the output is logits.
        vae: the model whose rows the decoder is bound to; None where it takes any.
    """

    metric: Metric
    decode: Callable[[Tensor], Tensor]
    logits: bool
    vae: VAE | None = None

    def rows(self, where: slice | Tensor) -> OutputMetric:
        """The same for some of the rows, which each have a condition of their own."""
        return self if self.vae is None else output_metric(self.metric, self.vae.rows(where))

    def mean(self, output: Tensor) -> Tensor:
        """The decoded sample x_hat of an output."""
        if isinstance(self.metric, Likelihood):
            return self.metric.mean_of(output)
        return torch.sigmoid(output) if self.logits else output

    def distortion(self, x: Tensor, output: Tensor) -> Tensor:
        """D(x, x_hat) of each sample, ``(B,)``, in the metric's units."""
        if self.logits and self.metric.logits_distortion is not None:
            return self.metric.logits_distortion(x, output)
        return self.metric.distortion(x, output)

    def apart(self, reference: Tensor, output: Tensor) -> Tensor:
        """D(x_check, x_hat) of two outputs, ``(B,)``; of a likelihood's the KL divergence."""
        if isinstance(self.metric, Likelihood):
            return self.metric.divergence(reference, output)
        return self.distortion(self.mean(reference), output)

    def weights(self, output: Tensor) -> Tensor | None:
        """Diagonal of G where G is diagonal, broadcastable to the output, else None."""
        if self.logits and self.metric.logits_diagonal is not None:
            return self.metric.logits_diagonal(output)
        if self.metric.scale is not None:
            a_x = self.metric.scale(output)
            return a_x.reshape(-1, *[1] * (output.ndim - 1))
        if self.metric.diagonal is not None:
            return self.metric.diagonal(output)
        return None

    @property
    def flattened(self) -> Callable[[Tensor], Tensor] | None:
        """From the output to coordinates in which the metric is Euclidean, where it gives some."""
        return self.metric.logits_flattened if self.logits else self.metric.flattened

    def action(self, output: Tensor, v: Tensor) -> Tensor:
        """G v at the output, for ``v (..., B, *shape)`` with any leading tangent axis."""
        weights = self.weights(output)
        if weights is not None:
            return weights * v
        act = self.metric.tensor_action
        if act is None:
            act = hessian_action(self.metric)
        if v.ndim == output.ndim or self.metric.likelihood:
            return act(output, v)
        return vmap(lambda tangent: act(output, tangent))(v)


def output_metric(metric: Metric, vae: VAE) -> OutputMetric:
    """See ``metric`` from the outputs of ``vae``, in logits where both sides have them."""
    bound = None if vae.given is None else vae
    if metric.likelihood:
        if vae.decode_parameters is None or vae.likelihood != metric.name:
            found = f"those of '{vae.likelihood}'" if vae.likelihood else "a mean alone"
            raise MetricError(
                f"metric '{metric.name}' takes a decoder's parameters of that likelihood, and "
                f"{vae.name} gives {found}: use --metric {vae.likelihood or 'sse'}"
            )
        return OutputMetric(metric, vae.decode_parameters, logits=False, vae=bound)
    if vae.decode_logits is not None and metric.logits_distortion and metric.logits_diagonal:
        return OutputMetric(metric, vae.decode_logits, logits=True, vae=bound)
    return OutputMetric(metric, vae.decode, logits=False, vae=bound)


def hessian_action(metric: Metric) -> Callable[[Tensor, Tensor], Tensor]:
    """G x v as half the Hessian of D(x, .) at x, forward over reverse.

    Args:
        metric: any twice differentiable distortion.

    Returns:
        ``(x, v) -> G_x v``, all ``(B, *shape)`` (G from the second-order expansion of D).

    Raises:
        MetricError: when D has no second derivative at x.
    """
    require_tensor(metric)

    def action(x: Tensor, v: Tensor) -> Tensor:
        def gradient(x_hat: Tensor) -> Tensor:
            return grad(lambda y: metric.distortion(x, y).sum())(x_hat)  # type: ignore[no-any-return]

        return 0.5 * jvp(gradient, (x,), (v,))[1]  # type: ignore[no-any-return]

    return action


def require_tensor(metric: Metric) -> None:
    """Refuse what needs a metric tensor when there is none.

    Raises:
        MetricError: naming the reason and what still works.
    """
    if not metric.smooth:
        raise MetricError(
            f"metric '{metric.name}' has no second derivative at x_hat = x, so no metric tensor "
            "and no pullback norm; stationarity, rate and score still work "
            "(choose analyses that need no pullback, or a smooth metric)."
        )
