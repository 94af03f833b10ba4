"""Compute many small networks of one shape as batched matrices; tanh has a backward pass by hand.

Every tensor has the member as its first axis, and no operation mixes members, so that a member of
an ensemble computes what it would compute alone. The backward pass is written out because, at these
sizes, the time goes into tanh and into badly shaped matrix products rather than into arithmetic.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: slope of leaky ReLU: torch's own, which the paper does not state
_SLOPE = 0.01
_TWO_LOG2_E = 2 / math.log(2)
#: inputs of a layer up to which its weight gradient is quicker transposed (CPU)
_NARROW = 8


class BatchedMLP(nn.Module):
    """E multilayer perceptrons with tanh between linear layers, in ``nn.Linear``'s layout.

    Args:
        widths: layer widths from input to output.
        generators: one for each member, in the state from which its weights are to be drawn.
        device: where the parameters live.
    """

    def __init__(
        self,
        widths: Sequence[int],
        generators: Sequence[torch.Generator],
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        weights, biases = [], []
        for inputs, outputs in pairwise(widths):
            # member by member, so that each draws the same numbers in any company
            drawn = [_uniform_layer(inputs, outputs, g) for g in generators]
            weights.append(nn.Parameter(torch.stack([w for w, _ in drawn]).to(device)))
            biases.append(nn.Parameter(torch.stack([b for _, b in drawn]).to(device)))
        self.weights = nn.ParameterList(weights)
        self.biases = nn.ParameterList(biases)

    def forward(self, x: Tensor) -> Tensor:
        """Apply member e to ``x[e]``: ``(E, B, widths[0]) -> (E, B, widths[-1])``."""
        apply: Callable[..., Tensor] = _TanhLayers.apply
        return apply(x, *self.weights, *self.biases)

    def member(self, index: int) -> list[tuple[Tensor, Tensor]]:
        """Weight ``(out, in)`` and bias ``(out,)`` of each layer of one member."""
        return [
            (w[index].detach().clone(), b[index, 0].detach().clone())
            for w, b in zip(self.weights, self.biases, strict=True)
        ]


class LeakyMLP(BatchedMLP):
    """The same networks with leaky ReLU between linear layers."""

    def forward(self, x: Tensor) -> Tensor:
        """Apply member e to ``x[e]``: ``(E, B, widths[0]) -> (E, B, widths[-1])``."""
        *hidden, (weight, bias) = zip(self.weights, self.biases, strict=True)
        for w, b in hidden:
            x = leaky_relu(torch.baddbmm(b, x, w.mT), _SLOPE, inplace=True)
        return torch.baddbmm(bias, x, weight.mT)


NETWORKS: Mapping[str, type[BatchedMLP]] = {"tanh": BatchedMLP, "leaky_relu": LeakyMLP}


def _uniform_layer(inputs: int, outputs: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw weight ``(out, in)`` and bias ``(1, out)`` from U(-1/sqrt(in), 1/sqrt(in))."""
    bound = 1 / math.sqrt(inputs)
    weight = torch.empty(outputs, inputs).uniform_(-bound, bound, generator=generator)
    bias = torch.empty(1, outputs).uniform_(-bound, bound, generator=generator)
    return weight, bias


class _TanhLayers(torch.autograd.Function):
    """Linear layers with tanh between them; saves each layer's input and nothing else."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Tensor) -> Tensor:
        depth = len(parameters) // 2
        weights, biases = parameters[:depth], parameters[depth:]
        inputs = [x]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            inputs.append(_tanh_(torch.bmm(inputs[-1], weight.mT).add_(bias)))
        ctx.save_for_backward(*inputs, *weights)
        return torch.bmm(inputs[-1], weights[-1].mT).add_(biases[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        depth = len(ctx.saved_tensors) // 2
        inputs, weights = ctx.saved_tensors[:depth], ctx.saved_tensors[depth:]
        by_weight: list[Tensor] = []
        by_bias: list[Tensor] = []
        for layer in reversed(range(depth)):
            by_weight.append(_weight_gradient(gradient, inputs[layer]))
            by_bias.append(gradient.sum(1, keepdim=True))
            if layer > 0:
                arriving = torch.bmm(gradient, weights[layer])
                gradient = torch.ops.aten.tanh_backward(arriving, inputs[layer])
        by_x = torch.bmm(gradient, weights[0]) if ctx.needs_input_grad[0] else None
        return (by_x, *reversed(by_weight), *reversed(by_bias))


def _weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    """Sum over the batch of gradient x', ``(E, out, in)``."""
    if x.shape[2] <= _NARROW:
        return torch.bmm(x.mT, gradient).mT.contiguous()
    return torch.bmm(gradient.mT, x)


def _tanh_(u: Tensor) -> Tensor:
    """Return tanh of u, computed in place.

    On the CPU as 1 - 2 / (2^(2u/ln 2) + 1), which is 3 times as fast as ``torch.tanh`` and within
    2e-7 of it; an overflow to infinity gives the right limit 1.
    """
    if u.device.type != "cpu" or u.dtype != torch.float32:
        return u.tanh_()
    u.mul_(_TWO_LOG2_E).exp2_().add_(1).reciprocal_()
    return torch.mul(u, -2, out=u).add_(1)
