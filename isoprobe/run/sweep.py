"""Analyse many checkpoints, each for itself: what fails takes nothing from the others.

The analysis of one checkpoint is a function of its path, the data and the settings, so that any
scheduler can do a sweep; here they are done one after the other.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from isoprobe.checkpoints.contents import steps_told
from isoprobe.checkpoints.source import Source
from isoprobe.data.files import split_spec
from isoprobe.errors import IsoprobeError, ResultError
from isoprobe.results.reader import Result
from isoprobe.results.sweep import (
    Outcome,
    read_table,
    result_names,
    stem,
    steps_in_name,
    write_table,
)
from isoprobe.run.cluster import absolute
from isoprobe.run.merging import run_shards

if TYPE_CHECKING:
    from isoprobe.run.cluster import Cluster
    from isoprobe.run.settings import RunSettings

#: what the table says of a checkpoint whose turn has not come, or whose analysis was killed
UNDONE = "not analysed yet"


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
        data: as :func:`isoprobe.analyze` takes it, the same for all.
        asked: what for, the same for all.
        folder: of the results; made where there is none.
        overwrite: replace existing results.
        resume: keep results of the same checkpoints and settings, and go on with the others.
        progress: show a bar for each on stderr.
        command: the command line that asks for this.
        told: called with each outcome as it comes.
        cluster: analyses them, of files that its workers see under the same paths; one after the
            other here when None.

    Returns:
        What became of each, in the order given.
    """
    paths, folder = [Path(model) for model in models], Path(folder)
    outs = places(paths, folder, overwrite=overwrite or resume)
    looks = [looked_at(path, data, asked) for path in paths]
    table = {outcome.model: outcome for outcome in read_table(folder)}
    done = {}
    for look, out in zip(looks, outs, strict=True):
        if resume and not overwrite and out.exists():
            done[look.model] = kept(look, table.get(look.model), out)
    for outcome in done.values():
        told(outcome)
    todo = [pair for pair in zip(looks, outs, strict=True) if pair[0].model not in done]
    table |= {look.model: look for look, _ in todo} | done
    write_table(folder, list(table.values()))
    settings: dict[str, Any] = {"overwrite": overwrite, "resume": resume, "command": command}
    here = {**settings, "progress": progress}
    found: Iterator[Outcome] = (analyze_into(x, data, asked, out, **here) for x, out in todo)
    if cluster is not None:
        found = _on(cluster, todo, data, asked, settings)
    for outcome in found:
        table[outcome.model] = outcome
        write_table(folder, list(table.values()))
        told(outcome)
    return [table[look.model] for look in looks]


def _on(
    cluster: Cluster,
    todo: Sequence[tuple[Outcome, Path]],
    data: Any,
    asked: RunSettings,
    settings: Mapping[str, Any],
) -> Iterator[Outcome]:
    """Yield what became of each checkpoint on a cluster, a task each, as they end."""
    data = None if data is None else absolute(str(data))
    again = {**settings, "resume": True}  # what a lost worker began, another goes on with
    calls = [
        (msgspec.structs.replace(look, model=absolute(look.model)), data, asked, out.resolve())
        for look, out in todo
    ]
    for place, outcome in cluster.each(partial(analyze_into, **again), calls, asked.device):
        look = todo[place][0]
        if isinstance(outcome, ResultError):
            yield msgspec.structs.replace(look, error=str(outcome))
        else:
            yield msgspec.structs.replace(outcome, model=look.model)


def places(models: Sequence[Path], folder: Path, *, overwrite: bool = False) -> list[Path]:
    """Make the folder of a sweep, and say where each result will lie.

    Args:
        models: paths of the checkpoints.
        folder: of the results.
        overwrite: existing results may be replaced, or kept.

    Returns:
        The result file of each, in the same order.

    Raises:
        ResultError: where the folder cannot be made, or holds one of the results already.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultError(f"cannot make the folder {folder}: {error.strerror or error}") from error
    outs = [folder / name for name in result_names(models)]
    there = [out for out in outs if out.exists()]
    if there and not overwrite:
        raise ResultError(
            f"{there[0]} exists already"
            + (f", and {len(there) - 1} more" if len(there) > 1 else "")
            + "; keep it with --resume, or replace it with --overwrite"
        )
    return outs


def looked_at(model: Path, data: Any, asked: RunSettings) -> Outcome:
    """Look at a checkpoint before it is analysed; runs nothing.

    Args:
        model: path of the checkpoint.
        data: as :func:`isoprobe.analyze` takes it.
        asked: what for.

    Returns:
        The record of one that is not done yet.
    """
    steps, sha256 = steps_in_name(stem(model)), ""
    try:
        source = Source(model, trusted=asked.trust)
        sha256, steps = source.sha256(), {**steps, **steps_told(source)}
    except (IsoprobeError, OSError):  # its analysis says what is wrong
        pass
    return Outcome(str(model), steps, error=UNDONE, sha256=sha256, request=_request(data, asked))


def kept(look: Outcome, earlier: Outcome | None, out: Path) -> Outcome:
    """Return the record of a result that is there already, if it is what is asked for.

    Args:
        look: at the checkpoint.
        earlier: what the table says of it.
        out: the result that is there.

    Returns:
        The record.

    Raises:
        ResultError: where it is of another checkpoint, other data or other settings, or where
            that cannot be told.
    """
    same = earlier is not None and (earlier.sha256, earlier.request) == (look.sha256, look.request)
    if earlier is None or not same or not (look.sha256 and look.request):
        raise ResultError(
            f"{out} is of another checkpoint, other data or other settings; use the same, or "
            "replace it with --overwrite"
        )
    Result.open(out).close()
    if earlier.result == out.name:
        return earlier
    return msgspec.structs.replace(earlier, result=out.name, error=None)


def analyze_into(
    look: Outcome,
    data: Any,
    asked: RunSettings,
    out: Path,
    **how: Any,
) -> Outcome:
    """Analyse one checkpoint of a sweep; what goes wrong is said in its record.

    Args:
        look: at the checkpoint.
        data: as :func:`isoprobe.analyze` takes it.
        asked: what for.
        out: result file.
        how: it is written, as :func:`~isoprobe.run.merging.run_shards` takes it.

    Returns:
        The record of what became of it.
    """
    began, error = time.perf_counter(), None
    try:
        result = run_shards(look.model, data, asked, out=out, **how)
        if result is not None:
            result.close()
    except (IsoprobeError, OSError) as found:
        error = " ".join(str(found).split())
    except Exception as found:  # a defect of ours is no reason to lose the other checkpoints
        error = " ".join(f"internal error ({type(found).__name__}: {found})".split())
    return msgspec.structs.replace(
        look,
        result=out.name if error is None else None,
        error=error,
        seconds=round(time.perf_counter() - began, 3),
    )


def _request(data: Any, asked: RunSettings) -> str:
    """Tell whether the same is asked for again; empty for data in memory."""
    if not isinstance(data, str | Path | None):
        return ""
    file = Path(split_spec(str(data or ""))[0])
    written = file.stat().st_mtime_ns if data is not None and file.exists() else 0
    return hashlib.sha256(repr((str(data), written, asked)).encode()).hexdigest()[:16]
