"""Run ``isoprobe train celeba``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from isoprobe.cli import options as shared
from isoprobe_trainers.commands import options

if TYPE_CHECKING:
    from isoprobe_trainers.commands.options import Place


@shared.command(
    "The convolutional VAEs of Section 5.2, on CelebA.",
    "isoprobe train celeba --data-root data --device cuda",
    "isoprobe train celeba --decomposed --latents 256 --resume",
    "torchrun --nproc-per-node=4 -m isoprobe train celeba --data-root data",
    "isoprobe train celeba --size 32 --batch-size 32 --iterations 20000 --decay 0.3",
    "isoprobe train celeba --batch-size 16 --lr 3e-4 --iterations 3000     a small trial",
)
@shared.choice(
    "--latents",
    among=("32", "256"),
    default="32",
    help="Also sets lambda, 1000 or 10000, and the dense layers.",
)
@click.option("--decomposed", is_flag=True, help="Train on D(x, x_check) + D(x_check, x_hat).")
@shared.choice(
    "--size",
    among=("64", "32"),
    default="64",
    help="Side of the images; 32 takes means over 2 x 2 pixels.",
)
@shared.count("--channels", default=64)
@shared.count("--batch-size", default=64)
@shared.count("--iterations", default=300_000)
@shared.count("--samples", help="Images to train on. [default: all]")
@options.rate
@options.decay
@options.seed
@options.placed("runs/celeba", shares=True)
def celeba(
    *,
    latents: str,
    decomposed: bool,
    size: str,
    channels: int,
    batch_size: int,
    iterations: int,
    samples: int | None,
    lr: float,
    decay: float,
    seed: int,
    place: Place,
) -> None:
    """Train a VAE with GDN on faces; prints the path of the checkpoint.

    The folder of data files holds the official img_align_celeba and list_eval_partition.txt, or the
    archive celeba64_subset.zip.
    """
    from isoprobe_trainers.images.train import faces, faces_run, train

    run = faces_run(
        int(latents),
        decomposed=decomposed,
        size=int(size),
        channels=channels,
        iterations=iterations,
        batch=batch_size,
        seed=seed,
    )
    run = replace(run, rate=lr, decay=decay)
    rows, count = faces(run, place.device, samples)
    place.say(train(run, rows, count, place.out, place.device, **place.files))
