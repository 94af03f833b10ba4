"""Run ``isoprobe compare``: several results side by side."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import click

from isoprobe.cli import options as shared
from isoprobe.cli import types
from isoprobe.show.terminal import width


@shared.command(
    "Compare several results, latents matched by what they do.",
    "isoprobe compare a.h5 b.h5",
    "isoprobe compare beta1.h5 beta4.h5 --html compare.html",
    "isoprobe compare a.h5 b.h5 c.h5 --json | jq .matchings",
    "isoprobe compare sweep/ --html sweep.html",
)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@shared.written("--html", metavar="F.html", help="Write a page as well.")
@shared.overwriting("page")
@click.option(
    "--image-shape",
    metavar="HxW",
    callback=types.image_shape,
    help="With --html: draw flat inputs as pictures of this shape, as 28x28 or 3x32x32.",
)
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of tables.")
def compare(
    *,
    results: tuple[Path, ...],
    html: Path | None,
    overwrite: bool,
    image_shape: tuple[int, ...] | None,
    as_json: bool,
) -> None:
    """Compare several results with the first one.

    Latents are matched by their isometric coordinates on common samples, not by number, so run
    the analyses on the same data with --analysis coordinates. With --analysis geometry, distances
    between the same pairs of samples are compared too: they belong to the data, coordinates do not.

    One folder of results, as analyze makes of several checkpoints, or the log of a monitor, is
    shown as one training: a table and curves over its steps, latents matched through time.

    Raises:
        UsageError: for fewer than two results, or a picture's shape without a page of them.
    """
    if image_shape is not None and (html is None or len(results) == 1):
        raise click.UsageError("--image-shape goes with --html F.html of several results.")
    if len(results) == 1 and (results[0].is_dir() or results[0].suffix == ".jsonl"):
        _training(results[0], html, overwrite=overwrite, as_json=as_json)
        return
    if len(results) < 2:
        raise click.UsageError("expected at least two results, or one folder of them.")
    from isoprobe.results.reader import Result
    from isoprobe.show.compare import compare as compare_results

    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(Result.open(path)) for path in results]
        compared = compare_results(opened)
        if html is not None:
            for result in opened:
                result.image_shape = image_shape
            from isoprobe.show.report import compared_page, write

            write(compared_page(opened, compared), html, overwrite=overwrite, inputs=results)
        if as_json:
            click.echo(json.dumps(compared.to_json(), indent=2, allow_nan=False))
        else:
            click.echo(compared.to_text(width()))


def _training(place: Path, html: Path | None, *, overwrite: bool, as_json: bool) -> None:
    """Show a folder of results, or the log of a monitor, as one training."""
    from isoprobe.show.trend import trend_of

    trend = trend_of(place)
    if html is not None:
        from isoprobe.show.report import trend_page, write

        write(trend_page(trend, place.name), html, overwrite=overwrite, inputs=[place])
    shared.show_trend(trend, as_json=as_json)
