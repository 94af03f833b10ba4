"""``isoprobe train mnist``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import click

from isoprobe.cli.examples import examples
from isoprobe_trainers.commands import options

if TYPE_CHECKING:
    from isoprobe_trainers.commands.options import Place


@click.command(
    short_help="The VAEs of Appendix F, on MNIST or Fashion-MNIST.",
    epilog=examples(
        "isoprobe train mnist --data-root data",
        "isoprobe train mnist --latents 64 --lam 10000 --resume",
        "isoprobe train mnist --data fashion-mnist --iterations 5000 --device cuda",
    ),
)
@click.option(
    "--data",
    type=click.Choice(["mnist", "fashion-mnist"]),
    default="mnist",
    show_default=True,
    help="Which images; 50,000 are trained on.",
)
@click.option("--latents", type=click.IntRange(min=1), default=32, show_default=True)
@click.option(
    "--lam",
    type=float,
    default=2000.0,
    show_default=True,
    help="Weight of the cross entropy averaged over pixels; beta = 784 / lam.",
)
@click.option("--iterations", type=click.IntRange(min=1), default=50_000, show_default=True)
@options.rate
@options.decay
@options.seed
@options.placed("runs/mnist", shares=True)
def mnist(
    *,
    data: str,
    latents: int,
    lam: float,
    iterations: int,
    lr: float,
    decay: float,
    seed: int,
    place: Place,
) -> None:
    """Train a dense VAE on images of 28 x 28 pixels; prints the path of the checkpoint."""
    from isoprobe.errors import OptionError
    from isoprobe_trainers.images.mnist import digits_run, train_digits

    if not lam > 0:
        raise OptionError(f"--lam must be a positive number; found {lam:g}")
    run = replace(digits_run(data, latents, lam, iterations, seed), rate=lr, decay=decay)
    place.say(train_digits(run, place.out, place.device, **place.files))
