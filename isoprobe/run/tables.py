"""Write scores as they stream: CSV text, Parquet or HDF5, each file whole or not there."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from isoprobe.contracts import Variable
from isoprobe.errors import OptionError
from isoprobe.progress import bar
from isoprobe.results import flat
from isoprobe.results.working import Visited, Working, plain
from isoprobe.results.writer import ResultWriter
from isoprobe.run.cluster import absolute, require_seen
from isoprobe.run.decisions import StepUp, Tally
from isoprobe.run.scoring import open_scoring
from isoprobe.run.shards import Columns, ShardFolder, even

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence

    import numpy as np

    from isoprobe.results.shard import Shard
    from isoprobe.run.cluster import Cluster
    from isoprobe.run.scoring import Scoring
    from isoprobe.run.settings import ScoreSettings

#: rows copied at once from shards into a file
_ROWS = 8192
#: rows of a row group of a Parquet part at most, which readers hold whole
_PART_ROWS = 1 << 17

_TEXTS = {
    "row": ("row of the data", "1"),
    "score": ("anomaly score", "metric"),
    "loss": ("the objective L_x", "metric"),
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
#: names of the axes of one input, by their number; ``row`` is a column of scores
_AXES = {
    1: ("input",),
    2: ("pixel_row", "pixel_column"),
    3: ("channel", "pixel_row", "pixel_column"),
}
#: formats a file's name can ask for
FORMATS = (".csv", ".parquet", ".h5")


def check_out(
    out: Path | None,
    *,
    overwrite: bool,
    by_input: bool = False,
    resume: bool = False,
    inputs: Iterable[object] = (),
    parts: bool = False,
) -> None:
    """Refuse a file that cannot be written, before any work is done.

    Args:
        out: the file; None for CSV to a stream.
        overwrite: it may be replaced.
        by_input: it is to hold distortion maps.
        resume: an unfinished one is to be completed.
        inputs: what the run reads, which it may not replace.
        parts: it is a folder of Parquet files.

    Raises:
        OptionError: for a name of no known format, Parquet without pyarrow, or a table that is to
            hold maps or to be resumed.
        ResultError: when the file exists and may not be replaced, or has no folder.
    """
    if by_input and (out is None or out.suffix != ".h5"):
        raise OptionError("--map needs a file that holds arrays: add --out FILE.h5.")
    if resume and not parts and (out is None or out.suffix != ".h5"):
        raise OptionError(
            "--resume needs what is made of shards: it goes with --out FILE.h5 or --out FOLDER/."
        )
    if out is not None and parts:
        flat.check_folder(out, inputs=inputs)
        return
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
    on: tuple[Cluster, ScoreWork] | None = None,
    parts: bool = False,
) -> None:
    """Score every row into a file, or a folder of files, that is whole or not there.

    HDF5 and a folder are made of shards, as by ``analyze``: what an interrupted run leaves can be
    resumed. HDF5 holds numbers alone: of columns that are text the row's number tells which they
    are.

    Args:
        scoring: the rows.
        out: ``.csv``, ``.parquet`` or ``.h5``, or a folder to be.
        overwrite: replace an existing file.
        resume: go on with an unfinished file or folder made of shards, if there is one.
        progress: show a bar on stderr.
        tally: counts every row as it is written.
        on: a cluster that makes the shards, and how the rows were asked for.
        parts: make a folder of Parquet files, one for each shard.

    Raises:
        OptionError: for another format, or Parquet without pyarrow.
        ResultError: when the file exists, or cannot be written.
    """
    check_out(out, overwrite=overwrite, resume=resume, parts=parts)
    if parts or out.suffix == ".h5":
        counted, how = tally or Tally(), {"overwrite": overwrite, "resume": resume}
        _sharded(scoring, out, counted, progress=progress, on=on, parts=parts, **how)
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


@dataclass(frozen=True)
class ScoreWork:
    """Rows to be scored as a worker of a cluster is told of them, which makes shards of them.

    Attributes:
        model: path of the checkpoint.
        data: spec of the rows.
        reference: path of the result they are compared with.
        asked: settings.
        target: the file to be, whose working folder every worker sees.
        record: what a shard says of itself.
    """

    model: str
    data: str
    reference: str
    asked: ScoreSettings
    target: Path = Path()
    record: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> str:
        """Where its model runs."""
        return self.asked.device

    def fixed(self, scoring: Scoring, target: Path, record: Mapping[str, Any]) -> ScoreWork:
        """Return the same as another process is to do it."""
        asked = replace(
            self.asked,
            device=scoring.vae.device.type,
            threads=record["settled"]["threads"],
            batch_size=record["settled"]["batch_size"],
        )
        model, data, reference = map(absolute, (self.model, self.data, self.reference))
        return ScoreWork(model, data, reference, asked, target, record)

    @contextmanager
    def opened(self) -> Iterator[Callable[[range], None]]:
        """Open model, rows and reference here.

        Yields:
            What makes a shard of some rows.

        Raises:
            ResultError: when files here are not those of the run.
        """
        asked = {f.name: getattr(self.asked, f.name) for f in fields(self.asked)}
        with open_scoring(self.model, self.data, self.reference, **asked) as scoring:
            folder = ShardFolder(Visited(self.target), self.record["identity"])
            folder.settled = self.record["settled"]
            require_seen(folder.place, folder.identity, plain(score_identity(scoring)))
            torch.set_num_threads(folder.settled["threads"])
            yield lambda rows: make_shard(scoring, folder, rows, int)


def score_identity(scoring: Scoring) -> dict[str, Any]:
    """Return whatever the scores depend on."""
    asked = scoring.asked
    return {**scoring.attributes(), "parts": asked.by_latent, "map": asked.by_input}


def _sharded(
    scoring: Scoring,
    out: Path,
    tally: Tally,
    *,
    overwrite: bool,
    resume: bool,
    progress: bool,
    on: tuple[Cluster, ScoreWork] | None,
    parts: bool,
) -> None:
    """Score every row in shards, here or on a cluster, and put the shards together."""
    identity, order = score_identity(scoring), scoring.data.order
    with Working.open(out, identity, overwrite=overwrite, resume=resume) as working:
        folder = ShardFolder(working, identity)
        folder.settled = working.settle(
            {"batch_size": scoring.batch, "threads": torch.get_num_threads()}
        )
        scoring.batch = folder.settled["batch_size"]
        torch.set_num_threads(folder.settled["threads"])
        ranges = even(scoring.rows, scoring.batch)
        missing = folder.missing(ranges, order)
        done = scoring.rows - sum(map(len, missing))
        with bar(scoring.rows, done, "scoring", shown=progress) as advance:

            def made() -> Generator[range]:
                if on is None:
                    # all before any is joined: columns that go along are read then, and a packed
                    # file that is read in two places in turn starts over each time
                    for rows in missing:
                        make_shard(scoring, folder, rows, advance)
                    yield from missing
                    return
                cluster, work = on
                task = work.fixed(scoring, working.target, folder.record())
                with closing(cluster.make(task, missing)) as there:
                    for rows in there:
                        advance(len(rows))
                        yield rows

            with closing(made()) as there:
                ready = in_turn(ranges, missing, there)
                join(working, folder, ranges, scoring, tally, parts=parts, ready=ready)


def in_turn(
    ranges: Sequence[range], missing: Sequence[range], made: Iterator[range]
) -> Iterator[range]:
    """Yield shards in the order of their rows, each as soon as it and those before it are there.

    Args:
        ranges: rows of each shard.
        missing: those that are not there yet.
        made: gives these as they are, in any order.

    Yields:
        The rows of each shard.
    """
    waited_for = set(missing)
    for rows in ranges:
        while rows in waited_for:
            waited_for.remove(next(made))
        yield rows


def join(
    working: Working,
    folder: ShardFolder,
    ranges: Sequence[range],
    scoring: Scoring,
    tally: Tally,
    *,
    parts: bool,
    ready: Iterable[range],
) -> None:
    """Put shards together into what was asked for, while others are made.

    Args:
        working: where they lie.
        folder: the same as a folder of shards.
        ranges: rows of each shard, from the first on.
        scoring: whose rows they are.
        tally: counts every row as it is written.
        parts: make a folder of Parquet files, one for each shard.
        ready: gives the same, each when its shard is there.
    """
    attributes, asked = scoring.attributes(), scoring.asked
    kind, length = (_parted, _PART_ROWS) if parts else (_hdf5, _ROWS)
    with kind(working, ranges, scoring, attributes) as append:
        step = StepUp()
        if asked.fdr is not None:
            for _, whole in _blocks(folder, ready, scoring, length):
                step.count(whole["p_value"].values)
            ready = ranges
        for start, found in _blocks(folder, ready, scoring, length):
            whole = found
            if asked.fdr is not None:
                whole = found | _numbers(step.columns(found["p_value"].values, asked.fdr))
            along = scoring.data.carried(start, start + len(found["score"].values))
            append(start, whole, along)
            tally.take(along | {name: one.values for name, one in whole.items()})


def _blocks(
    folder: ShardFolder, ready: Iterable[range], scoring: Scoring, length: int
) -> Iterator[tuple[int, dict[str, Variable]]]:
    """Yield the columns of so many rows at a time, one shard open beside the first."""
    order = scoring.data.order
    with ExitStack() as stack:
        first: list[Shard] = []  # which has the columns that the others must have
        for rows in ready:
            with folder.opened([rows], order) as shards:
                every = Columns([*first, *shards])
                for start in range(rows.start, rows.stop, length):
                    yield start, every.read(start, min(start + length, rows.stop))
            first = first or stack.enter_context(folder.opened([rows], order))


Append = Callable[[int, "dict[str, Variable]", "dict[str, np.ndarray]"], None]


@contextmanager
def _hdf5(
    working: Working, ranges: Sequence[range], scoring: Scoring, attributes: Mapping[str, Any]
) -> Iterator[Append]:
    """Put rows into one HDF5 file, which holds numbers alone."""
    latent = scoring.vae.latent_size
    with ResultWriter(working, samples=ranges[-1].stop, latent=latent) as writer:
        yield lambda start, columns, _: writer.append(start, columns)
        writer.finish(attributes).close()


@contextmanager
def _parted(
    working: Working, ranges: Sequence[range], scoring: Scoring, attributes: Mapping[str, Any]
) -> Iterator[Append]:
    """Put rows into a folder of Parquet files, one for each shard."""
    del scoring
    made = working.folder / "parts"
    shutil.rmtree(made, ignore_errors=True)  # what a killed process left
    made.mkdir()
    told = {"isoprobe": json.dumps(plain(attributes))}
    starts = {rows.start: place for place, rows in enumerate(ranges)}
    with ExitStack() as stack:
        write: flat.Write | None = None

        def append(start: int, columns: dict[str, Variable], along: dict[str, np.ndarray]) -> None:
            nonlocal write
            if start in starts or write is None:
                stack.close()
                path = made / f"part-{starts[start]:06}.parquet"
                write = stack.enter_context(flat.parquet_to(path, told))
            write(along | {name: one.values for name, one in columns.items()})

        yield append
    working.publish(made)


def make_shard(
    scoring: Scoring, folder: ShardFolder, rows: range, advance: Callable[[int], object]
) -> None:
    """Score the rows of a shard, and write it.

    Args:
        scoring: the rows.
        folder: of the shards.
        rows: which.
        advance: takes how many more rows are done.
    """
    with folder.writer(rows, scoring.data.order, scoring.vae.latent_size) as shard:
        for columns in scoring.batches(rows):
            count = len(columns["score"])
            shard.append(count, _numbers(columns))
            advance(count)
        shard.finish(folder.record(), {})


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
