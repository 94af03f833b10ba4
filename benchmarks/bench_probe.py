"""``--pullback probe`` against the exact pullback: error, coverage, and cost for any n.

Run it with ``python -m benchmarks.bench_probe [--samples N]``.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

import isoprobe
from benchmarks.measuring import in_turns, ratio
from benchmarks.networks import CELEBA, DIGITS, FACES, digits, mlp, trained
from isoprobe.data.batches import prepare
from isoprobe.derivatives.exact import exact_pullback
from isoprobe.derivatives.memory import plan
from isoprobe.derivatives.metric_tensor import OutputMetric, output_metric
from isoprobe.derivatives.routes import choose_route
from isoprobe.derivatives.sampled import (
    column_pullback,
    drawn_columns,
    random_pullback,
    sign_pullback,
)
from isoprobe.registry.lookup import installed
from isoprobe.run.opening import open_data
from isoprobe.statistics.draws import signs
from isoprobe_plugins.analyses.isometry import assisted_means, covariates
from isoprobe_plugins.metrics.square import SumSquaredError

if TYPE_CHECKING:
    from isoprobe.contracts import VAE

_SIZES = (16, 256, 4096, 16_384)
_REPETITIONS = 200


class Pooled(nn.Module):
    """A decoder whose work does not depend on its number of latents: groups are averaged first."""

    def __init__(self) -> None:
        super().__init__()
        self.bulk = mlp(16, 1024, 1024, 784)

    def forward(self, z: Tensor) -> Tensor:
        """``z (B, n) -> (B, 784)``."""
        return self.bulk(z.unflatten(1, (16, -1)).sin().mean(2))


@dataclass(frozen=True)
class Known:
    """What the exact pullback and both estimates give, ``(N, n)`` each, as norms times beta.

    Attributes:
        mean: posterior mean.
        std: posterior deviation.
        exact: 2 sigma^2 g_jj.
        by_signs: the same from random signs.
        by_columns: the same from random columns, zero where none was drawn.
    """

    mean: np.ndarray
    std: np.ndarray
    exact: np.ndarray
    by_signs: np.ndarray
    by_columns: np.ndarray


def known(vae: VAE, spec: str | np.ndarray, samples: int) -> Known:
    """Compute all of it for a model."""
    metric = installed().metric(vae.facts.metric or "sse")
    data = prepare(open_data(installed(), spec, vae, []), vae, samples=samples, metric=metric)
    view, n = output_metric(metric, vae), vae.latent_size
    sizes = plan(vae, view.decode, 1 << 30)
    route = choose_route(view.decode, torch.zeros(2, n))
    rows = []
    for start in range(0, data.samples, sizes.batch):
        index = np.arange(start, min(start + sizes.batch, data.samples))
        x, _ = data.batch(start, int(index[-1]) + 1, "cpu", torch.float32)
        with torch.no_grad():
            posterior = vae.encode(x) if vae.encode else None
        if posterior is None:
            raise TypeError("a benchmark model has an encoder")
        z, std = posterior.mean, posterior.std
        drawn = torch.from_numpy(signs(0, "pullback", index, n)).float()
        columns = torch.from_numpy(drawn_columns(0, index, n))
        exact = exact_pullback(view, z, chunk=sizes.chunk, block=sizes.block, route=route)
        few = column_pullback(view, z, std, columns, route, sizes.block * sizes.chunk)
        one = sign_pullback(view, z, std, drawn, route)[1]
        scaled = (2 * std.square() * g for g in (exact.diagonal, one, few.diagonal))
        rows.append([t.double().numpy() for t in (z, std, *scaled)])
    return Known(*(np.concatenate(column) for column in zip(*rows, strict=True)))


def errors(found: Known) -> Iterator[tuple[str, np.ndarray]]:
    """Relative error of each latent's mean norm, ``(n,)``, by each way.

    Yields:
        The way and its errors.
    """
    truth = found.exact.mean(axis=0)
    fitted, _ = _fit(found, np.arange(len(found.exact)), 0)
    yield "random signs", found.by_signs.mean(axis=0) / truth - 1
    yield "random columns, plain means", found.by_columns.mean(axis=0) / truth - 1
    yield "random columns with the fit", fitted / truth - 1


def _fit(found: Known, rows: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean norms and their errors from the columns that these samples draw."""
    n = found.exact.shape[1]
    seen = np.zeros((len(rows), n), dtype=bool)
    np.put_along_axis(seen, drawn_columns(seed, np.arange(len(rows)), n), True, axis=1)
    means = assisted_means(n)
    values = np.stack([found.exact[rows]] * 2, axis=2)
    means.update(covariates(found.mean[rows], found.std[rows]), seen, values)
    value, error = means.means()
    return value[:, 0], error[:, 0]


