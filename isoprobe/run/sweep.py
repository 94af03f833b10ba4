"""Analyse many checkpoints on many data sets, each pair for itself: what fails is one of them.

The analysis of a pair is a function of paths and settings, so that any scheduler can do a sweep.
Without one they are done one after the other. On a cluster each is a task; one that takes long
leaves what is missing of it to tasks of its shards.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from isoprobe.checkpoints.contents import steps_told
from isoprobe.checkpoints.source import Source
from isoprobe.data.files import short_names, split_spec
from isoprobe.errors import IsoprobeError, OptionError, ResultError
from isoprobe.results.reader import Result
from isoprobe.results.sweep import (
    Outcome,
    read_table,
    result_names,
    stem,
    steps_in_name,
    write_table,
)
from isoprobe.results.working import discard, is_mistake
from isoprobe.run.cluster import absolute, make_on_worker
from isoprobe.run.merging import ShardWork, UnfinishedError, run_shards

if TYPE_CHECKING:
    from isoprobe.run.cluster import Cluster, Tasks
    from isoprobe.run.settings import RunSettings

#: what the table says of a pair whose turn has not come, or whose analysis was killed
UNDONE = "not analysed yet"
#: seconds after which the task of a pair leaves shards that are missing to tasks of their own
PATIENCE = 30.0


@dataclass(frozen=True)
class Pair:
    """A checkpoint on a data set.

    Attributes:
        look: at the checkpoint, before it is analysed.
        data: as :func:`isoprobe.analyze` takes it.
        out: result file.
    """

    look: Outcome
    data: Any
    out: Path

    @property
    def name(self) -> tuple[str, str]:
        """Checkpoint and data."""
        return self.look.pair

    def absolute(self) -> Pair:
        """Return the same as other processes find it."""
        look = msgspec.structs.replace(self.look, model=absolute(self.look.model))
        data = None if self.data is None else absolute(str(self.data))
        return Pair(look, data, self.out.resolve())

    def failed(self, error: BaseException | str) -> Outcome:
        """Return its record where it has no result."""
        return msgspec.structs.replace(self.look, error=" ".join(str(error).split()))


@dataclass(frozen=True)
class Unfinished:
    """A pair of which shards are missing.

    Attributes:
        work: the run, as a worker is told of it.
        ranges: samples of each shard that is missing.
        seconds: that it took so far.
    """

    work: ShardWork
    ranges: Sequence[range]
    seconds: float


def sweep(
    models: Sequence[str | Path],
    data: Any,
    asked: RunSettings,
    folder: str | Path,
    *,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
    told: Callable[[Outcome], object] = lambda outcome: None,
    cluster: Cluster | None = None,
) -> list[Outcome]:
    """Analyse checkpoints into a folder: a result for each, and a table of results and failures.

    Args:
        models: paths of the checkpoints.
        data: as :func:`isoprobe.analyze` takes it, the same for all; or a list of data specs, on
            each of which each checkpoint is analysed.
        asked: what for, the same for all.
        folder: of the results; made where there is none.
        overwrite: replace existing results.
        resume: keep results of the same checkpoints, data and settings, and go on with the others.
        progress: show a bar for each on stderr.
        command: the command line that asks for this.
        told: called with each outcome as it comes.
        cluster: analyses them, of files that its workers see under the same paths; one after the
            other here when None.

    Returns:
        What became of each checkpoint on each data set, by checkpoints in the order given.

    Raises:
        OptionError: for no data set, or data in memory among several.
        ResultError: where the folder cannot be made, or holds one of the results already.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    table = {outcome.pair: outcome for outcome in read_table(folder)}
    pairs = planned(models, data, asked, folder, table, overwrite=overwrite, resume=resume)
    known = {o.sha256 for o in (*table.values(), *(pair.look for pair in pairs))}
    done = {}
    for pair in pairs:
        if resume and not overwrite and pair.out.exists():
            done[pair.name] = kept(pair.look, table.get(pair.name), pair.out, known)
    for outcome in done.values():
        told(outcome)
    todo = [pair for pair in pairs if pair.name not in done]
    taken, named = {pair.out.name for pair in todo}, {pair.name for pair in pairs}
    table = {  # without pairs whose results others are about to replace
        name: outcome
        for name, outcome in table.items()
        if name in named or outcome.result not in taken
    }
    table |= {pair.name: pair.look for pair in todo} | done
    write_table(folder, list(table.values()))
    settings: dict[str, Any] = {"overwrite": overwrite, "resume": resume, "command": command}
    if cluster is not None:
        found = _on(cluster, todo, asked, settings)
    else:
        found = _here(todo, asked, {**settings, "progress": progress})
    for name, outcome in found:
        table[name] = outcome
        write_table(folder, list(table.values()))
        told(outcome)
    return [table[pair.name] for pair in pairs]


