"""Run ``isoprobe train``: one subcommand for each of the paper's experiments."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import click

from isoprobe.cli import options as shared
from isoprobe.cli.examples import examples
from isoprobe.hookspecs import hookimpl
from isoprobe_trainers.commands import options
from isoprobe_trainers.commands.anomaly import anomaly
from isoprobe_trainers.commands.celeba import celeba
from isoprobe_trainers.commands.mnist import mnist
from isoprobe_trainers.commands.table import table

if TYPE_CHECKING:
    from isoprobe_trainers.commands.options import Place


@click.group(
    short_help="Train on a table of your own, or a model of the paper's experiments.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def train() -> None:
    """Train a model, of your own table or the paper's, into a checkpoint that describes itself."""


@train.command(
    short_help="The toy VAEs of Section 5.1 and Appendix D.",
    epilog=examples(
        "isoprobe train toy --quick --out runs/toy",
        "isoprobe train toy --data toy/ramp:seed=1 --metric upward --lam 50 --latents 5",
        "isoprobe train toy --lam 10 --lam 100 --seed 0 --seed 1     four models, trained as one",
    ),
)
@click.option(
    "--data",
    metavar="SPEC",
    multiple=True,
    default=("toy/mix:seed=0",),
    show_default=True,
    help="toy/mix, toy/ramp or toy/norm, as in toy/mix:seed=3,samples=20000,dim=32.",
)
@shared.choice(
    "--metric",
    among=("sse", "downward", "upward"),
    multiple=True,
    default=("sse",),
    help="Distortion, summed over the inputs.",
)
@click.option(
    "--lam",
    type=float,
    multiple=True,
    default=(100.0,),
    show_default=True,
    help="Weight of the distortion beside the KL; beta = 1 / lam.",
)
@shared.count("--latents", multiple=True, default=(3,), help="Latent size n.")
@shared.choice(
    "--objective",
    among=("plain", "decomposed", "radogaga"),
    multiple=True,
    default=("plain",),
    help="E D(x, x_hat); D(x, x_check) + E D(x_check, x_hat); or constant noise, learned prior.",
)
@shared.count("--seed", multiple=True, default=(0,), help="Of weights, order and noise.", least=0)
@click.option("--quick", is_flag=True, help="120 epochs of batch 256, the rate on a half cosine.")
@shared.count("--epochs", help="[default: 500; 120 with --quick]")
@shared.count("--batch-size", help="[default: 128; 256 with --quick]")
@click.option(
    "--decay",
    type=click.FloatRange(0, 1),
    metavar="SHARE",
    help="Last share of the epochs in which the rate falls to 0. [default: 0.1; 1 with --quick]",
)
@click.option("--lr", type=float, help="Adam's rate. [default: 1e-3; 2e-3 with --quick]")
@options.compile_step
@options.placed("runs/toy", reads=False)
def toy(
    *,
    data: tuple[str, ...],
    metric: tuple[str, ...],
    lam: tuple[float, ...],
    latents: tuple[int, ...],
    objective: tuple[str, ...],
    seed: tuple[int, ...],
    quick: bool,
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    decay: float | None,
    compile_step: bool,
    place: Place,
) -> None:
    """Train toy VAEs: every combination of the options given more than once, in one program.

    Prints the path of each checkpoint; progress goes to stderr.
    """
    from isoprobe_trainers.common.training import Schedule
    from isoprobe_trainers.toy.members import Member
    from isoprobe_trainers.toy.train import FULL, QUICK
    from isoprobe_trainers.toy.train import train as train_toy

    base = QUICK if quick else FULL
    schedule = Schedule(
        epochs=epochs or base.epochs,
        batch=batch_size or base.batch,
        lr=base.lr if lr is None else lr,
        decay=base.decay if decay is None else decay,
    )
    combinations = product(data, metric, lam, seed, latents, objective)
    members = [Member(*combination) for combination in combinations]
    for path in train_toy(
        members, schedule, place.out, place.device, compile_step=compile_step, **place.files
    ):
        click.echo(path)


for _command in (anomaly, celeba, mnist, table):
    train.add_command(_command)


#: public names that this command brings to ``isoprobe``, and their homes
train.brings = {"Detector": "isoprobe_trainers.table.detector"}  # type: ignore[attr-defined]


@hookimpl
def isoprobe_commands() -> list[click.Command]:
    """Return ``train``."""
    return [train]
