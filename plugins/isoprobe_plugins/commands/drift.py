"""Run ``isoprobe drift``: whether new rows are still those of a reference."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from isoprobe.cli import options as shared
from isoprobe.hookspecs import hookimpl
from isoprobe.run.settings import ScoreSettings

ORDER = (*shared.LOADING, *shared.ROWS, *shared.MACHINE)


@shared.command(
    "Whether new rows are still those of a reference, and what moved.",
    "isoprobe drift m.safetensors --data new.csv --reference normal.h5",
    "isoprobe drift m.safetensors --data 'new.csv:keep=day' --reference normal.h5 --time day "
    "--block 500 --plot drift.svg",
)
@shared.against_reference("The new rows, as they came.")
@shared.count("--block", metavar="N", help="Rows compared at once. [default: all]", least=30)
@click.option(
    "--time", metavar="COLUMN", help="Column that says when, as --data F.csv:keep=COLUMN."
)
@click.option(
    "--level",
    type=float,
    default=0.01,
    show_default=True,
    help="Chance at most of an alarm in the whole run if nothing drifted.",
)
@shared.written(
    "--plot",
    metavar="F.svg",
    help="Draw p-values and what moved most, by block: .svg, .png or .pdf.",
)
@shared.overwriting("plot")
@shared.own_class
@shared.class_arguments
@shared.from_settings(ScoreSettings, *ORDER)
@shared.as_json
def drift(
    *,
    model: Path,
    data: str,
    reference: Path,
    block: int | None,
    time: str | None,
    level: float,
    plot: Path | None,
    overwrite: bool,
    options: tuple[str, ...],
    own_class: str | None,
    class_arguments: tuple[str, ...],
    as_json: bool,
    **settings: Any,
) -> None:
    """Compare new rows with a reference, block by block, and name what moved.

    Scores are compared as a whole, inputs and latents by their means; the level is shared among all
    comparisons. Says whether to refit the reference or the model.
    """
    from isoprobe.registry.specs import parse_options
    from isoprobe.results.whole import check_place, replacing
    from isoprobe.run import drift as watching

    if plot is not None:
        check_place(plot, overwrite=overwrite, inputs=(model, reference))
    settings |= {"options": parse_options(options, of="--option")}
    shared.with_class(settings, own_class, class_arguments)
    found = watching.drift(
        model,
        data,
        reference,
        block=block,
        time=time,
        level=level,
        progress=not as_json,
        **settings,
    )
    for note in found.notes:
        click.echo(note, err=True)
    if as_json:
        click.echo(json.dumps(found.document(), indent=2, allow_nan=False))
    else:
        for line in found.lines():
            click.echo(line)
    if plot is not None:
        from isoprobe.show.plots.drifts import draw

        with replacing(plot) as partial:
            draw(found, partial, plot.suffix.removeprefix("."))


@hookimpl
def isoprobe_commands() -> list[click.Command]:
    """Return ``drift``."""
    return [drift]
