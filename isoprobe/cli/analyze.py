"""``isoprobe analyze``: a checkpoint goes in, a true account of its latent space comes out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import options as shared
from isoprobe.cli import types
from isoprobe.cli.examples import examples
from isoprobe.cli.group import COMMAND_LINE
from isoprobe.contracts import DEFAULT_ANALYSES
from isoprobe.errors import OptionError, ResultError

if TYPE_CHECKING:
    from isoprobe.results.reader import Result

#: what a report shows beyond the summary
REPORTED_ANALYSES = ("rate-distortion", "density", "coordinates", "traversal")


@click.command(
    short_help="Analyse the latent space of a checkpoint.",
    epilog=examples(
        "isoprobe analyze model.safetensors",
        "isoprobe analyze model.safetensors --data images.npy --metric bce --out result.h5",
        "isoprobe analyze model.safetensors --report report.html",
        "isoprobe analyze model.safetensors --samples auto --tolerance 0.02 --pullback probe",
        "isoprobe analyze folder/ --data mnist.npz:x_train --resize 32 --json | jq .beta",
        "isoprobe analyze vae.pt --class net.py:VAE --data images.npy --metric bce",
        "isoprobe analyze w.pt --adapter factory --option target=models.py:build --metric sse",
        "torchrun --nproc-per-node=4 -m isoprobe analyze model.safetensors --out result.h5",
        "isoprobe analyze model.safetensors --out result.h5 --shard 2/4",
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
@shared.own_class
@shared.class_arguments
@shared.trust
@shared.allow_random
@click.option(
    "--samples",
    metavar="all|auto|N",
    callback=types.all_auto_or_count,
    default="10000",
    show_default=True,
    help="Samples to use, evenly spaced over the data; auto takes as many as --tolerance needs.",
)
@click.option(
    "--tolerance",
    type=float,
    metavar="T",
    help="Relative standard error of every mean that is enough for --samples auto. [default: 0.01]",
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
@shared.memory
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
@click.option(
    "--shard",
    metavar="K/N",
    help="Do the K-th of N shares of the samples; 'isoprobe merge' puts the shards together.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing result and report.")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@shared.as_json
def analyze(
    *,
    model: Path,
    options: tuple[str, ...],
    analyses: tuple[str, ...],
    report: Path | None,
    as_json: bool,
    shard: str | None,
    own_class: str | None,
    class_arguments: tuple[str, ...],
    **settings: Any,
) -> None:
    """Analyse the latent space of a checkpoint, in one pass over the data.

    The summary goes to stdout, notes and progress to stderr. Under torchrun every process does a
    share of the samples, and the first one puts the shares together.

    Raises:
        OptionError: for a report of a shard.
    """
    from isoprobe.registry.specs import parse_options

    settings["options"] = parse_options(options, of="--option")
    shared.with_class(settings, own_class, class_arguments)
    settings["analyses"] = analyses or _default_analyses(reported=report is not None)
    _refuse_page(report, overwrite=settings["overwrite"])
    settings["command"] = click.get_current_context().meta.get(COMMAND_LINE, "")
    if shard is not None:
        if report is not None or as_json:
            raise OptionError("--report and --json need all shards; use them after isoprobe merge.")
        _analyze_share(shard, model, settings)
        return
    result = _result(model, settings)
    if result is not None:
        with result:
            if report is not None:
                from isoprobe.show import report as pages

                pages.write(pages.render(result), report, overwrite=settings["overwrite"])
            shared.show(result, as_json=as_json)


def _result(model: Path, settings: dict[str, Any]) -> Result | None:
    """The result; None in all processes but the first."""
    from isoprobe.api import analyze
    from isoprobe.run.merging import analyze_together
    from isoprobe.run.processes import Process

    process = Process.of(os.environ)
    if process is None:
        return analyze(model, progress=True, **settings)
    return analyze_together(process, model, progress=True, **settings)


def _analyze_share(text: str, model: Path, settings: dict[str, Any]) -> None:
    from isoprobe.run.merging import analyze_shard
    from isoprobe.run.shards import Part

    part, out = Part.parse(text), settings["out"]
    if out is None:
        raise OptionError("--shard needs --out F.h5; the shard is written beside it.")
    path = analyze_shard(part, model, progress=True, **settings)
    every = out.with_name(f"{out.stem}.shard-*-of-{part.count}{out.suffix}")
    click.echo(f"{path} is written; with all {part.count}: isoprobe merge {out} {every}", err=True)


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
