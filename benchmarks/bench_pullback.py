"""Cost of all n norms against n + 1 plain decoder passes, beside the usual ways to a Jacobian.

Run it with ``python benchmarks/bench_pullback.py [--repeats N] [--write FILE]``. Ways take turns in
one process; times are CPU time of this process, so that other work on the machine counts little.
"""

from __future__ import annotations

import argparse
import itertools
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import jacfwd, jacrev, jvp, vmap

from isoprobe.contracts import VAE
from isoprobe.memory import plan
from isoprobe.pullback import exact_pullback, finite_difference_pullback
from isoprobe.routes import choose_route
from isoprobe.tensors import OutputMetric
from isoprobe_plugins.metrics.square import SumSquaredError

_MEMORY = 1 << 30
#: reverse mode takes one pass for each output: it is timed on this many samples, and scaled
_FEW = 2


@dataclass(frozen=True)
class Shape:
    """A decoder to time.

    Attributes:
        name: in words.
        decoder: the untrained network.
        latents: n.
        batch: samples at once.
    """

    name: str
    decoder: nn.Module
    latents: int
    batch: int


def mlp(*widths: int) -> nn.Module:
    """Linear layers with softplus between."""
    layers: list[nn.Module] = []
    for start, stop in itertools.pairwise(widths):
        layers += [nn.Linear(start, stop), nn.Softplus()]
    return nn.Sequential(*layers[:-1])


def burgess(latents: int, channels: int) -> nn.Module:
    """The decoder of Burgess et al. (2018) for 64 x 64 pixels."""
    layers: list[nn.Module] = []
    for start, stop in ((latents, 256), (256, 256), (256, 512)):
        layers += [nn.Linear(start, stop), nn.ReLU()]
    layers.append(nn.Unflatten(1, (32, 4, 4)))
    for _ in range(3):
        layers += [nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(32, channels, 4, 2, 1))


def shapes() -> Iterator[Shape]:
    """The four shapes of the speed bars.

    Yields:
        The next shape.
    """
    yield Shape("MLP 3-128-64-16", mlp(3, 128, 64, 16), 3, 512)
    yield Shape("MLP 32-1024-1024-784", mlp(32, 1024, 1024, 784), 32, 256)
    yield Shape("conv n = 10, 1x64x64", burgess(10, 1), 10, 64)
    yield Shape("conv n = 32, 3x64x64", burgess(32, 3), 32, 32)


def ways(shape: Shape, z: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Ways to the squared norms of all columns, ``(B, n)``, by name; ``plain`` decodes once."""
    decode = shape.decoder
    output = tuple(decode(z[:1]).shape[1:])
    sizes = plan(VAE(decode, None, output, (shape.latents,), module=decode), decode, _MEMORY)
    view = OutputMetric(SumSquaredError(), decode, logits=False)
    route = choose_route(decode, z[:2])

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

    return {
        "plain": plain,
        "isoprobe": ours,
        "isoprobe, with Gram": lambda: ours(gram=True),
        "vmap(jacfwd)": forward_mode,
        "jvp loop": loop,
        "finite differences": lambda: finite_difference_pullback(view, z).diagonal,
    }


def reverse_mode(decode: nn.Module, z: Tensor) -> Tensor:
    """Squared norms by vmap(jacrev)."""
    return _squares(vmap(jacrev(lambda v: decode(v[None])[0], chunk_size=256))(z))


def _squares(jacobian: Tensor) -> Tensor:
    return jacobian.flatten(1, -2).square().sum(1)


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of one call, all threads of the process together."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(shape: Shape, repeats: int) -> Iterator[str]:
    """Time one shape.

    Yields:
        Rows of a Markdown table.
    """
    shape.decoder.eval().requires_grad_(requires_grad=False)
    z = torch.randn(shape.batch, shape.latents, generator=torch.Generator().manual_seed(0))
    each = ways(shape, z)
    times: dict[str, list[float]] = {name: [] for name in each}
    for _ in range(repeats + 1):
        for name, way in each.items():
            times[name].append(cpu_seconds(way))
    unit = statistics.median(times["plain"][1:]) * (shape.latents + 1)
    exact = _exact(shape.decoder, z)
    yield f"| {shape.name} | plain pass | {unit / (shape.latents + 1) * 1e3:.2f} ms | |"
    for name, way in each.items():
        if name != "plain":
            ratios = [t / unit for t in times[name][1:]]
            error = ((way().double() - exact) / exact).abs().max()
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
            yield f"| | {name} | {statistics.median(ratios):.2f} ({spread}) | {error:.1e} |"
    few = cpu_seconds(lambda: reverse_mode(shape.decoder, z[:_FEW])) * shape.batch / _FEW
    yield f"| | vmap(jacrev), {_FEW} samples scaled | {few / unit:.0f} | |"


def _exact(decode: nn.Module, z: Tensor) -> Tensor:
    view = OutputMetric(SumSquaredError(), decode.double(), logits=False)
    exact = exact_pullback(view, z.double(), block=8).diagonal
    decode.float()
    return exact


def report(repeats: int) -> Iterator[str]:
    """The whole table in Markdown.

    Yields:
        The next line.
    """
    yield "# Benchmarks"
    yield ""
    yield (
        "All n squared norms of a batch, in units of n + 1 plain passes of the same decoder in"
        " inference mode:"
    )
    yield (
        f"medians of {repeats} interleaved repeats with their range, CPU time,"
        f" {torch.get_num_threads()} thread(s), float32, torch {torch.__version__},"
        f" {platform.machine()}. Other programs were running: CPU time excludes them, but caches"
        " are shared. The error is relative to float64. `make bench` makes this page."
    )
    yield ""
    yield "| decoder | way | cost / (n + 1) plain passes | error |"
    yield "|---|---|---|---|"
    for shape in shapes():
        yield from measure(shape, repeats)


def main() -> None:
    """Measure, print, and write the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="FILE.md")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    lines = []
    for line in report(arguments.repeats):
        print(line, flush=True)
        lines.append(line)
    if arguments.write is not None:
        arguments.write.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
