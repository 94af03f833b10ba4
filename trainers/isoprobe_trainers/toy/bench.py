"""Measure the throughput of toy training in model-steps per second: one by one, and together.

Run as ``python -m isoprobe_trainers.toy.bench``. Figures depend on the machine; the ratio is the
point.
"""

from __future__ import annotations

import time

import click
import torch

from isoprobe_trainers.common.tables import render
from isoprobe_trainers.common.training import Schedule, pick_device
from isoprobe_trainers.toy.members import Member
from isoprobe_trainers.toy.train import Ensemble

_DATA = "toy/mix:seed=0,samples={}"


def throughput(members: int, batch: int, steps: int, device: torch.device) -> float:
    """Measure model-steps per second of an ensemble.

    Args:
        members: size of the ensemble.
        batch: rows of a step.
        steps: steps to time, after as many to warm up.
        device: where to train.

    Returns:
        Members times steps, over seconds.
    """
    data = _DATA.format(steps * batch)
    models = [Member(data, seed=seed) for seed in range(members)]
    ensemble = Ensemble(models, Schedule(2, batch), device)
    ensemble.run_epoch(0)
    begun = time.perf_counter()
    ensemble.run_epoch(1)  # reads the losses, and so waits for the device
    return members * steps / (time.perf_counter() - begun)


@click.command()
@click.option("--device", default="auto", show_default=True)
@click.option(
    "--size",
    "sizes",
    type=click.IntRange(min=1),
    multiple=True,
    default=(1, 2, 5, 15, 90),
    show_default=True,
    help="Models of an ensemble; the first size is what others are compared with.",
)
@click.option("--steps", type=click.IntRange(min=1), default=60, show_default=True)
def main(device: str, sizes: tuple[int, ...], steps: int) -> None:
    """Print the throughput of ensembles beside that of a model alone."""
    place = pick_device(device)
    rows = []
    for batch in (128, 256):
        rates = [throughput(size, batch, steps, place) for size in sizes]
        for size, rate in zip(sizes, rates, strict=True):
            rows.append([f"{size}", f"{batch}", f"{rate:.0f}", f"{rate / rates[0]:.2f}"])
    click.echo(f"{place}, {torch.get_num_threads()} threads, float32, {steps} steps")
    click.echo(render(["models", "batch", "model-steps/s", "to one by one"], rows))


if __name__ == "__main__":
    main()
