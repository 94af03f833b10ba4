"""Cost of all n norms against n + 1 plain decoder passes, beside the usual ways to a Jacobian.

Run it with ``python -m benchmarks.bench_pullback [--repeats N] [--threads K]``. Ways take turns in
one process; times are CPU time of this process, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import jacfwd, jacrev, jvp, vmap

from benchmarks.measuring import Work, cpu_seconds, in_turns, peak_mib, ratio
from benchmarks.networks import Shape, shapes
from isoprobe.contracts import VAE
from isoprobe.derivatives.exact import exact_pullback, finite_difference_pullback
from isoprobe.derivatives.memory import plan
from isoprobe.derivatives.metric_tensor import OutputMetric
from isoprobe.derivatives.quicker import quickest_route
from isoprobe_plugins.metrics.square import SumSquaredError

_MEMORY = 1 << 30
#: reverse mode takes one pass for each output: it is timed on this many samples, and scaled
_FEW = 2


def ways(shape: Shape, z: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Ways to the squared norms of all columns, ``(B, n)``, by name; ``plain`` decodes once."""
    decode = shape.decoder
    output = tuple(decode(z[:1]).shape[1:])
    view = OutputMetric(SumSquaredError(), decode, logits=False)
    route = quickest_route(view, z[:2])
    vae = VAE(decode, None, output, (shape.latents,), module=decode)
    sizes = plan(vae, decode, _MEMORY, route=route)

    def plain() -> Tensor:
        with torch.inference_mode():
            return decode(z)

    def ours(*, gram: bool = False) -> Tensor:
        return exact_pullback(
            view, z, gram=gram, chunk=sizes.chunk, block=sizes.block, route=route
        ).diagonal

    def forward_mode() -> Tensor:
        return _squares(vmap(jacfwd(lambda v: decode(v[None])[0]))(z))

    def loop() -> Tensor:
        directions = torch.eye(shape.latents)[:, None].expand(-1, *z.shape)
        tangents = [jvp(decode, (z,), (v.contiguous(),))[1] for v in directions]
        return torch.stack([t.flatten(1).square().sum(1) for t in tangents], dim=1)

    every: dict[str, Callable[[], Tensor]] = {
        "plain": plain,
        "isoprobe": ours,
        "isoprobe, with Gram": lambda: ours(gram=True),
        "vmap(jacfwd)": forward_mode,
        "jvp loop": loop,
        "finite differences": lambda: finite_difference_pullback(view, z).diagonal,
    }
    layered = stochman_form(decode)
    if layered is not None:
        every["stochman nnj"] = lambda: _squares(layered(z, jacobian=True)[1])
    return every


def stochman_form(decoder: nn.Module) -> Any:
    """The decoder in stochman's layers with the same weights; None where there is no such form."""
    try:
        from stochman import nnj  # type: ignore[import-not-found]
    except ImportError:
        return None
    if not isinstance(decoder, nn.Sequential):
        return None
    layers = []
    for layer in decoder:
        kind = getattr(nnj, type(layer).__name__, None)
        if isinstance(layer, nn.Unflatten):
            layers.append(nnj.Reshape(*layer.unflattened_size))
        elif isinstance(layer, nn.Linear) and kind is not None:
            layers.append(kind(layer.in_features, layer.out_features))
        elif isinstance(layer, nn.ConvTranspose2d) and kind is not None:
            layers.append(kind(layer.in_channels, layer.out_channels, 4, 2, 1))
        elif kind is not None:
            layers.append(kind())
        else:
            return None
    same = nnj.Sequential(*layers)
    same.load_state_dict(decoder.state_dict())
    return same.eval().requires_grad_(False)


def reverse_modes(decode: nn.Module, z: Tensor) -> dict[str, Work]:
    """Ways that take a pass for each output."""
    columns = partial(torch.autograd.functional.jacobian, lambda v: decode(v[None])[0])
    return {
        "vmap(jacrev)": lambda: _squares(
            vmap(jacrev(lambda v: decode(v[None])[0], chunk_size=256))(z)
        ),
        "autograd.functional.jacobian": lambda: _squares(torch.stack([columns(v) for v in z])),
    }


def _squares(jacobian: Tensor) -> Tensor:
    return jacobian.flatten(1, -2).square().sum(1)


def measure(shape: Shape, repeats: int) -> Iterator[str]:
    """Time one shape.

    Yields:
        Rows of a Markdown table.
    """
    shape.decoder.eval().requires_grad_(requires_grad=False)
    z = torch.randn(shape.batch, shape.latents, generator=torch.Generator().manual_seed(0))
    each = ways(shape, z)
    times = in_turns(each, repeats)
    plain = statistics.median(times["plain"])
    unit = plain * (shape.latents + 1)
    exact = _exact(shape.decoder, z)
    peak = _mib(peak_mib(each["plain"]))
    yield f"| {shape.name} | plain pass of {shape.batch} | {plain * 1e3:.2f} ms | | {peak} |"
    for name, way in each.items():
        if name != "plain":
            error = ((way().double() - exact) / exact).abs().max()
            yield (
                f"| | {name} | {ratio(times[name], unit)} | {error:.1e} | {_mib(peak_mib(way))} |"
            )
    if torch.get_num_threads() > 1:
        return  # minutes of what one thread has shown
    for name, way in reverse_modes(shape.decoder, z[:_FEW]).items():
        few = cpu_seconds(way) * shape.batch / _FEW
        yield f"| | {name}, {_FEW} samples scaled | {few / unit:.0f} | | |"


def _mib(peak: float | None) -> str:
    return "" if peak is None else f"{peak:.0f}"


def _exact(decode: nn.Module, z: Tensor) -> Tensor:
    view = OutputMetric(SumSquaredError(), decode.double(), logits=False)
    exact = exact_pullback(view, z.double(), block=8).diagonal
    decode.float()
    return exact


def report(repeats: int, threads: int) -> Iterator[str]:
    """The whole table in Markdown.

    Yields:
        The next line.
    """
    torch.set_num_threads(threads)
    yield f"## All n squared norms of a batch, {threads} thread{'s' if threads > 1 else ''}"
    yield ""
    yield (
        "In units of n + 1 plain passes of the same decoder in inference mode; error of the worst"
        " norm relative to float64; peak resident memory beyond what was there before."
    )
    yield ""
    yield "| decoder | way | cost / (n + 1) plain passes | error | peak, MiB |"
    yield "|---|---|---|---|---|"
    for shape in shapes():
        yield from measure(shape, repeats)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    for line in report(arguments.repeats, arguments.threads):
        print(line, flush=True)


if __name__ == "__main__":
    main()
