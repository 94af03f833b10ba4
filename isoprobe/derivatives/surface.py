"""Show a decoder and a metric to the geodesic solver as one surface."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from isoprobe.derivatives.exact import exact_pullback
from isoprobe.derivatives.quick_convolutions import QuickConvolutions
from isoprobe.derivatives.routes import choose_route
from isoprobe.theory.geodesics import Surface

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE
    from isoprobe.derivatives.memory import Plan
    from isoprobe.derivatives.metric_tensor import OutputMetric


def surface(view: OutputMetric, vae: VAE, beta: float, plan: Plan | None = None) -> Surface:
    """Put metric and decoder together.

    Args:
        view: metric and decoder.
        vae: the model, for its device and type.
        beta: KL weight, positive.
        plan: sizes of what is pushed at once; everything when None.

    Returns:
        The surface whose paths are measured by M = J'GJ + (beta/2) I. Where the metric gives
        coordinates in which it is Euclidean, arcs have their closed form; elsewhere G is taken at
        the middle of each segment.
    """
    trial = torch.zeros(2, vae.latent_size, dtype=vae.dtype, device=vae.device)
    route = choose_route(view.decode, trial)
    flat = view.flattened

    def decode(z: Tensor) -> Tensor:
        with route.kernels(), QuickConvolutions():
            output = view.decode(z.to(vae.device, vae.dtype))
            return output if flat is None else flat(output)

    def gram(z: Tensor) -> Tensor:
        found = exact_pullback(
            view,
            z.to(vae.device, vae.dtype),
            gram=True,
            chunk=plan.chunk if plan else None,
            block=plan.block if plan else None,
            route=route,
        ).gram
        if found is None:
            raise RuntimeError("a Gram was asked for and is missing")
        return found

    return Surface(decode, gram, beta / 2, None if flat is not None else view.action)
