"""``isoprobe score``: how anomalous new rows are, against a result made before."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import options as shared
from isoprobe.cli import types
from isoprobe.cli.examples import examples

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.run.scoring import Scoring


@click.command(
    short_help="Score new rows as anomalies against a result.",
    epilog=examples(
        "isoprobe analyze model.safetensors --data normal.npy --analysis anomaly --out normal.h5",
        "isoprobe score model.safetensors --data new.csv --reference normal.h5 > scores.csv",
        "isoprobe score model.safetensors --data new.npy --reference normal.h5 --out s.parquet",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", metavar="SPEC", required=True, help="The new rows, as for analyze.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="F.h5",
    required=True,
    help="Result of analyze --analysis anomaly on rows the model was not trained on.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a .csv, .parquet or .h5 file. [default: CSV to stdout]",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing file.")
@click.option("--resume", is_flag=True, help="Go on with an unfinished .h5 file.")
@click.option(
    "--alpha",
    type=float,
    default=0.05,
    show_default=True,
    help="False alarms accepted: flag conformal p-values up to this.",
)
@click.option(
    "--contamination",
    type=float,
    metavar="SHARE",
    help="Share of the reference's rows that are anomalies. [default: as in the reference]",
)
@click.option("--parts", "by_latent", is_flag=True, help="Give the rate of each latent too.")
@click.option(
    "--map", "by_input", is_flag=True, help="Give the distortion by input too; needs --out F.h5."
)
@click.option(
    "--metric", metavar="NAME[:k=v,...]", help="Has to be the reference's. [default: that one]"
)
@shared.adapter
@shared.adapter_options
@shared.own_class
@shared.class_arguments
@shared.trust
@shared.allow_random
@click.option(
    "--samples",
    metavar="all|N",
    callback=types.all_or_count,
    default="all",
    show_default=True,
    help="Rows to score, evenly spaced over the data.",
)
@shared.batch_size
@shared.resize
@shared.scale
@shared.device
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    help="Floating type of the run. [default: the reference's]",
)
@shared.memory
def score(
    *,
    model: Path,
    data: str,
    reference: Path,
    out: Path | None,
    overwrite: bool,
    resume: bool,
    options: tuple[str, ...],
    by_input: bool,
    own_class: str | None,
    class_arguments: tuple[str, ...],
    **settings: Any,
) -> None:
    """Score new rows of data as anomalies, as many as there are, in flat memory.

    Columns: row, score and its parts in units of the metric, conformal p-value, and a flag (1) for
    each rule: p-value up to alpha, score above the reference's quantile or contamination.
    """
    from isoprobe.registry.specs import parse_options
    from isoprobe.run.scoring import open_scoring
    from isoprobe.run.tables import check_out, csv_to, open_out

    check_out(out, overwrite=overwrite, by_input=by_input, resume=resume)
    settings |= {"options": parse_options(options, of="--option"), "by_input": by_input}
    shared.with_class(settings, own_class, class_arguments)
    with open_scoring(model, data, reference, **settings) as scoring:
        for note in scoring.data.notes:
            click.echo(note, err=True)
        if out is None:
            write = csv_to(sys.stdout)
            for columns in _shown(scoring):
                write(columns)
            return
        with open_out(out, scoring, overwrite=overwrite, resume=resume) as sink:
            for columns in _shown(scoring, sink.done):
                sink.write(columns)
        click.echo(f"{scoring.rows:,} rows scored: {out}", err=True)


def _shown(scoring: Scoring, done: int = 0) -> Iterable[dict[str, np.ndarray]]:
    """The batches after the rows already done, with a bar on stderr when that is a terminal."""
    from tqdm import tqdm

    bar = tqdm(
        total=scoring.rows,
        initial=done,
        desc="scoring",
        unit="row",
        delay=2,
        file=sys.stderr,
        leave=False,
        disable=None,
    )
    with bar:
        for columns in scoring.batches(done):
            yield columns
            bar.update(len(columns["score"]))
