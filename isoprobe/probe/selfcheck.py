"""Measure what a model that knows the mean input alone would reach."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from isoprobe.theory.stated import stated

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Metric

#: with fewer inputs their mean lies too close to each of them to be compared with
FEW = 16
#: inputs that the comparison is made on
SAMPLES = 512


@stated("Verdict")
def mean_input_distortion(metric: Metric, x: Tensor, least: int = FEW) -> float | None:
    """Distortion of a model that knows nothing but the mean input.

    A reconstruction that is no better codes nothing, or comes from weights read in the wrong way.

    Args:
        metric: the distortion.
        x: inputs, ``(N, *input_shape)``.
        least: how few inputs are too few.

    Returns:
        The mean over inputs of D(x, mean of the other inputs), in units of the metric; None for
        too few inputs.
    """
    count = len(x)
    if count < max(least, 2) or metric.likelihood:  # parameters of no model are not a mean input
        return None
    with torch.no_grad():
        others = (x.sum(0, keepdim=True) - x) / (count - 1)
        return float(metric.distortion(x, others).double().mean())
