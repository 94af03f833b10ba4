"""Run ``isoprobe score``: how anomalous new rows are, against a result made before."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from isoprobe.cli import options as shared
from isoprobe.errors import OptionError
from isoprobe.run.settings import ScoreSettings

#: of the options that settings give
ORDER = (
    *("score", "alpha", "fdr", "by", "trim", "contamination", "by_latent", "by_input", "metric"),
    *shared.LOADING,
    *shared.ROWS,
    *shared.MACHINE,
)


@shared.command(
    "Score new rows as anomalies against a result.",
    "isoprobe analyze model.safetensors --data normal.npy --analysis anomaly --out normal.h5",
    "isoprobe score model.safetensors --data new.npy --reference normal.h5 > scores.csv",
    "isoprobe score model.safetensors --data new.npy --reference normal.h5 --out s.parquet",
    "isoprobe score m.safetensors --data 'new.csv:id=patient;keep=site' --reference r.h5 "
    "--by site --fdr 0.05 --top 10 --summary s.json",
    "isoprobe score model.safetensors --data rows/ --reference normal.h5 --out scores/ "
    "--cluster local:4",
)
@shared.against_reference("The new rows, as for analyze.")
@click.option(
    "--out",
    metavar="FILE|FOLDER/",
    help="Write a .csv, .parquet or .h5 file, or, with a / at its end, a folder of Parquet parts. "
    "[default: CSV to stdout]",
)
@shared.overwriting()
@shared.count(
    "--top",
    default=0,
    metavar="N",
    help="Say on stderr which inputs and latents made the N highest rows odd.",
    least=0,
)
@shared.written(
    "--summary",
    metavar="F.json",
    help="Write counts, groups and the highest rows with all their parts as JSON.",
)
@click.option(
    "--masks",
    metavar="SPEC",
    help="Masks of images, not 0 where a pixel is odd: pixel AUROC and overlap by region. Needs "
    "--map.",
)
@shared.written(
    "--pictures",
    folder=True,
    metavar="FOLDER",
    help="Draw the --top rows beside where they are odd.",
)
@click.option("--resume", is_flag=True, help="Go on with an unfinished .h5 file or folder.")
@shared.cluster
@shared.plan
@shared.own_class
@shared.class_arguments
@shared.from_settings(ScoreSettings, *ORDER)
def score(
    *,
    model: Path,
    data: str,
    reference: Path,
    out: str | None,
    overwrite: bool,
    top: int,
    summary: Path | None,
    masks: str | None,
    pictures: Path | None,
    resume: bool,
    cluster: str | None,
    plan: bool,
    options: tuple[str, ...],
    by_input: bool,
    own_class: str | None,
    class_arguments: tuple[str, ...],
    **settings: Any,
) -> None:
    """Score new rows of data as anomalies, as many as there are, in flat memory.

    Columns: row, ids and labels where --data names them, score and its parts in units of the
    metric, conformal p-value, and a flag (1) for each rule: p-value up to alpha, score above the
    reference's quantile or contamination, and with --fdr a bounded share of false flags.
    """
    from isoprobe.data.files import split_spec
    from isoprobe.registry.specs import options_paths, parse_options
    from isoprobe.results.flat import csv_to
    from isoprobe.results.whole import check_place
    from isoprobe.run.cluster import Cluster
    from isoprobe.run.decisions import Tally, document, lines
    from isoprobe.run.maps import against_masks, check_maps, draw_rows
    from isoprobe.run.scoring import open_scoring
    from isoprobe.run.tables import ScoreWork, check_out, write_batches, write_scores

    inputs = (model, reference, split_spec(data)[0], *options_paths(options))
    target, parts = None if out is None else Path(out), (out or "").endswith("/")
    settings |= {"options": parse_options(options, of="--option"), "by_input": by_input}
    shared.with_class(settings, own_class, class_arguments)
    if plan:
        _show_plan(model, data, reference, ScoreSettings(**settings), parts=parts)
        return
    again = {"overwrite": overwrite, "resume": resume, "parts": parts}
    check_out(target, by_input=by_input, inputs=inputs, **again)
    if masks is not None:
        check_maps(target, by_input=by_input)
    if summary is not None:
        check_place(summary, overwrite=overwrite, inputs=inputs)
    if cluster is not None:
        _check_sharded(target, parts=parts)
        settings["threads"] = settings["threads"] or 1
    with open_scoring(model, data, reference, **settings) as scoring:
        for note in scoring.notes:
            click.echo(note, err=True)
        tally = Tally(top, scoring.asked.by)
        if target is None:
            write_batches(scoring, csv_to(sys.stdout), progress=True, tally=tally)
        else:
            how: dict[str, Any] = {**again, "progress": True, "tally": tally}
            if cluster is None:
                write_scores(scoring, target, **how)
            else:
                work = ScoreWork(str(model), data, str(reference), ScoreSettings(**settings))
                with Cluster.connected(cluster) as workers:
                    write_scores(scoring, target, **how, on=(workers, work))
            click.echo(f"{scoring.rows:,} rows scored: {out}", err=True)
        said = document(scoring, tally)
        told = "".join(f"{line}\n" for line in lines(said, scoring.asked.alpha, scoring.asked.fdr))
        click.echo(told, err=True, nl=False)
        if pictures is not None:
            draw_rows(scoring, tally.highest, pictures)
        if masks is not None and target is not None:
            said["masks"] = found = against_masks(target, masks)
            click.echo(
                f"pixel AUROC {found['pixel_auroc']:.3f}; overlap by region up to "
                f"{found['limit']:g} false positives {found['region_overlap']:.3f}",
                err=True,
            )
        if summary is not None:
            _write_summary(said, summary)


def _show_plan(
    model: Path, data: str, reference: Path, asked: ScoreSettings, *, parts: bool
) -> None:
    from isoprobe.run.plan import plan_scores

    shared.show_plan(plan_scores(model, data, reference, asked, parts=parts), as_json=False)


def _write_summary(said: object, path: Path) -> None:
    from isoprobe.results.whole import replacing

    with replacing(path) as partial:
        partial.write_text(json.dumps(said, indent=2, allow_nan=False) + "\n", "utf-8")


def _check_sharded(out: Path | None, *, parts: bool) -> None:
    """Refuse a file that is not made of shards."""
    if not parts and (out is None or out.suffix != ".h5"):
        raise OptionError(
            "--cluster needs what is made of shards: it goes with --out FILE.h5 or --out FOLDER/."
        )