def _here(
    todo: Sequence[Pair], asked: RunSettings, settings: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, str], Outcome]]:
    """Yield what became of each pair, done one after the other."""
    for pair in todo:
        found = analyze_into(pair, asked, **settings)
        if isinstance(found, Outcome):  # as all are without a patience that ends
            yield pair.name, found


def _on(
    cluster: Cluster, todo: Sequence[Pair], asked: RunSettings, settings: Mapping[str, Any]
) -> Iterator[tuple[tuple[str, str], Outcome]]:
    """Yield what became of each pair on a cluster, as they end."""
    # what a lost worker began, another goes on with
    settings = {**settings, "resume": True, "patience": PATIENCE}
    with cluster.tasks(asked.device) as tasks:
        graphs = {pair.name: _Graph(pair, tasks, asked, settings) for pair in todo}
        for name, found in tasks:
            outcome = graphs[name].take(found)
            if outcome is not None:
                yield name, outcome


class _Graph:
    """The tasks of a pair: of the whole, and where that takes too long, of its shards.

    Args:
        pair: to be analysed.
        tasks: take calls.
        asked: what for.
        settings: how it is written, as :func:`analyze_into` takes it.
    """

    def __init__(
        self, pair: Pair, tasks: Tasks, asked: RunSettings, settings: Mapping[str, Any]
    ) -> None:
        self._pair, self._tasks = pair, tasks
        self._call = partial(analyze_into, pair.absolute(), asked, **settings)
        self._work: ShardWork | None = None
        self._shards = 0
        self._seconds = 0.0
        self._left = 0.0
        tasks.add(pair.name, self._call)

    def take(self, found: Any) -> Outcome | None:
        """Take what a task returned or raised; return the pair's record at its end."""
        if isinstance(found, Unfinished):
            self._left, self._seconds = time.monotonic(), self._seconds + found.seconds
            self._work = found.work
            self._shards, token = len(found.ranges), secrets.token_hex(8)
            for rows in found.ranges:
                call = (found.work, token, rows)
                self._tasks.add(self._pair.name, make_on_worker, *call, priority=1)
            return None
        if isinstance(found, Outcome):
            seconds = round(self._seconds + found.seconds, 3)
            return msgspec.structs.replace(found, model=self._pair.look.model, seconds=seconds)
        if found is not None:
            self._tasks.drop(self._pair.name)
            if self._work is not None and is_mistake(found):
                discard(self._work.target)
            return self._pair.failed(found)
        self._shards -= 1
        if not self._shards:
            self._seconds += time.monotonic() - self._left
            self._tasks.add(self._pair.name, self._call, priority=2)
        return None


def planned(
    models: Sequence[str | Path],
    data: Any,
    asked: RunSettings,
    folder: Path,
    table: Mapping[tuple[str, str], Outcome],
    *,
    overwrite: bool = False,
    resume: bool = False,
) -> list[Pair]:
    """Look at the checkpoints of a sweep, and say where each result will lie.

    Args:
        models: paths of the checkpoints.
        data: as :func:`sweep` takes it.
        asked: what for.
        folder: of the results.
        table: of the folder.
        overwrite: existing results may be replaced.
        resume: and kept, under the names that they have.

    Returns:
        Each checkpoint on each data set.

    Raises:
        OptionError: for no data set, or data in memory among several.
        ResultError: where the folder holds one of the results already.
    """
    given = list(data) if isinstance(data, list | tuple) else [data]
    if not given:
        raise OptionError("no data set is named; give None for the checkpoints' own")
    if len(given) > 1:
        if not all(isinstance(spec, str | Path) for spec in given):
            raise OptionError("several data sets are named by specs; give one in memory alone")
        given = list(dict.fromkeys(given))
    paths = list(dict.fromkeys(map(Path, models)))
    looks = [
        msgspec.structs.replace(look, data=_spec(spec), request=_request(spec, asked))
        for look in map(partial(looked_at, asked=asked), paths)
        for spec in given
    ]
    lying = {
        pair: outcome.result
        for pair, outcome in table.items()
        if outcome.result is not None and (folder / outcome.result).exists()
    }
    asked_for = {look.pair for look in looks}
    held = [name for pair, name in lying.items() if pair in asked_for or not overwrite]
    short = short_names(list(map(str, given))) if len(given) > 1 else ()
    names = result_names(paths, short, held if overwrite or resume else ())
    outs = [  # a result stays where it lies, whatever other pairs there were then
        folder / lying.get(look.pair, name) for look, name in zip(looks, names, strict=True)
    ]
    there = [out for out in outs if out.exists()]
    if there and not (overwrite or resume):
        raise ResultError(
            f"{there[0]} exists already"
            + (f", and {len(there) - 1} more" if len(there) > 1 else "")
            + "; keep it with --resume, or replace it with --overwrite"
        )
    return [
        Pair(look, spec, out)
        for look, spec, out in zip(looks, given * len(paths), outs, strict=True)
    ]


