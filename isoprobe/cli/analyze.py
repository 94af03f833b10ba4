"""Run ``isoprobe analyze``: a checkpoint goes in, an account of its latent space comes out."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from isoprobe.cli import options as shared
from isoprobe.cli import types
from isoprobe.cli.group import COMMAND_LINE
from isoprobe.contracts import DEFAULT_ANALYSES
from isoprobe.errors import OptionError, ResultError
from isoprobe.run.settings import RunSettings, with_defaults
from isoprobe.show.report.page import ADDS
from isoprobe.show.voice import voice

if TYPE_CHECKING:
    from isoprobe.results.reader import Result
    from isoprobe.results.sweep import Outcome

#: what a report shows beyond the summary
REPORTED_ANALYSES = tuple(ADDS)
#: exit code of a verdict that --fail-on names, and the levels that it takes for one
FAILED = 3
FAILING = {"not-sound": ("not sound",), "undecided": ("not sound", "undecided", "not judged")}
#: what a command says beside the settings
BESIDE = ("data", "out", "overwrite", "resume", "command")
#: of the options that settings give
ORDER = (
    *("metric", "beta", "analyses", "adapter", "options", "trust"),
    *("allow_random", "samples", "tolerance", "against"),
    *("batch_size", "resize", "pad", "scale", "condition", "device", "dtype"),
    *("pullback", "pairs"),
    *("expectation", "memory", "threads", "seed", "no_rows"),
)


@shared.command(
    "Analyse the latent space of a checkpoint.",
    "isoprobe analyze model.safetensors",
    "isoprobe analyze model.safetensors --data images.npy --metric bce --out result.h5",
    "isoprobe analyze model.safetensors --report report.html",
    "isoprobe analyze model.safetensors --samples auto --tolerance 0.02 --pullback probe",
    "isoprobe analyze model.safetensors --data test.npy --against train.npy",
    "isoprobe analyze folder/ --data mnist.npz:x_train --resize 32 --json | jq .beta",
    "isoprobe analyze vae.pt --class net.py:VAE --data images.npy --metric bce",
    "isoprobe analyze w.pt --adapter factory --option target=models.py:build --option "
    "input_shape=64 --metric sse",
    "torchrun --nproc-per-node=4 -m isoprobe analyze model.safetensors --out result.h5",
    "isoprobe analyze model.safetensors --out result.h5 --shard 2/4",
    "isoprobe analyze model.safetensors --out result.h5 --cluster tcp://host:8786",
    "isoprobe analyze run/*.pt --data x.npy --metric sse --out sweep/ --report sweep.html",
    "isoprobe analyze run/*.pt --data train.npy --data test.npy --metric sse --out both/",
)
@click.argument("model", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "--data",
    metavar="SPEC",
    multiple=True,
    help="File, .npz:array, .h5:/dataset, folder or prior; given several times, each checkpoint is "
    "analysed on each. [default: the checkpoint's, or prior]",
)
@shared.own_class
@shared.class_arguments
@shared.from_settings(RunSettings, *ORDER, reported=", ".join(REPORTED_ANALYSES))
@click.option(
    "--out",
    metavar="F.h5|FOLDER/",
    help="Keep the whole result here; those of several checkpoints or data sets in a folder.",
)
@shared.written("--report", metavar="F.html", help="Write the report of the result here.")
@click.option(
    "--shard",
    metavar="K/N",
    help="Do the K-th of N shares of the samples; 'isoprobe merge' puts the shards together.",
)
@shared.cluster
@shared.plan
@shared.overwriting("result and report")
@click.option("--resume", is_flag=True, help="Go on where an interrupted run stopped.")
@click.option(
    "--fail-on",
    type=click.Choice(tuple(FAILING)),
    help="End with exit code 3 where the verdict is that, or worse; of several, the worst one.",
)
@click.option(
    "--image-shape",
    metavar="HxW",
    callback=types.image_shape,
    help="With --report: draw flat inputs as pictures of this shape, as 28x28 or 3x32x32.",
)
@shared.as_json
def analyze(
    *,
    model: tuple[Path, ...],
    options: tuple[str, ...],
    analyses: tuple[str, ...],
    report: Path | None,
    as_json: bool,
    shard: str | None,
    cluster: str | None,
    plan: bool,
    own_class: str | None,
    class_arguments: tuple[str, ...],
    out: str | None,
    data: tuple[str, ...],
    fail_on: str | None,
    image_shape: tuple[int, ...] | None,
    **settings: Any,
) -> None:
    """Analyse the latent space of a checkpoint, in one pass over the data.

    The summary goes to stdout, notes and progress to stderr. Under torchrun every process does a
    share of the samples, and the first one puts the shares together.

    Several checkpoints of one training, each on each of the data sets, go one by one into a folder,
    with their curves over the steps that contents or names tell; what fails takes nothing from the
    others.

    Raises:
        OptionError: for a report of a shard.
        UsageError: for a folder where a file is needed, or a picture's shape without a report.
    """
    from isoprobe.data.files import split_spec
    from isoprobe.registry.specs import options_paths, parse_options
    from isoprobe.results.whole import check_place

    settings["out"] = None if out is None else Path(out)
    settings["options"] = parse_options(options, of="--option")
    shared.with_class(settings, own_class, class_arguments)
    model, data = tuple(dict.fromkeys(model)), tuple(dict.fromkeys(data))
    default = _default_analyses(reported=report is not None)
    settings["analyses"] = with_defaults(analyses, default) if analyses else default
    settings["command"] = click.get_current_context().meta.get(COMMAND_LINE, "")
    if plan:
        from isoprobe.run.plan import plan_analysis

        asked = _apart(settings)[0]
        plans = {spec: plan_analysis(model, spec, asked) for spec in data or (None,)}
        shared.show_plans(plans, as_json=as_json)
        return
    inputs = (*model, *(split_spec(spec)[0] for spec in data), *options_paths(options))
    sweeping = len(model) > 1 or len(data) > 1 or (out or "").endswith("/")
    _check_prints(model, as_json=as_json)
    _check_drawn(image_shape, drawn=report is not None and not sweeping)
    if sweeping:
        if shard is not None:
            raise OptionError(
                "--shard is for one checkpoint on one data set; give each one command a shard"
            )
        worst = _sweep(
            model, data, settings, cluster, report=report, inputs=inputs, as_json=as_json
        )
        _end(worst, fail_on)
        return
    settings["data"] = _one(data)
    if out is not None and Path(out).is_dir():
        raise click.UsageError(f"--out {out} is a folder; name a file, or add a / for a sweep.")
    for written in (report, settings["out"]):
        if written is not None:
            overwrite = settings["overwrite"] or (settings["resume"] and written is not report)
            check_place(written, overwrite=overwrite, inputs=inputs)
    if report is not None and settings["out"] is not None and _same(report, settings["out"]):
        raise OptionError("--out and --report name the same file; name two.")
    if shard is not None:
        if report is not None or as_json:
            raise OptionError("--report and --json need all shards; use them after isoprobe merge.")
        if cluster is not None:
            raise OptionError("--shard and --cluster exclude each other: a cluster makes them all.")
        _analyze_share(shard, model[0], settings)
        return
    run = _result if cluster is None else partial(_on, cluster)
    result = run(model[0], settings)
    if result is not None:
        with result:
            if report is not None:
                from isoprobe.show import report as pages

                result.image_shape = image_shape
                pages.write(pages.render(result), report, overwrite=settings["overwrite"])
            shared.show(result, as_json=as_json)
            level = voice(result).level
        _end(level, fail_on)


def _check_drawn(image_shape: tuple[int, ...] | None, *, drawn: bool) -> None:
    """Refuse the shape of pictures where none are drawn."""
    if image_shape is not None and not drawn:
        raise click.UsageError("--image-shape goes with --report F.html of one checkpoint.")


def _end(level: str, fail_on: str | None) -> None:
    """End with exit code 3 where the verdict is one that was named."""
    if fail_on is not None and level in FAILING[fail_on]:
        click.echo(f"The verdict is '{level}' (--fail-on {fail_on}).", err=True)
        click.get_current_context().exit(FAILED)


def _result(model: Path, settings: dict[str, Any]) -> Result | None:
    """The result; None in all processes but the first."""
    from isoprobe.run.merging import run_shards
    from isoprobe.run.processes import Process

    process = Process.of(os.environ)
    if process is not None:
        if settings["out"] is None:
            raise OptionError(
                "several processes need --out F.h5, in a folder that all of them see."
            )
        settings["device"] = process.device(settings["device"])
    asked, beside = _apart(settings)
    return run_shards(
        model,
        settings["data"],
        asked,
        **beside,
        progress=process is None or process.rank == 0,
        process=process,
    )


def _check_prints(model: tuple[Path, ...], *, as_json: bool) -> None:
    """Refuse a name meant for ``--json``, which would be a second checkpoint."""
    for path in model:
        if as_json and path.suffix == ".json" and not path.exists():
            raise click.UsageError(f"--json prints and takes no file name; write '> {path}'.")


def _sweep(
    models: tuple[Path, ...],
    data: tuple[str, ...],
    settings: dict[str, Any],
    cluster: str | None,
    *,
    report: Path | None,
    inputs: tuple[object, ...],
    as_json: bool,
) -> str:
    """Analyse checkpoints into a folder; show their table, and write the page of their curves.

    Returns:
        The worst level of what the table shows.

    Raises:
        OptionError: where no folder is named.
        ResultError: where a checkpoint failed on a data set, once all that could be done is.
    """
    from isoprobe.results.sweep import TABLE
    from isoprobe.results.whole import check_place
    from isoprobe.run.cluster import Cluster
    from isoprobe.run.sweep import sweep
    from isoprobe.show import report as pages
    from isoprobe.show.trend import trend_of

    folder = settings["out"]
    if folder is None:
        raise OptionError(
            "several checkpoints or data sets need --out FOLDER/, where their results will lie"
        )
    if report is not None:
        check_place(report, overwrite=settings["overwrite"] or settings["resume"], inputs=inputs)
    if cluster is not None:
        settings["threads"] = settings["threads"] or 1
    asked, _ = _apart(settings)
    count = len(models) * max(len(data), 1)
    done = []

    def told(outcome: Outcome) -> None:
        done.append(outcome)
        said = f"failed: {outcome.error}" if outcome.error else f"{outcome.seconds:.1f} s"
        what = f"{outcome.model} on {outcome.data}" if len(data) > 1 else outcome.model
        click.echo(f"[{len(done)}/{count}] {what}: {said}", err=True)

    beside: dict[str, Any] = {n: settings[n] for n in ("overwrite", "resume", "command")}
    with nullcontext() if cluster is None else Cluster.connected(cluster) as workers:
        beside |= {"told": told, "progress": True, "cluster": workers}
        sweep(models, list(data) if len(data) > 1 else _one(data), asked, folder, **beside)
    levels = set()
    if any(outcome.error is None for outcome in done):
        trend = trend_of(folder)
        if report is not None:
            pages.write(pages.trend_page(trend, folder.name), report, overwrite=True)
        shared.show_trend(trend, as_json=as_json)
        levels = {found.level or "not judged" for found in trend.points}
    failed = sum(outcome.error is not None for outcome in done)
    if failed:
        what = "checkpoints" if len(data) < 2 else "analyses"
        raise ResultError(f"{failed} of {len(done)} {what} failed; see {folder / TABLE}")
    return next((level for level in FAILING["undecided"] if level in levels), "sound")


def _one(data: tuple[str, ...]) -> str | None:
    """The data set that was named; None for the checkpoint's own."""
    return data[0] if data else None


