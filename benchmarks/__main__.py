"""Everything that ``docs/benchmarks.md`` shows, measured anew: ``python -m benchmarks``.

With ``--write FILE`` the page goes there as well.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks import bench_analyze, bench_probe, bench_pullback
from benchmarks.measuring import shown

_LEFT_OUT = """## Tried, and left out

- Stacked tangents under `torch.compile` (inductor, one thread), on a loaded machine: written out
  for the network, since Dynamo does not trace tensors that carry their tangents. Conv n = 10:
  1.00 of n + 1 plain passes compiled and warm, 0.39 for `isoprobe` in the same turns, after 84 s
  of compiling. MLP 3-128-64-16: 0.57 and 0.66, after 36 s. So there is no `--compile`.
- Convolutions channels last alone on the way forwards and backwards (stationarity) and in the
  encoder, 128 images: VAE_mnist 36 ms and 36 ms, VAE_celeba 119 to 138 ms and 121 ms; encoders
  from 6 to 14 ms to 17 ms and from 57 to 63 ms to 52 to 60 ms. With a last layer to few channels
  as one product it is taken: 16 faces forwards and backwards in 16.2 ms (15.0 to 20.8) for 19.0
  (16.0 to 23.8), on a loaded machine."""


def page(samples: int) -> Iterator[str]:
    """The page in Markdown.

    Yields:
        The next line.
    """
    yield "# Benchmarks"
    yield ""
    yield (
        "CPU time, ways taken in turns in one process; medians with their range. Other programs may"
        " have been running: CPU time excludes them, but caches are shared."
        f" float32, torch {torch.__version__}, {platform.machine()}. `make bench` makes this page."
    )
    for threads in (1, 2):
        yield ""
        yield from bench_pullback.report(repeats=3, threads=threads)
    torch.set_num_threads(1)
    yield ""
    yield from bench_analyze.report(samples)
    yield ""
    yield from bench_probe.report(samples)
    yield ""
    yield _LEFT_OUT


def main() -> None:
    """Measure, print, and write the page where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--write", type=Path, metavar="FILE.md")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    shown(page(arguments.samples), arguments.write)


if __name__ == "__main__":
    main()
