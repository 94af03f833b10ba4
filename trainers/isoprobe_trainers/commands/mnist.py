"""Run ``isoprobe train mnist``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from isoprobe.cli import options as shared
from isoprobe_trainers.commands import options

if TYPE_CHECKING:
    from isoprobe_trainers.commands.options import Place


@shared.command(
    "The VAEs of Appendix F, on MNIST or Fashion-MNIST.",
    "isoprobe train mnist --data-root data",
    "isoprobe train mnist --latents 64 --lam 10000 --resume",
    "isoprobe train mnist --data fashion-mnist --iterations 5000 --device cuda",
)
@shared.choice(
    "--data",
    among=("mnist", "fashion-mnist"),
    default="mnist",
    help="Which images; 50,000 are trained on.",
)
@shared.count("--latents", default=32)
@click.option(
    "--lam",
    type=float,
    default=2000.0,
    show_default=True,
    help="Weight of the cross entropy averaged over pixels; beta = 784 / lam.",
)
@shared.count(
    "--width", multiple=True, default=(1024, 1024), help="Units of a hidden layer, one option each."
)
@shared.count("--batch-size", default=256)
@shared.count("--iterations", default=50_000)
@options.rate
@options.decay
@options.seed
@options.placed("runs/mnist", shares=True)
def mnist(
    *,
    data: str,
    latents: int,
    lam: float,
    width: tuple[int, ...],
    batch_size: int,
    iterations: int,
    lr: float,
    decay: float,
    seed: int,
    place: Place,
) -> None:
    """Train a dense VAE on images of 28 x 28 pixels; prints the path of the checkpoint."""
    from isoprobe.errors import OptionError
    from isoprobe_trainers.images.train import digits, digits_run, train

    if not lam > 0:
        raise OptionError(f"--lam must be a positive number; found {lam:g}")
    run = digits_run(data, latents, lam, iterations, seed, batch=batch_size, widths=width)
    run = replace(run, rate=lr, decay=decay)
    rows, count = digits(run, place.device)
    place.say(train(run, rows, count, place.out, place.device, **place.files))