def _on(address: str, model: Path, settings: dict[str, Any]) -> Result | None:
    """The result of shards that a cluster makes."""
    from isoprobe.run.cluster import Cluster
    from isoprobe.run.merging import run_shards

    if settings["out"] is None:
        raise OptionError("--cluster needs --out F.h5, in a folder that every worker sees.")
    settings["threads"] = settings["threads"] or 1
    asked, beside = _apart(settings)
    with Cluster.connected(address) as cluster:
        return run_shards(model, settings["data"], asked, **beside, progress=True, cluster=cluster)


def _apart(settings: dict[str, Any]) -> tuple[RunSettings, dict[str, Any]]:
    """What the numbers depend on, and what else a command says beside the data."""
    asked = {name: value for name, value in settings.items() if name not in BESIDE}
    return RunSettings(**asked), {name: settings[name] for name in BESIDE if name != "data"}


def _analyze_share(text: str, model: Path, settings: dict[str, Any]) -> None:
    from isoprobe.run.merging import analyze_shard
    from isoprobe.run.shards import Part

    part, out = Part.parse(text), settings["out"]
    if out is None:
        raise OptionError("--shard needs --out F.h5; the shards are written beside it.")
    context = click.get_current_context()
    if context.get_parameter_source("samples") is ParameterSource.DEFAULT:
        del settings["samples"]  # as many as are enough: no share could tell alone
    folder = analyze_shard(part, model, progress=True, **settings)
    click.echo(f"part {part} is in {folder}; when all are: isoprobe merge {out}", err=True)


def _default_analyses(*, reported: bool) -> tuple[str, ...]:
    return DEFAULT_ANALYSES + (REPORTED_ANALYSES if reported else ())


def _same(one: Path, other: Path) -> bool:
    return one.expanduser().resolve() == other.expanduser().resolve()
