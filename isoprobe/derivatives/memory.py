"""Plan how many samples and tangents go at once, by what the decoder holds and a limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from isoprobe.derivatives.watched import watchable

if TYPE_CHECKING:
    from torch import Tensor, nn

    from isoprobe.contracts import VAE
    from isoprobe.derivatives.routes import Route

MAX_BATCH = 512
#: fewer at once would leave threads idle in the small layers
MIN_BATCH = 32
#: live copies of the widest layer: its input, its output, the convolution's own reordering of both
_COPIES = 4
#: bytes of the widest layer's tangents that stay near the processor: dense layers are fastest there
#: (of 20-200-450-784 with twice as many: 1.15 x the time)
_CACHE = 5 << 19
#: a convolution wants this many images at once, up to so many bytes; beyond that it goes through
#: main memory and fresh pages, at 1.6 x the time
_ROWS, _IMAGES = 512, 16 << 20
#: bytes of the widest layer that a forward and a backward pass go through fastest, which hold
#: every layer at once; a whole batch of 3x64x64 images takes 1.6 x the time, most of it fresh pages
_WALK_CACHE = 2 << 20
_LEAST_WALK = 8
#: rows that go forwards alone at once at most: with twice as many their layers leave what is near a
#: processor, at 1.2 to 1.3 x the time, with half as many what a batch costs is felt
_FORWARDS, _FORWARDS_ELSEWHERE = 4096, 8192
#: numbers a sample holds for each latent, beside the decoder's: random draws, and what the
#: analyses keep in double precision, measured at n = 16,384
_PER_LATENT = 64
#: the same for each pair of latents, where all products are wanted, measured at n = 250
_PER_PAIR = 14
#: part of the limit that the tensors may fill: of memory that was freed the allocator keeps up to a
#: third of what is held (measured with its thresholds at 0: 49 MiB for 62)
_FILLED = 0.75
#: bytes a latent takes whatever the limit: sums by group of samples as they are, as a shard writes
#: and as the summary reads them, and what lies between; measured at n = 4,090 and 16,380, at most
_SUMS = 12 << 10


@dataclass(frozen=True)
class Plan:
    """Sizes that keep the pullback within the memory limit.

    Attributes:
        batch: samples at once.
        block: samples of a batch whose tangents are pushed at once.
        chunk: tangents of one sample pushed at once.
        walk: samples of a batch that go forwards and backwards at once.
        width: widest layer of the decoder, numbers a sample.
    """

    batch: int
    block: int
    chunk: int
    walk: int
    width: int


@dataclass(frozen=True)
class Footprint:
    """What one decoding of one sample holds.

    Attributes:
        widest: numbers in the widest layer.
        inner: numbers in the widest that is not the output's size.
        total: numbers in all layers together, as a backward pass keeps them.
    """

    widest: int
    inner: int
    total: int


def plan(
    vae: VAE,
    decode: Callable[[Tensor], Tensor],
    memory: int,
    batch_size: int | None = None,
    *,
    gram: bool = False,
    route: Route | None = None,
) -> Plan:
    """Choose batch, block and chunk sizes.

    Args:
        vae: the model; its modules are watched in one trial decoding.
        decode: the decoder in the space the metric uses.
        memory: limit in bytes of what the derivatives add to the process at their peak.
        batch_size: fixed by the user, or None.
        gram: all n columns of a sample are kept at once.
        route: to all columns; one that pushes tangents through every layer when None.

    Returns:
        Sizes of at least one sample and one tangent, even where those exceed the limit.
    """
    n = vae.latent_size
    footprint = decoder_footprint(vae, decode)
    number = torch.empty((), dtype=vae.dtype).element_size()
    budget = max((int(memory * _FILLED) - _SUMS * n) // number, 1)
    length = vae.input_size if route is None or route.length is None else route.length
    widest = footprint.widest if length == vae.input_size else max(footprint.inner, length)
    row = _COPIES * widest
    # Half for the batch, whose activations a backward pass keeps twice, half for the tangents.
    sample = 2 * footprint.total + _PER_LATENT * n + (_PER_PAIR * n * n if gram else 0)
    rows, batch = max(budget // 2 // row, 1), budget // 2 // sample
    if vae.device.type == "cpu":
        batch = min(batch, max(_cached_rows(footprint.widest * number), MIN_BATCH))
        rows = min(rows, _cached_rows(widest * number))
        walk = max(_WALK_CACHE // (footprint.widest * number), _LEAST_WALK)
    else:
        walk = batch
    batch = batch_size or _between(1, batch, MAX_BATCH)
    chunk = min(rows, n)
    block = rows // n
    if route is not None and route.by_rows:  # all columns come at once, whatever the block
        chunk, block = n, min(walk, budget // 2 // (_COPIES * n * length))
    if gram:
        kept = 2 * n * length + 3 * n * n
        block = min(block, budget // 2 // kept)
    return Plan(batch, _between(1, block, batch), chunk, _between(1, walk, batch), footprint.widest)


def _cached_rows(row_bytes: int) -> int:
    """Tangents of ``row_bytes`` in their widest layer that a processor pushes fastest at once."""
    return max(_CACHE // row_bytes, min(_ROWS, _IMAGES // row_bytes), 1)


def _between(low: int, value: int, high: int) -> int:
    return int(max(low, min(value, high)))


def rows_forwards(vae: VAE, memory: int, decode: Callable[[Tensor], Tensor] | None = None) -> int:
    """Rows at once that take ``memory`` bytes at most where nothing is differentiated.

    Args:
        vae: the model.
        memory: limit in bytes.
        decode: its decoder in the space that is wanted; as it gives its output when None.

    Returns:
        How many, at least one.
    """
    width = max(decoder_width(vae, decode or vae.anywhere().decode), vae.input_size)
    number = torch.empty((), dtype=vae.dtype).element_size()
    most = _FORWARDS if vae.device.type == "cpu" else _FORWARDS_ELSEWHERE
    return max(1, min(memory // (_COPIES * width * number), most))


def decoder_width(vae: VAE, decode: Callable[[Tensor], Tensor]) -> int:
    """Largest number of values any module of the decoder holds for one sample."""
    return decoder_footprint(vae, decode).widest


def decoder_footprint(vae: VAE, decode: Callable[[Tensor], Tensor]) -> Footprint:
    """Watch one decoding of one sample, module by module."""
    widest, inner = max(vae.input_size, vae.latent_size), vae.latent_size
    total = vae.input_size + vae.latent_size

    def watch(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal widest, inner, total
        for value in (*inputs, output):
            if isinstance(value, torch.Tensor):
                widest = max(widest, value.numel())
                inner = max(inner, value.numel() if value.numel() != vae.input_size else 0)
        if isinstance(output, torch.Tensor) and not any(module.children()):
            total += output.numel()

    handles = [part.register_forward_hook(watch) for part in watchable(vae.module).values()]
    try:
        with torch.no_grad():
            decode(torch.zeros(1, vae.latent_size, dtype=vae.dtype, device=vae.device))
    finally:
        for handle in handles:
            handle.remove()
    return Footprint(widest, inner, max(total, 2 * widest))
