"""Run ``isoprobe train anomaly``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from isoprobe.cli import options as shared
from isoprobe_trainers.commands import options

if TYPE_CHECKING:
    from isoprobe_trainers.commands.options import Place


@shared.command(
    "The anomaly detectors of Section 5.3.",
    "isoprobe train anomaly thyroid --data-root data --quick --seeds 5",
    "isoprobe train anomaly kddcup99 --resume     20 seeds, the full schedule",
)
@click.argument(
    "name",
    metavar="DATASET",
    type=click.Choice(options.TABLES),
)
@shared.count(
    "--seeds", default=20, help="How many models, from seed 0 on; each has a split of its own."
)
@click.option("--quick", is_flag=True, help="The part of the schedule that takes minutes.")
@click.option("--fraction", type=float, help="Of the epochs of the paper's schedule. [default: 1]")
@click.option("--lr", type=float, help="Adam's rate. [default: 1e-4]")
@click.option("--cosine", is_flag=True, help="Let the rate fall to 0 along a half cosine.")
@click.option(
    "--reduction",
    type=click.Choice(["sum", "mean"]),
    help="Distortions summed or averaged over the inputs. [default: the recipe's]",
)
@options.placed("runs/anomaly")
def anomaly(
    *,
    name: str,
    seeds: int,
    quick: bool,
    fraction: float | None,
    lr: float | None,
    cosine: bool,
    reduction: str | None,
    place: Place,
) -> None:
    """Train the models of one data set together, on normal rows alone.

    A model is kept at every tenth of the schedule, and the one with the least objective on held-out
    normal rows is taken. Prints the path of each; progress goes to stderr.
    """
    from dataclasses import replace

    from isoprobe_trainers.anomaly.recipes import recipe_of, short
    from isoprobe_trainers.anomaly.train import train

    full = recipe_of(name)
    recipe = (
        short(full)
        if quick and fraction is None
        else full.at(1.0 if fraction is None else fraction)
    )
    recipe = replace(
        recipe,
        reduction=reduction or recipe.reduction,
        rate=recipe.rate if lr is None else lr,
        cosine=cosine or recipe.cosine,
    )
    for path in train(recipe, range(seeds), place.out, place.device, **place.files):
        click.echo(path)