def _same(earlier: Outcome, look: Outcome) -> bool:
    """Whether a record is of what is asked for now."""
    known = (look.sha256, look.request)
    return all(known) and (earlier.sha256, earlier.request) == known


def looked_at(model: Path, asked: RunSettings) -> Outcome:
    """Look at a checkpoint before it is analysed; runs nothing.

    Args:
        model: path of the checkpoint.
        asked: what for.

    Returns:
        The record of one that is not done yet, on no data.
    """
    steps, sha256 = steps_in_name(stem(model)), ""
    try:
        source = Source(model, trusted=asked.trust)
        sha256, steps = source.sha256(), {**steps, **steps_told(source)}
    except (IsoprobeError, OSError):  # its analysis says what is wrong
        pass
    return Outcome(str(model), steps, error=UNDONE, sha256=sha256)


def kept(look: Outcome, earlier: Outcome | None, out: Path, known: Collection[str] = ()) -> Outcome:
    """Return the record of a result that is there already, if it is what is asked for.

    Args:
        look: at the checkpoint.
        earlier: what the table says of it.
        out: the result that is there.
        known: hashes of the checkpoints that are swept, or were.

    Returns:
        The record.

    Raises:
        ResultError: where it is of another checkpoint, other data or other settings, or where
            that cannot be told.
    """
    with Result.open(out) as result:
        # adapters of folders may hash the weights alone, which is no other checkpoint's hash
        exchanged = result.attrs.get("model_sha256") in set(known) - {look.sha256, ""}
    if earlier is None or exchanged or not _same(earlier, look):
        raise ResultError(
            f"{out} is of another checkpoint, other data or other settings; use the same, or "
            "replace it with --overwrite"
        )
    if earlier.result == out.name:
        return earlier
    return msgspec.structs.replace(earlier, result=out.name, error=None)


def analyze_into(pair: Pair, asked: RunSettings, **how: Any) -> Outcome | Unfinished:
    """Analyse one pair of a sweep; what goes wrong is said in its record.

    Args:
        pair: what.
        asked: what for.
        how: it is written, as :func:`~isoprobe.run.merging.run_shards` takes it.

    Returns:
        The record of what became of it; what is missing of it where patience has ended.
    """
    began, look = time.perf_counter(), pair.look
    try:
        result = run_shards(look.model, pair.data, asked, out=pair.out, **how)
        if result is not None:
            result.close()
        found = msgspec.structs.replace(look, result=pair.out.name, error=None)
    except UnfinishedError as left:
        return Unfinished(left.work, left.ranges, time.perf_counter() - began)
    except (IsoprobeError, OSError) as error:
        found = pair.failed(error)
    except Exception as error:  # a defect of ours is no reason to lose the other pairs
        found = pair.failed(f"internal error ({type(error).__name__}: {error})")
    return msgspec.structs.replace(found, seconds=round(time.perf_counter() - began, 3))


def _spec(data: Any) -> str:
    """How a record names the data; empty for the checkpoint's own, and for data in memory."""
    return str(data) if isinstance(data, str | Path) else ""


def _request(data: Any, asked: RunSettings) -> str:
    """Tell whether the same is asked for again; empty for data in memory."""
    if not isinstance(data, str | Path | None):
        return ""
    file = Path(split_spec(str(data or ""))[0])
    written = file.stat().st_mtime_ns if data is not None and file.exists() else 0
    return hashlib.sha256(repr((str(data), written, asked)).encode()).hexdigest()[:16]
