"""Where scores go as they stream: CSV text, Parquet or HDF5, each file whole or not there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from isoprobe.contracts import Variable
from isoprobe.errors import OptionError
from isoprobe.progress import bar
from isoprobe.results import flat
from isoprobe.results.working import Working
from isoprobe.results.writer import ResultWriter
from isoprobe.run.decisions import StepUp, Tally
from isoprobe.run.shards import Columns, ShardFolder, even

if TYPE_CHECKING:
    import numpy as np

    from isoprobe.run.scoring import Scoring

#: rows copied at once from shards into a file
_ROWS = 8192

_TEXTS = {
    "row": ("row of the data", "1"),
    "score": ("anomaly score L_x", "metric"),
    "distortion": ("distortion part of the score", "metric"),
    "transform": ("w D(x, x_check) of the decomposed loss", "metric"),
    "rate": ("beta KL, summed over latents", "metric"),
    "rate_by_latent": ("beta KL_j", "metric"),
    "distortion_map": ("distortion part of the score by input", "metric"),
    "p_value": ("conformal p-value against the reference", "1"),
    "q_value": ("least false discovery rate at which the row is flagged", "1"),
    "flag_fdr": ("flagged at the false discovery rate asked for", "1"),
    "label": ("label given with the data", "1"),
}
#: names of the axes of one input, by their number
_AXES = {1: ("input",), 2: ("row", "column"), 3: ("channel", "row", "column")}
#: formats a file's name can ask for
FORMATS = (".csv", ".parquet", ".h5")


def check_out(
    out: Path | None,
    *,
    overwrite: bool,
    by_input: bool = False,
    resume: bool = False,
    inputs: Iterable[object] = (),
) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Args:
        out: the file; None for CSV to a stream.
        overwrite: it may be replaced.
        by_input: it is to hold distortion maps.
        resume: an unfinished one is to be completed.
        inputs: what the run reads, which it may not replace.

    Raises:
        OptionError: for a name of no known format, Parquet without pyarrow, or a table that is to
            hold maps or to be resumed.
        ResultError: when the file exists and may not be replaced, or has no folder.
    """
    if by_input and (out is None or out.suffix != ".h5"):
        raise OptionError("--map needs a file that holds arrays: add --out FILE.h5.")
    if resume and (out is None or out.suffix != ".h5"):
        raise OptionError("--resume needs a file made of shards: it goes with --out FILE.h5.")
    if out is None:
        return
    flat.check_out(out, FORMATS, overwrite=overwrite or resume, inputs=inputs)


def write_scores(
    scoring: Scoring,
    out: Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    tally: Tally | None = None,
) -> None:
    """Score every row into a file that is whole or not there.

    HDF5 is made of shards, as by ``analyze``: what an interrupted run leaves can be resumed. It
    holds numbers alone: of columns that are text the row's number tells which they are.

    Args:
        scoring: the rows.
        out: ``.csv``, ``.parquet`` or ``.h5``.
        overwrite: replace an existing file.
        resume: go on with an unfinished HDF5 file, if there is one.
        progress: show a bar on stderr.
        tally: counts every row as it is written.

    Raises:
        OptionError: for another format, or Parquet without pyarrow.
        ResultError: when the file exists, or cannot be written.
    """
    check_out(out, overwrite=overwrite, resume=resume)
    if out.suffix == ".h5":
        counted = tally or Tally()
        _hdf5(scoring, out, counted, overwrite=overwrite, resume=resume, progress=progress)
        return
    with flat.writing(out, scoring.rows) as write:
        write_batches(scoring, write, progress=progress, tally=tally)


def write_batches(
    scoring: Scoring, write: flat.Write, *, progress: bool = False, tally: Tally | None = None
) -> None:
    """Score every row, and hand on the columns batch by batch."""
    with bar(scoring.rows, 0, "scoring", shown=progress) as advance:
        for columns in scoring:
            write(columns)
            advance(len(columns["score"]))
            if tally is not None:
                tally.take(columns)


def _hdf5(
    scoring: Scoring, out: Path, tally: Tally, *, overwrite: bool, resume: bool, progress: bool
) -> None:
    attributes = scoring.attributes()
    asked, order, latent = scoring.asked, scoring.data.order, scoring.vae.latent_size
    identity = {**attributes, "parts": asked.by_latent, "map": asked.by_input}
    with Working.open(out, identity, overwrite=overwrite, resume=resume) as working:
        folder = ShardFolder(working, identity)
        folder.settled = working.settle({"batch_size": scoring.batch})
        scoring.batch = folder.settled["batch_size"]
        ranges = even(scoring.rows, scoring.batch)
        missing = folder.missing(ranges, order)
        done = scoring.rows - sum(map(len, missing))
        with bar(scoring.rows, done, "scoring", shown=progress) as advance:
            for rows in missing:
                with folder.writer(rows, order, latent) as shard:
                    for columns in scoring.batches(rows):
                        count = len(columns["score"])
                        shard.append(count, _numbers(columns))
                        advance(count)
                    shard.finish(folder.record(), {})
        with (
            folder.opened(ranges, order) as shards,
            ResultWriter(working, samples=scoring.rows, latent=latent) as writer,
        ):
            every, step = Columns(shards), StepUp()
            starts = range(0, scoring.rows, _ROWS)
            for start in starts if asked.fdr is not None else ():
                step.count(every.read(start, min(start + _ROWS, scoring.rows))["p_value"].values)
            for start in starts:
                stop = min(start + _ROWS, scoring.rows)
                whole = every.read(start, stop)
                if asked.fdr is not None:
                    whole |= _numbers(step.columns(whole["p_value"].values, asked.fdr))
                writer.append(start, whole)
                along = scoring.data.carried(start, stop)
                tally.take(along | {name: one.values for name, one in whole.items()})
            writer.finish(attributes).close()


def _numbers(columns: Mapping[str, np.ndarray]) -> dict[str, Variable]:
    """Columns of numbers, with what they are."""
    return {k: _variable(k, v) for k, v in columns.items() if v.dtype.kind in "fiub"}


def _variable(name: str, values: np.ndarray) -> Variable:
    flag = f"above the threshold by {name[5:]}" if name.startswith("flag_") else f"{name} as given"
    long_name, units = _TEXTS.get(name, (flag, "1"))
    if name == "flag_alpha":
        long_name = "p-value at most alpha"
    dims: tuple[str, ...] = ("sample",)
    if name == "rate_by_latent":
        dims = ("sample", "latent")
    elif name == "distortion_map":
        dims = ("sample", *_AXES.get(values.ndim - 1, _numbered(values.ndim - 1)))
    return Variable(dims, values, long_name, units=units)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"input_{axis}" for axis in range(count))
