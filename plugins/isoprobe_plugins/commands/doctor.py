"""Try the plausible readings of weights that do not describe themselves: ``isoprobe doctor``."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import types
from isoprobe.cli.examples import examples
from isoprobe.cli.options import WithFunction
from isoprobe.data.files import split_spec
from isoprobe.hookspecs import hookimpl
from isoprobe.results.whole import check_place, replacing
from isoprobe.show.terminal import table, width
from isoprobe_plugins.doctor.words import word

if TYPE_CHECKING:
    from isoprobe_plugins.doctor.readings import Reading
    from isoprobe_plugins.doctor.verdict import Verdict


def examine(
    model: str | Path,
    data: str,
    samples: int = 1024,
    resize: tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    metric: str | None = None,
    pad: int | tuple[int, int] | None = None,
    progress: bool = False,
) -> Verdict:
    """Rank the plausible readings of a weights file.

    Args:
        model: the file, or a folder of weights.
        data: spec of data like the model's training data.
        samples: rows to try it on.
        resize: height and width to resize images to.
        scale: data values that stand for 0 and 1.
        metric: of the loss, where it is known.
        pad: height and width to pad images to with zeros.
        progress: show on stderr how many readings were tried.

    Returns:
        The verdict.

    Raises:
        CheckpointError: for what is no VAE, or has no way from the data to latents and back.
    """
    from contextlib import closing

    from isoprobe.checkpoints.remote import fetched
    from isoprobe.checkpoints.source import Source
    from isoprobe.data.batches import first_labels, first_rows
    from isoprobe.data.padding import padded
    from isoprobe.errors import CheckpointError
    from isoprobe.progress import bar
    from isoprobe.registry.lookup import installed
    from isoprobe_plugins.adapters.weights.state import read_state
    from isoprobe_plugins.doctor.verdict import judged

    state = read_state(Source(fetched(model)[0]))
    with closing(installed().data(data)) as dataset:
        x = first_rows(padded(dataset, pad), samples, resize=resize, scale=scale)
        labels = first_labels(dataset, samples)
    chosen = None if metric is None else installed().metric(metric)
    try:
        with bar(None, 0, "trying", shown=progress, unit="reading") as advance:
            return judged(state, x, chosen, labels=labels, advance=advance)
    except CheckpointError as error:
        raise CheckpointError(f"{model} and {data}: it holds {error}") from error


@click.command(
    cls=WithFunction,
    function=examine,
    short_help="Find out how undeclared weights must be read.",
    epilog=examples(
        "isoprobe doctor vae.pth --data mnist.npz:x_test",
        "isoprobe doctor vae.pth --data images/ --resize 64 --out vae.toml",
        "isoprobe doctor vae.pth --data mnist.npz:x_test --json | jq .readings[0]",
    ),
)
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--data", metavar="SPEC", required=True, help="Data the model was trained on.")
@click.option(
    "--samples", type=click.IntRange(min=16), default=1024, show_default=True, help="To try it on."
)
@click.option("--metric", metavar="NAME", help="Loss that it was trained with, where it is known.")
@click.option("--resize", metavar="PIXELS", callback=types.height_and_width, help="Resize images.")
@click.option(
    "--pad", metavar="PIXELS", callback=types.height_and_width, help="Pad images with zeros."
)
@click.option(
    "--scale",
    metavar="LOW:HIGH",
    callback=types.low_and_high,
    help="Data values that stand for 0 and 1, as in 0:255.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="F.toml",
    help="Write the best reading as a declaration.",
)
@click.option("--overwrite", is_flag=True, help="Replace an existing declaration.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of the table.")
def doctor(
    *,
    model: Path,
    data: str,
    samples: int,
    metric: str | None,
    resize: tuple[int, int] | None,
    pad: tuple[int, int] | None,
    scale: tuple[float, float] | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Try every plausible reading of undeclared weights on data, and rank them.

    A wrong guess loads without an error and gives wrong numbers, so the data decides: by what
    posterior draws reconstruct, and by how still the loss lies in every weight, as it does for what
    was trained alone. With --out the best reading is written as a declaration, where none is borne
    out with the doubtful steps marked.
    """
    if out is not None:
        check_place(out, overwrite=overwrite, inputs=(model, split_spec(data)[0]))
    verdict = examine(model, data, samples, resize, scale, metric, pad, progress=not as_json)
    text = declaration(verdict, pad)
    if out is not None:
        with replacing(out) as partial:
            partial.write_text(text, "utf-8")
    if as_json:
        rows = [_row(reading) for reading in verdict.readings]
        told = {"model": str(model), "doubt": verdict.doubt, "notes": list(verdict.notes)}
        click.echo(json.dumps({**told, "readings": rows}))
        return
    click.echo(_table(verdict))
    click.echo(f"\nwritten to {out}" if out else f"\n{text}", nl=bool(out))
    if out is not None and out == model.with_suffix(".toml"):
        click.echo(f"isoprobe analyze {shlex.quote(str(model))} --data {shlex.quote(data)}")


