"""Run ``isoprobe encode``, ``decode``, ``sample``, ``walk``: data out, in files others read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from isoprobe.cli import options as shared
from isoprobe.hookspecs import hookimpl
from isoprobe.run.settings import CodeSettings

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.contracts import VAE

TABLES = (".parquet", ".csv", ".npz", ".h5")
ARRAYS = (".npy", ".npz", ".h5")
#: of the options that settings give
ORDER = ("beta", *shared.LOADING, *shared.ROWS, *shared.MACHINE)
#: draws of a sheet side by side
_ACROSS = 8

_overwrite = shared.overwriting()
_metric = click.option(
    "--metric", metavar="NAME[:k=v,...]", help="Distortion. [default: the checkpoint's own]"
)


_PLACING = ("adapter", "options", "trust", "condition", "device", "memory")
_placing = shared.from_settings(CodeSettings, *_PLACING)


def _out(help_: str) -> Callable[[shared.Command], shared.Command]:
    return shared.written("-o", "--out", metavar="FILE", required=True, help=help_)


@shared.command(
    "Write mu, sigma, y and KL of every row.",
    "isoprobe encode model.safetensors --data images.npy -o codes.parquet",
    "isoprobe encode VAE_mnist/ --data mnist.npz:x_train,y_train --resize 32 -o codes.npz",
    "isoprobe encode model.safetensors --data new.npy --reference result.h5 -o codes.csv",
)
@shared.model
@click.option("--data", metavar="SPEC", help="Rows, as for analyze. [default: the checkpoint's]")
@_out("A .parquet, .csv, .npz or .h5 file.")
@_overwrite
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    metavar="F.h5",
    help="Take y from this result of analyze --analysis coordinates. [default: from these rows]",
)
@shared.from_settings(CodeSettings, *ORDER)
def encode(
    *,
    model: Path,
    data: str | None,
    out: Path,
    overwrite: bool,
    reference: Path | None,
    options: tuple[str, ...],
    **settings: Any,
) -> None:
    """Encode every row into a table, as many as there are, in flat memory.

    Columns: row (its number in the data), mean, std and isometric coordinate y by latent, kl in
    nats, and label where the data has labels. Distances in y are distances in the metric.
    """
    from isoprobe.registry.specs import parse_options
    from isoprobe.results import flat
    from isoprobe.run.codes import open_encoding

    flat.check_out(out, TABLES, overwrite=overwrite, inputs=_inputs(model, data, reference))
    settings["options"] = parse_options(options, of="--option")
    with open_encoding(model, data, reference, **settings) as (encoding, notes):
        for note in notes:
            click.echo(note, err=True)
        _write(out, encoding.rows, encoding, "encoding")
        click.echo(f"{encoding.rows:,} rows encoded: {out}", err=True)


@shared.command(
    "Decode latents from a file.",
    "isoprobe decode model.safetensors codes.parquet -o decoded.npy",
    "isoprobe decode model.safetensors codes.npz:mean -o decoded.h5",
)
@shared.model
@click.argument("codes")
@_out("A .npy, .npz or .h5 file.")
@_overwrite
@_placing
def decode(
    *,
    model: Path,
    codes: str,
    out: Path,
    overwrite: bool,
    memory: int,
    **placing: Any,
) -> None:
    """Decode latents: an array of n numbers a row, or the means in a table that encode wrote."""
    from contextlib import closing

    from isoprobe.registry.lookup import installed
    from isoprobe.results import flat
    from isoprobe.run.codes import decoded

    flat.check_out(out, ARRAYS, overwrite=overwrite, inputs=_inputs(model, codes))
    vae = _placed(model, **placing)
    with closing(installed().data(codes, vae)) as rows:
        _write(out, len(rows), ({"x": x} for x in decoded(vae, rows, memory)), "decoding")
        click.echo(f"{len(rows):,} rows decoded: {out}", err=True)


@shared.command(
    "Draw from the prior and decode.",
    "isoprobe sample model.safetensors -o draws.png",
    "isoprobe sample model.safetensors --count 10000 --seed 1 -o draws.npz",
)
@shared.model
@_out("A .png sheet, or .npy, .npz (with z) or .h5 (with z).")
@_overwrite
@shared.count("--count", default=64, help="How many draws.")
@shared.count("--seed", default=0, help="Of z.", least=0)
@_placing
def sample(
    *,
    model: Path,
    out: Path,
    overwrite: bool,
    count: int,
    seed: int,
    memory: int,
    **placing: Any,
) -> None:
    """Draw z from the prior, N(0, I) or the model's own, and decode it."""
    from isoprobe.results import flat
    from isoprobe.run.codes import drawn

    flat.check_out(out, (".png", *ARRAYS), overwrite=overwrite, inputs=[model])
    vae = _placed(model, **placing)
    draws = drawn(vae, count, seed, memory)
    if out.suffix == ".png":
        _sheet(draws, out)
    elif out.suffix == ".npy":
        _write(out, count, ({"x": part["x"]} for part in draws), "drawing")
    else:
        _write(out, count, draws, "drawing")
    click.echo(f"{count:,} draws: {out}", err=True)


