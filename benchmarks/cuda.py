"""Cost and error of the pullback on a card, in units of plain decoder passes.

Run it with ``python -m benchmarks.cuda [--repeats N]``; without a card it says so and stops. Times
are of the card, between events, ways in turns; errors are against float64 on the same card.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor

from benchmarks.measuring import ratio
from benchmarks.networks import Shape, shapes
from isoprobe.contracts import VAE
from isoprobe.derivatives.exact import exact_pullback
from isoprobe.derivatives.memory import plan
from isoprobe.derivatives.metric_tensor import OutputMetric
from isoprobe.derivatives.routes import Route, choose_route
from isoprobe.derivatives.sampled import random_pullback
from isoprobe_plugins.metrics.square import SumSquaredError

_MEMORY = 1 << 30
_ROUNDS = 5
_HEAD = """# The pullback on a card

Written by `python -m benchmarks.cuda`: the diagonal of J' G J exactly, the whole Gram, and
the sampled diagonal, for the square error, in units of n + 1 plain passes of the same decoder in
inference mode; the largest error of the exact diagonal relative to float64. With TF32 the matrix
units round inputs to 10 bits: that saves little here and costs three to five digits. Derivatives
then differ from reverse mode by more than `isoprobe` accepts when it chooses how to differentiate
a decoder. Since these figures were taken, it differentiates without TF32, whatever is allowed.
"""
NO_CARD = "there is no card that torch can use; nothing was measured"

Ways = Mapping[str, Callable[[], Tensor]]


def ways(shape: Shape, z: Tensor, route: Route) -> Ways:
    """Ways to the diagonal ``(B, n)`` by name; ``plain`` decodes once, ``Gram`` gives all of it."""
    decode = shape.decoder
    output = tuple(decode(z[:1]).shape[1:])
    vae = VAE(decode, None, output, (shape.latents,), module=decode)
    sizes = plan(vae, decode, _MEMORY)
    view = OutputMetric(SumSquaredError(), decode, logits=False)
    exact = partial(exact_pullback, view, z, chunk=sizes.chunk, block=sizes.block, route=route)
    std, index = torch.full_like(z, 0.1), np.arange(len(z))

    def plain() -> Tensor:
        with torch.inference_mode():
            return decode(z)

    return {
        "plain": plain,
        "diagonal": lambda: exact().diagonal,
        "Gram": lambda: exact(gram=True).diagonal,
        "sampled": lambda: random_pullback(view, z, std, index, seed=0, route=route).diagonal,
    }


def milliseconds(each: Ways, repeats: int) -> dict[str, list[float]]:
    """Time of one call of each way on the card, taken in turns after rounds that do not count."""
    times: dict[str, list[float]] = {name: [] for name in each}
    for turn in range(-2, repeats):
        for name, way in each.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(_ROUNDS):
                way()
            end.record()
            end.synchronize()
            if turn >= 0:
                times[name].append(start.elapsed_time(end) / _ROUNDS)
    return times


def exact_diagonal(shape: Shape, z: Tensor) -> Tensor:
    """The diagonal in float64."""
    view = OutputMetric(SumSquaredError(), shape.decoder.double(), logits=False)
    diagonal = exact_pullback(view, z.double(), block=8).diagonal
    shape.decoder.float()
    return diagonal


def measure(shape: Shape, repeats: int, device: torch.device) -> Iterator[str]:
    """Time one shape with and without TF32.

    Yields:
        Rows of a Markdown table.
    """
    shape.decoder.to(device).eval().requires_grad_(requires_grad=False)
    drawn = torch.randn(shape.batch, shape.latents, generator=torch.Generator().manual_seed(0))
    z = drawn.to(device)
    exact = exact_diagonal(shape, z)
    route = choose_route(shape.decoder, z[:2])
    for name, allowed in (("off", False), ("on", True)):
        _allow_tf32(allowed=allowed)
        each = ways(shape, z, route)
        times = milliseconds(each, repeats)
        plain = statistics.median(times.pop("plain"))
        cells = [ratio(times[way], plain * (shape.latents + 1)) for way in times]
        error = ((each["diagonal"]().double() - exact) / exact).abs().max()
        yield (
            f"| {shape.name}, {shape.batch} samples | {name} | {plain:.3f} ms | "
            f"{' | '.join(cells)} | {error:.1e} |"
        )


def _allow_tf32(*, allowed: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed


def report(repeats: int, device: torch.device) -> Iterator[str]:
    """The page in Markdown.

    Yields:
        The next line.
    """
    yield _HEAD
    yield f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}; medians and ranges."
    yield ""
    yield "| decoder | TF32 | plain pass | diagonal | Gram | sampled | error of the diagonal |"
    yield "|---|---|---|---|---|---|---|"
    for shape in shapes():
        yield from measure(shape, repeats, device)


def main() -> None:
    """Measure and print, or say that there is no card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print(NO_CARD)
        return
    for line in report(arguments.repeats, torch.device("cuda")):
        print(line, flush=True)


if __name__ == "__main__":
    main()
