"""``isoprobe doctor``: try the plausible readings of weights that do not describe themselves."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import types
from isoprobe.cli.examples import examples
from isoprobe.cli.options import WithFunction
from isoprobe.data.files import split_spec
from isoprobe.hookspecs import hookimpl
from isoprobe.results.whole import check_place, replacing
from isoprobe.show.terminal import paragraph, table, width

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe_plugins.doctor.readings import Reading


def examine(
    model: str | Path,
    data: str,
    samples: int = 256,
    resize: tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
) -> list[Reading]:
    """Rank the plausible readings of a weights file.

    Args:
        model: the file.
        data: spec of data like the model's training data.
        samples: rows to try it on.
        resize: height and width to resize images to.
        scale: data values that stand for 0 and 1.

    Returns:
        Readings, the best first; each has ``explained``, ``beta``, ``residual`` and, in ``fields``,
        what to declare.

    Raises:
        CheckpointError: when no reading fits the data.
    """
    from isoprobe.checkpoints.source import Source
    from isoprobe.errors import CheckpointError
    from isoprobe_plugins.adapters.weights.state import read_state
    from isoprobe_plugins.doctor.readings import diagnose
    from isoprobe_plugins.doctor.skeleton import skeletons

    state = read_state(Source(Path(model)))
    x = _inputs(data, samples, resize, scale, flat=_takes_vectors(state.tensors))
    try:
        found = skeletons(state.tensors, tuple(x.shape[1:]))
    except CheckpointError as error:
        raise CheckpointError(f"{model} and {data}: {error}") from error
    return diagnose(found, state.tensors, x, _progress)


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
    "--samples", type=click.IntRange(min=16), default=256, show_default=True, help="To try it on."
)
@click.option("--resize", metavar="PIXELS", callback=types.height_and_width, help="Resize images.")
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
    resize: tuple[int, int] | None,
    scale: tuple[float, float] | None,
    out: Path | None,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Try every plausible reading of undeclared weights on data, and rank them.

    A wrong guess loads without an error and gives wrong numbers, so the data decides: first by the
    share of its variance that the reconstruction explains, then by how well the scale satisfies
    the stationarity of the objective.
    """
    if out is not None:
        check_place(out, overwrite=overwrite, inputs=(model, split_spec(data)[0]))
    readings = examine(model, data, samples, resize, scale)
    if out is not None:
        with replacing(out) as partial:
            partial.write_text(declaration(readings[0]), "utf-8")
    if as_json:
        click.echo(json.dumps({"model": str(model), "readings": [_row(r) for r in readings]}))
        return
    click.echo(_table(readings))
    click.echo(f"\nwritten to {out}" if out else f"\n{declaration(readings[0])}", nl=bool(out))


def _takes_vectors(tensors: Any) -> bool:
    """Return True when the first layer is dense, so that images must be flattened."""
    first = next((t for name, t in tensors.items() if name.endswith("weight") and t.ndim > 1), None)
    return first is not None and first.ndim == 2


def _inputs(
    spec: str,
    samples: int,
    resize: tuple[int, int] | None,
    scale: tuple[float, float] | None,
    *,
    flat: bool,
) -> Tensor:
    """Read data in the shape the first layer takes, bytes mapped to 0..1."""
    import torch

    from isoprobe.contracts import VAE, Facts
    from isoprobe.data.batches import prepare
    from isoprobe.registry.lookup import installed

    dataset = installed().data(spec)
    try:
        shape = tuple(dataset.shape)
        if resize is not None:
            sides = tuple(resize)
            shape = (
                (shape[0], *sides)
                if len(shape) == 3 and shape[0] <= 4
                else ((*(shape[2:] or (1,)), *sides))
            )
        elif len(shape) == 2 and not flat:
            shape = (1, *shape)
        elif len(shape) == 3 and shape[0] > 4:
            shape = (shape[2], *shape[:2])
        if flat:
            shape = (torch.Size(shape).numel(),)
        # prepare needs to know no more of a model than what it takes
        taker = VAE(
            decode=lambda z: z,
            encode=None,
            input_shape=shape,
            latent_shape=(1,),
            facts=Facts(input_range=(0.0, 1.0) if dataset.dtype == "uint8" or scale else None),
        )
        prepared = prepare(dataset, taker, samples=samples, resize=resize, scale=scale)
        return prepared.batch(0, prepared.samples, "cpu", torch.float32)[0]
    finally:
        dataset.close()


def _progress(steps: Iterator[Any], total: int) -> Iterable[Any]:
    import sys

    from tqdm import tqdm

    bar: Iterable[Any] = tqdm(
        steps, total=total, desc="readings", file=sys.stderr, disable=None, delay=2, leave=False
    )
    return bar


# --------------------------------------------------------------------------- what is said


def declaration(reading: Reading) -> str:
    """Return a reading as a declaration to start from."""
    from isoprobe_plugins.doctor.toml import to_toml

    loss = {"metric": reading.metric, "beta": float(f"{reading.beta:.3g}")}
    bounds = {"input_range": [0, 1]} if reading.output == "sigmoid" else {}
    note = (
        f"# Found by isoprobe doctor: explains {reading.explained:.1%} of the variance, residual "
        f"{reading.residual:.3f}.\n# beta was recovered under {reading.metric}; the metric "
        "itself cannot be told from the weights.\n"
    )
    return note + to_toml({**reading.fields, **bounds, "loss": loss})


def _row(reading: Reading) -> dict[str, Any]:
    names = (
        "layout", "form", "encoder", "decoder", "output", "explained", "kl", "metric", "beta",
        "residual",
    )  # fmt: skip
    return {**{name: getattr(reading, name) for name in names}, "declaration": reading.fields}


def _table(readings: list[Reading], rows: int = 8) -> str:
    cells = [
        ["layout", "scale", "encoder", "decoder", "output", "explained", "KL", "beta", "residual"]
    ]
    cells += [
        [r.layout, r.form, r.encoder, r.decoder, r.output, f"{r.explained:.1%}", f"{r.kl:.2f}",
         f"{r.beta:.3g}", f"{r.residual:.3f}"]
        for r in readings[:rows]
    ]  # fmt: skip
    lines = list(table(cells, width(), left=range(5)))
    best = readings[0]
    said = [
        f"The first explains the data best; beta and residual are under {best.metric}. "
        "The metric itself cannot be told from the weights: compare beta with what you know."
    ]
    if best.explained <= 0:
        said.append("None is better than the mean of the data: do not trust any of them.")
    lines += ["", *(paragraph(one, width()) for one in said)]
    return "\n".join(lines)


@hookimpl
def isoprobe_commands() -> list[click.Command]:
    """Return the commands of this module."""
    return [doctor]