@shared.command(
    "Walk from one row to another by the shortest path.",
    "isoprobe walk model.safetensors --data images.npy --from 3 --to 8 -o walk.gif",
    "isoprobe walk model.safetensors --data images.npy --from 3 --to 8 --path z -o walk.png",
    "isoprobe walk VAE_mnist/ --data mnist.npz:x_train --resize 32 --from 0 --to 1 -o w.npy",
)
@shared.model
@click.option("--data", metavar="SPEC", help="Rows, as for analyze. [default: the checkpoint's]")
@shared.count("--from", "start", required=True, help="Row to start from.", least=0)
@shared.count("--to", "end", required=True, help="Row to go to.", least=0)
@_out("A .png strip, a .gif that goes there and back, or an .npy array.")
@_overwrite
@shared.choice(
    "--path",
    among=("geodesic", "y", "z"),
    default="geodesic",
    help="The shortest path, or a straight line in y or z.",
)
@shared.count("--steps", default=11, help="Points, with ends.", least=2)
@_metric
@shared.from_settings(
    CodeSettings, *(name for name in ORDER if name not in {"samples", "batch_size"})
)
def walk(
    *,
    model: Path,
    data: str | None,
    start: int,
    end: int,
    out: Path,
    overwrite: bool,
    path: Any,
    steps: int,
    metric: str | None,
    options: tuple[str, ...],
    **settings: Any,
) -> None:
    """Decode points between two rows, equally far apart in the metric.

    Length is measured by J'GJ + (beta/2) I, as in the analysis 'geometry'. The shortest path
    stays close to what the model knows; a straight line in z may leave it.
    """
    import numpy as np

    from isoprobe.registry.specs import parse_options
    from isoprobe.results import flat
    from isoprobe.run.walking import interpolate
    from isoprobe.show.pictures import save_animation, save_sheet

    kinds = (".png", ".gif", ".npy")
    flat.check_out(out, kinds, overwrite=overwrite, inputs=_inputs(model, data))
    settings |= {"options": parse_options(options, of="--option"), "metric": metric, "data": data}
    found = interpolate(model, start, end, steps, path, **settings)
    if out.suffix == ".npy":
        _write(out, steps, [{"x": np.ascontiguousarray(found.images)}], "writing")
    elif out.suffix == ".gif":
        save_animation(found.images, out)
    else:
        save_sheet(found.images[None], out)
    said = "" if found.converged else "; not converged: a shorter path may exist"
    click.echo(
        f"{path} path of length {found.length:.4g} (within {found.error:.1g}){said}: {out}",
        err=True,
    )


def _placed(model: Path, device: str, options: tuple[str, ...], **opening: Any) -> VAE:
    """Open a model whose decoder is used alone, where it is asked to run."""
    from isoprobe.registry.specs import parse_options
    from isoprobe.run.codes import placed

    return placed(model, device, options=parse_options(options, of="--option"), **opening)


def _inputs(model: Path, data: str | None, reference: Path | None = None) -> list[object]:
    """Paths that a command reads, none of which it may write over."""
    from isoprobe.data.files import split_spec

    return [model, *([] if data is None else [split_spec(data)[0]]), reference]


def _write(out: Path, rows: int, batches: Iterable[Mapping[str, np.ndarray]], what: str) -> None:
    from isoprobe.progress import bar
    from isoprobe.results import flat

    with flat.writing(out, rows) as write, bar(rows, 0, what, shown=True) as advance:
        for columns in batches:
            write(columns)
            advance(len(next(iter(columns.values()))))


def _sheet(draws: Iterator[dict[str, np.ndarray]], out: Path) -> None:
    import numpy as np

    from isoprobe.show.pictures import save_sheet

    images = np.concatenate([part["x"] for part in draws])
    across = min(_ACROSS, len(images))
    rows = -(-len(images) // across)
    blank = np.full((rows * across - len(images), *images.shape[1:]), images.min())
    save_sheet(np.concatenate([images, blank]).reshape(rows, across, *images.shape[1:]), out)


@hookimpl
def isoprobe_commands() -> Iterable[click.Command]:
    """``encode``, ``decode``, ``sample`` and ``walk``."""
    return [encode, decode, sample, walk]
