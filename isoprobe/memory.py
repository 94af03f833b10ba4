"""How many samples and tangents at once: planned from the decoder's widest layer and a limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isoprobe.contracts import VAE

MAX_BATCH = 512
#: live copies of the widest layer: its input, its output, and one temporary, primal and tangent
_COPIES = 4


@dataclass(frozen=True)
class Plan:
    """Sizes that keep the pullback within the memory limit.

    Attributes:
        batch: samples at once.
        chunk: tangents at once.
        width: widest layer of the decoder, numbers a sample.
    """

    batch: int
    chunk: int
    width: int


def plan(
    vae: VAE,
    decode: Callable[[Tensor], Tensor],
    memory: int,
    batch_size: int | None = None,
    *,
    gram: bool = False,
) -> Plan:
    """Choose batch and chunk sizes.

    Args:
        vae: the model; its modules are watched in one trial decoding.
        decode: the decoder in the space the metric uses.
        memory: limit in bytes for the tangents alive at once.
        batch_size: fixed by the user, or None.
        gram: all n columns are kept at once.

    Returns:
        Sizes of at least one sample and one tangent.
    """
    n = vae.latent_size
    width = decoder_width(vae, decode)
    number = torch.empty((), dtype=vae.dtype).element_size()
    kept = n * vae.input_size + n * n if gram else 0
    per_tangent = _COPIES * width
    # A batch that fits with up to 64 tangents at once keeps the shared primal pass cheap.
    budget = max(memory // number, 1)
    fits = budget // (kept + per_tangent * min(n, 64))
    batch = batch_size or int(min(max(fits, 1), MAX_BATCH))
    chunk = (budget // batch - kept) // per_tangent
    return Plan(batch, int(min(max(chunk, 1), n)), width)


def decoder_width(vae: VAE, decode: Callable[[Tensor], Tensor]) -> int:
    """Largest number of values any module of the decoder holds for one sample."""
    widest = max(vae.input_size, vae.latent_size)

    def watch(_module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal widest
        for value in (*inputs, output):
            if isinstance(value, torch.Tensor):
                widest = max(widest, value.numel())

    modules = list(vae.module.modules()) if vae.module is not None else []
    handles = []
    for module in modules:
        if isinstance(module, torch.jit.ScriptModule):
            continue
        handles.append(module.register_forward_hook(watch))
    try:
        with torch.no_grad():
            decode(torch.zeros(1, vae.latent_size, dtype=vae.dtype, device=vae.device))
    finally:
        for handle in handles:
            handle.remove()
    return widest
