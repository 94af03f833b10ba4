"""Run ``isoprobe demo``: a first look, with a model and images that come with isoprobe."""

from __future__ import annotations

from pathlib import Path

import click

from isoprobe.cli import options as shared
from isoprobe.hookspecs import hookimpl

FOLDER = Path(__file__).resolve().parents[1] / "demo"
MODEL, IMAGES = FOLDER / "model.safetensors", FOLDER / "images.npz"


@shared.command(
    "A first look: analyse a model that comes with isoprobe.",
    "isoprobe demo",
    "isoprobe demo --report first.html --overwrite",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.html",
    default=Path("isoprobe-demo.html"),
    show_default=True,
    help="Write the report here.",
)
@shared.overwriting("report")
@shared.as_json
def demo(*, report: Path, overwrite: bool, as_json: bool) -> None:
    """Analyse a small VAE of clothes (Fashion-MNIST) and write its report.

    Needs no files and no network. Ends with the command that does the same by hand.
    """
    from isoprobe.api import analyze
    from isoprobe.cli.analyze import REPORTED_ANALYSES
    from isoprobe.contracts import DEFAULT_ANALYSES
    from isoprobe.results.whole import check_place
    from isoprobe.show import report as pages

    check_place(report, overwrite=overwrite, inputs=(MODEL, IMAGES))
    by_hand = f"isoprobe analyze {MODEL} --data {IMAGES}:x --report {report}"
    with analyze(
        MODEL,
        f"{IMAGES}:x",
        analyses=(*DEFAULT_ANALYSES, *REPORTED_ANALYSES),
        progress=True,
        command=by_hand,
    ) as result:
        pages.write(pages.render(result), report, overwrite=overwrite)
        shared.show(result, as_json=as_json)
    click.echo(f"\nThe report is {report.resolve()}\nThe same by hand: {by_hand}", err=True)


@hookimpl
def isoprobe_commands() -> list[click.Command]:
    """Return the commands of this module."""
    return [demo]
