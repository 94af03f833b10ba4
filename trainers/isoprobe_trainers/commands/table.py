"""Run ``isoprobe train table``."""

from __future__ import annotations

from pathlib import Path

import click

from isoprobe.cli import options as shared
from isoprobe_trainers.commands import options


@shared.command(
    "A VAE of a table of your own, for scores.",
    "isoprobe train table data.csv",
    "isoprobe train table 'data.csv:label=odd;id=patient' --normal 0 --out runs/ward",
    "isoprobe analyze runs/table/data.safetensors --data runs/table/data.reference.csv "
    "--analysis anomaly --out reference.h5",
    "isoprobe score runs/table/data.safetensors --data new.csv --reference reference.h5",
)
@click.argument("data", metavar="FILE[:columns=A,B;label=C;id=D]")
@click.option(
    "--normal",
    default="0",
    show_default=True,
    metavar="LABEL",
    help="Label of the rows to train on, where a label column is named.",
)
@click.option(
    "--reference",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.25,
    show_default=True,
    metavar="SHARE",
    help="Of these rows, left out of the training and written as a reference.",
)
@options.seed
@options.out("runs/table", "the checkpoint and the rows left out")
@shared.overwriting("files", several=True)
def table(
    *, data: str, normal: str, reference: float, seed: int, out: Path, overwrite: bool
) -> None:
    """Train a VAE on the rows of a CSV, TSV or Parquet file.

    Numbers are standardised, text columns are categories; the checkpoint keeps how, so that analyze
    and score take the file as it is. Latents and beta are those of the linear VAE that rows left
    out prefer, and the training starts there. Prints the path of the checkpoint.
    """
    from isoprobe_trainers.table.train import train

    out.mkdir(parents=True, exist_ok=True)
    found = train(data, out, seed=seed, normal=normal, reference=reference, overwrite=overwrite)
    for line in found.said:
        click.echo(line, err=True)
    if found.reference is not None:
        click.echo(f"rows left out, for a reference: {found.reference}", err=True)
    click.echo(found.checkpoint)
