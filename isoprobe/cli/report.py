"""Run ``isoprobe report``: a result as one HTML page, or its figures as files."""

from __future__ import annotations

from pathlib import Path

import click

from isoprobe.cli import options as shared
from isoprobe.cli import types
from isoprobe.errors import ResultError

FORMATS = ("svg", "png", "pdf")


@shared.command(
    "Write a result as an HTML page, or its figures.",
    "isoprobe report result.h5",
    "isoprobe report result.h5 -o report.html --overwrite",
    "isoprobe report result.h5 --figures figures/ --format pdf",
    "isoprobe report result.h5 --figures figures/ --figure scree --figure norms",
    "isoprobe report result.h5 --latents latents.tex",
)
@click.argument("result", type=click.Path(path_type=Path))
@shared.written("-o", "--out", metavar="F.html", help="The page. [default: beside the result]")
@shared.written(
    "--figures", folder=True, metavar="FOLDER", help="Write figures here instead of a page."
)
@click.option(
    "--figure", "names", metavar="NAME", multiple=True, help="Only this figure; repeatable."
)
@shared.choice(
    "--format",
    "kind",
    among=FORMATS,
    default="svg",
    help="Of the figures.",
)
@shared.written(
    "--latents", metavar="FILE", help="Write the latents as .csv, .md or .tex instead of a page."
)
@click.option(
    "--image-shape",
    metavar="HxW",
    callback=types.image_shape,
    help="Draw flat inputs as pictures of this shape, as 28x28 or 3x32x32; 1xN draws curves.",
)
@shared.overwriting()
def report(
    *,
    result: Path,
    out: Path | None,
    figures: Path | None,
    names: tuple[str, ...],
    kind: str,
    latents: Path | None,
    image_shape: tuple[int, ...] | None,
    overwrite: bool,
) -> None:
    """Write a result as one HTML page that needs no network: verdict, figures, table, explorer.

    With --figures the figures are written one by one instead, for a paper.

    Raises:
        UsageError: when options are given that do not go together.
        ResultError: when there is nothing to draw.
    """
    if figures is None and names:
        raise click.UsageError("--figure goes with --figures FOLDER.")
    if figures is not None and out is not None:
        raise click.UsageError("--figures FOLDER and --out do not go together.")
    if latents is not None and (figures is not None or out is not None):
        raise click.UsageError("--latents FILE goes with neither --figures nor --out.")
    from isoprobe.results.reader import Result
    from isoprobe.show import plots
    from isoprobe.show import report as pages
    from isoprobe.show.tables import write_latents

    with Result.open(result) as opened:
        opened.image_shape = image_shape
        if latents is not None:
            write_latents(opened, latents, overwrite=overwrite, inputs=(result,))
            click.echo(latents)
            return
        if figures is not None:
            chosen = list(names) or plots.available(opened)
            if not chosen:
                raise ResultError(f"{result} holds nothing that could be drawn; run 'analyze' anew")
            for path in plots.save(opened, figures, chosen, kind):
                click.echo(path)
            return
        page = result.with_suffix(".html") if out is None else out
        pages.write(pages.render(opened), page, overwrite=overwrite, inputs=(result,))
        click.echo(page)
