"""``isoprobe analyze``: a checkpoint goes in, a true account of its latent space comes out."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import click

from isoprobe.cli import options as shared
from isoprobe.cli import types
from isoprobe.cli.examples import examples
from isoprobe.cli.group import COMMAND_LINE
from isoprobe.contracts import DEFAULT_ANALYSES
from isoprobe.errors import ResultError

#: what a report shows beyond the summary
REPORTED_ANALYSES = ("rate-distortion", "density", "coordinates", "traversal")


@click.command(
    short_help="Analyse the latent space of a checkpoint.",
    epilog=examples(
        "isoprobe analyze model.safetensors",
        "isoprobe analyze model.safetensors --data images.npy --metric bce --out result.h5",
        "isoprobe analyze model.safetensors --report report.html",
        "isoprobe analyze folder/ --data mnist.npz:x_train --resize 32 --json | jq .beta",
        "isoprobe analyze w.pt --adapter factory --option target=models.py:build --metric sse",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="SPEC",
    help="File, .npz:array, .h5:/dataset, folder or prior. [default: the checkpoint's, or prior]",
)
@click.option(
    "--metric", metavar="NAME[:k=v,...]", help="Distortion. [default: the checkpoint's own]"
)
@click.option(
    "--beta",
    metavar="auto|FLOAT",
    callback=types.auto_or_positive,
    help="KL weight in units of the metric; auto recovers it. [default: the checkpoint's, or auto]",
)
@click.option(
    "--analysis",
    "analyses",
    metavar="NAME[:k=v,...]",
    multiple=True,
    help=f"Analysis to run; repeatable. [default: {', '.join(DEFAULT_ANALYSES)}; with --report "
    f"also {', '.join(REPORTED_ANALYSES)}]",
)
@shared.adapter
@shared.adapter_options
@shared.trust
@click.option(
    "--samples",
    metavar="all|N",
    callback=types.all_or_count,
    default="10000",
    show_default=True,
    help="Samples to use, evenly spaced over the data.",
)
@shared.batch_size
@shared.resize
@shared.scale
@shared.device
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Floating type of the run. [default: the checkpoint's own]",
)
@click.option(
    "--pullback",
    type=click.Choice(["exact", "probe", "finite-difference"]),
    default="exact",
    show_default=True,
    help="How the decoder is differentiated; probe costs the same for any number of latents.",
)
@click.option(
    "--pairs",
    type=click.IntRange(min=1),
    default=2,
    show_default=True,
    help="Antithetic pairs of posterior draws a sample.",
)
@click.option(
    "--memory",
    metavar="SIZE",
    callback=types.size_in_bytes,
    default="1GiB",
    show_default=True,
    help="Limit of what the derivatives may take at once.",
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of all random draws."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.h5",
    help="Keep the whole result here.",
)
@click.option(
    "--report",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.html",
    help="Write the report of the result here.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing result and report.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of the summary.")
def analyze(
    *,
    model: Path,
    options: tuple[str, ...],
    analyses: tuple[str, ...],
    report: Path | None,
    as_json: bool,
    **settings: Any,
) -> None:
    """Analyse the latent space of a checkpoint, in one pass over the data.

    The summary goes to stdout, notes and progress to stderr.
    """
    from isoprobe import api, summary
    from isoprobe.specs import parse_options

    given = parse_options(options, of="--option")
    settings["analyses"] = analyses or _default_analyses(reported=report is not None)
    _refuse_page(report, overwrite=settings["overwrite"])
    settings["command"] = click.get_current_context().meta.get(COMMAND_LINE, "")
    with api.analyze(model, options=given, progress=True, **settings) as result:
        if report is not None:
            from isoprobe import report as pages

            pages.write(pages.render(result), report, overwrite=settings["overwrite"])
        if as_json:
            click.echo(json.dumps(summary.to_json(result), indent=2, allow_nan=False))
        else:
            click.echo(summary.to_text(result, _width(), unicode=_unicode()))


def _default_analyses(*, reported: bool) -> tuple[str, ...]:
    return DEFAULT_ANALYSES + (REPORTED_ANALYSES if reported else ())


def _refuse_page(report: Path | None, *, overwrite: bool) -> None:
    """Refuse a page that could not be written, before the run rather than after it."""
    if report is None:
        return
    if report.exists() and not overwrite:
        raise ResultError(f"{report} exists already; add --overwrite to replace it")
    if not report.absolute().parent.is_dir():
        raise ResultError(f"{report}: there is no folder {report.absolute().parent}; make it first")


def _width() -> int:
    return min(shutil.get_terminal_size().columns, 110)


def _unicode() -> bool:
    return "utf" in (sys.stdout.encoding or "").lower()