def coverage(found: Known, samples: int) -> float:
    """Share of 95 % intervals that hold the mean, over latents and repeated samples."""
    truth, held = found.exact.mean(axis=0), []
    for seed in range(_REPETITIONS):
        rows = np.random.default_rng(seed).integers(0, len(found.exact), samples)
        value, error = _fit(found, rows, seed)
        held.append(np.abs(value - truth) <= 1.96 * error)
    return float(np.mean(held))


def cost(repeats: int) -> Iterator[str]:
    """Time a batch for several n.

    Yields:
        Rows of a Markdown table.
    """
    decoder = Pooled().eval().requires_grad_(requires_grad=False)
    view = OutputMetric(SumSquaredError(), decoder, logits=False)
    for n in _SIZES:
        z = torch.randn(64, n, generator=torch.Generator().manual_seed(0))
        route = choose_route(decoder, z[:2])
        index, std = np.arange(len(z)), torch.full_like(z, 0.5)

        probed = partial(random_pullback, view, z, std, index, seed=0, route=route)
        times = in_turns({"plain": partial(_decode, decoder, z), "probe": probed}, repeats)
        unit = float(np.median(times["plain"]))
        way = "columns" if n <= 64 else "signs"
        milliseconds = 1e3 * float(np.median(times["probe"])) / len(z)
        yield f"| {n:,} | {way} | {ratio(times['probe'], unit)} | {milliseconds:.2f} |"


def _decode(decoder: nn.Module, z: Tensor) -> Tensor:
    with torch.inference_mode():
        output: Tensor = decoder(z)
        return output


def report(samples: int, repeats: int = 7) -> Iterator[str]:
    """The section in Markdown.

    Yields:
        The next line.
    """
    yield "## `--pullback probe`"
    yield ""
    yield (
        "Cost of a batch of 64 in plain passes of the same decoder (16-1024-1024-784 behind the"
        " mean over groups of latents), and a sample's CPU time:"
    )
    yield ""
    yield "| latents | way | plain passes | ms a sample |"
    yield "|---|---|---|---|"
    yield from cost(repeats)
    yield ""
    yield (
        f"Error of each latent's mean norm against the exact one over the same samples, and the"
        f" share of 95 % intervals that hold the truth in {_REPETITIONS} repetitions:"
    )
    yield ""
    yield "| model | samples | way | root mean square | worst latent |"
    yield "|---|---|---|---|---|"
    covered = []
    for name, vae, spec in models():
        found = known(vae, spec, samples)
        for way, error in errors(found):
            square, worst = np.sqrt(np.mean(error**2)), np.abs(error).max()
            yield f"| {name} | {len(found.exact):,} | {way} | {square:.2%} | {worst:.2%} |"
        few = len(found.exact) // 5
        covered.append(f"{coverage(found, few):.1%} ({name}, {few:,} samples)")
    yield ""
    yield f"Coverage: {', '.join(covered)}."


def models() -> Iterator[tuple[str, VAE, str | np.ndarray]]:
    """Networks with data, those whose files lie beside the checkout.

    Yields:
        Name, model and data.
    """
    if DIGITS.is_file():
        images = digits()
        yield "784-1024-1024-32 on MNIST, lightly trained", trained(images), images
    if CELEBA.is_dir() and FACES.is_file():
        yield "VAE_celeba (disentangling-vae)", isoprobe.load(CELEBA), str(FACES)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10_000)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for line in report(arguments.samples):
        print(line, flush=True)


if __name__ == "__main__":
    main()
