"""The whole ``analyze`` against its decoder passes alone, and against encoding and decoding once.

Run it with ``python -m benchmarks.bench_analyze [--samples N]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

import isoprobe
from benchmarks.measuring import in_turns, peak_mib, ratio
from benchmarks.networks import digits, trained

if TYPE_CHECKING:
    from isoprobe.contracts import VAE

_BATCH = 512


def decoder_passes(vae: VAE, samples: int) -> None:
    """Decode every sample n + 1 times: what the exact pullback needs at least."""
    decode = vae.decode_logits or vae.decode
    z = torch.randn(_BATCH, vae.latent_size)
    with torch.inference_mode():
        for start in range(0, samples, _BATCH):
            for _ in range(vae.latent_size + 1):
                decode(z[: samples - start])


def reconstruct(vae: VAE, rows: np.ndarray) -> None:
    """Encode and decode every row once."""
    if vae.encode is None:
        raise TypeError("a benchmark model has an encoder")
    with torch.inference_mode():
        for start in range(0, len(rows), _BATCH):
            vae.decode(vae.encode(torch.from_numpy(rows[start : start + _BATCH])).mean)


def report(samples: int, repeats: int = 3) -> Iterator[str]:
    """The section in Markdown.

    Yields:
        The next line.
    """
    images = digits()
    rows, vae = images[:samples], trained(images)

    def analyze(pullback: str) -> None:
        isoprobe.analyze(
            vae, rows, analyses=["isometry", "importance"], device="cpu", pullback=pullback
        ).close()

    peak = peak_mib(lambda: analyze("exact"))
    ways = {
        "passes": lambda: decoder_passes(vae, samples),
        "once": lambda: reconstruct(vae, rows),
        "exact": lambda: analyze("exact"),
        "probe": lambda: analyze("probe"),
    }
    times = in_turns(ways, repeats)
    unit = float(np.median(times["passes"]))
    yield "## The whole of `analyze`"
    yield ""
    yield (
        f"Isometry and importance of {samples:,} MNIST images, 784-1024-1024-32, one thread,"
        " default options, in units of the n + 1 = 33 decoder passes a sample that the exact"
        " pullback needs. Beside it a run holds four decodings with their gradient (stationarity),"
        " two more (distortion), one encoding, statistics, and writing the result."
    )
    yield ""
    yield "| work | cost / (n + 1) plain passes | samples a CPU second |"
    yield "|---|---|---|"
    names = {
        "once": "encode and decode once",
        "exact": "analyze",
        "probe": "analyze, `--pullback probe`",
    }
    for way, name in names.items():
        rate = samples / float(np.median(times[way]))
        yield f"| {name} | {ratio(times[way], unit)} | {rate:,.0f} |"
    if peak is not None:
        yield ""
        yield f"Memory that `analyze` adds at its peak, `--memory` 1 GiB: {peak:.0f} MiB."


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for line in report(arguments.samples, arguments.repeats):
        print(line, flush=True)


if __name__ == "__main__":
    main()