# --------------------------------------------------------------------------- what is said


def declaration(verdict: Verdict, pad: tuple[int, int] | None = None) -> str:
    """Return the best reading as a declaration to start from.

    Args:
        verdict: what data made of the weights.
        pad: height and width that the data were padded to.
    """
    from isoprobe_plugins.doctor.parts import left_out_by
    from isoprobe_plugins.doctor.toml import to_toml

    chosen = verdict.chosen
    tried = chosen.tried
    bounds = {"input_range": [0, 1]} if chosen.choices.output == "sigmoid" else {}
    margin = {} if pad is None else {"pad": list(pad)}
    rest = left_out_by(chosen.plan.split.rest)
    ignored = {"ignore": list(rest)} if rest else {}
    loss = {"loss": {"metric": verdict.metric}} if verdict.metric else {}
    head = "Found by isoprobe doctor" if not verdict.doubt else "NOT borne out by the data"
    lines = [
        f"# {head}: explains {tried.at_mean:.1%} of the variance at the mean, slope "
        f"{tried.slope:.2f}, KL {tried.kl:.4g}.",
        f"# Under {chosen.metric} beta would be {tried.beta:.3g}.",
    ]
    lines += [f"# {note}" for note in verdict.notes[1:]]
    doubt = {}
    if verdict.doubt:
        lines.append("# Doubtful first: activations, strides and paddings, the head's form.")
        doubt = {"doubtful": verdict.doubt}
    fields = {**doubt, **chosen.fields, **bounds, **margin, **ignored, **loss}
    return "\n".join(lines) + "\n" + to_toml(fields)


def _row(reading: Reading) -> dict[str, Any]:
    choices, tried = reading.choices, reading.tried
    return {
        "layout": choices.layout, "form": choices.form, "encoder": choices.encoder,
        "decoder": choices.decoder, "output": choices.output, "metric": reading.metric,
        "explained": tried.explained, "explained_at_mean": tried.at_mean, "slope": tried.slope,
        "kl": tried.kl, "beta": tried.beta, "declaration": reading.fields,
    }  # fmt: skip


def _table(verdict: Verdict, rows: int = 8) -> str:
    cells = [
        ["layout", "scale", "encoder", "decoder", "output", "loss", "explained", "KL", "beta",
         "slope"]
    ]  # fmt: skip
    for reading in verdict.readings[:rows]:
        c, t = reading.choices, reading.tried
        cells.append(
            [c.layout, c.form, word(c.encoder), word(c.decoder), c.output, reading.metric,
             f"{t.explained:.1%}", f"{t.kl:.2f}", f"{t.beta:.3g}", f"{t.slope:.2f}"]
        )  # fmt: skip
    lines = list(table(cells, width(), left=range(6)))
    lines.append(
        "\nexplained: at posterior draws; slope: of the loss in the weights, 0 for what was "
        "trained to an optimum, 1 for what was not trained so at all"
    )
    lines += [f"* {note}" for note in verdict.notes]
    if verdict.metric is None:
        lines.append("* the loss is not told: compare beta with what you know")
    if verdict.doubt:
        lines.append(f"None is to be trusted: {verdict.doubt}.")
    elif verdict.unsure:
        lines.append(f"analyze takes none undeclared: {verdict.unsure}.")
    return "\n".join(lines)


@hookimpl
def isoprobe_commands() -> list[click.Command]:
    """Return the commands of this module."""
    return [doctor]
