"""Analyses of which several processes do a share each: the shares, and their exact merge."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from isoprobe.errors import OptionError, ResultError
from isoprobe.results.journal import difference
from isoprobe.results.writer import ResultWriter
from isoprobe.run.opening import begin, opened
from isoprobe.run.processes import Process, await_shards
from isoprobe.run.settle import Settings
from isoprobe.run.shards import Part, Shard, in_order, write_shard

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Dataset
    from isoprobe.results.reader import Result


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a shard remembers of how it was asked for, so that a merge need not be told again.

    What code an adapter may run is not among it: no file may say that.
    """

    model: str
    data: str | None
    adapted: bool
    metric: str | None
    beta: float | str | None
    analyses: tuple[str, ...]
    samples: int | None
    batch_size: int | None
    dtype: str | None
    pullback: str
    pairs: int
    seed: int
    resize: int | tuple[int, int] | None
    scale: tuple[float, float] | None
    memory: int
    allow_random: bool = False

    @classmethod
    def of(cls, model: object, data: object, settings: Settings) -> Request | None:
        """Return the request; None where model, data or plugins are in memory."""
        given = {k: v for k, v in vars(settings).items() if k in cls.__struct_fields__}
        adapted = bool(settings.adapter or settings.options)
        model, data = (str(x) if isinstance(x, Path) else x for x in (model, data))
        try:
            return msgspec.convert({**given, "model": model, "data": data, "adapted": adapted}, cls)
        except msgspec.ValidationError:
            return None

    @classmethod
    def read(cls, shard: Shard) -> Request:
        """Return the request that a shard remembers.

        Raises:
            ResultError: if it has none, or is damaged.
        """
        kept = shard.attrs.get("request")
        if kept is None:
            raise ResultError(
                f"{shard.path} was made in Python from a model, data or plugins in memory; merge "
                "it there, with isoprobe.run.merging.merge"
            )
        try:
            return msgspec.convert(kept, cls)
        except msgspec.ValidationError as error:
            raise ResultError(f"{shard.path} is damaged: request: {error}") from error

    def settings(self) -> dict[str, Any]:
        """Return the settings as they were, all but those that say what code runs, and where."""
        asked: dict[str, Any] = msgspec.structs.asdict(self)
        return {name: asked[name] for name in asked.keys() - {"model", "data", "adapted"}}


def analyze_shard(
    part: Part,
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray | None = None,
    *,
    out: str | Path,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
    **settings: Any,
) -> Path:
    """Do one share of the samples of an analysis; :func:`merge` makes the result of all shares.

    Args:
        part: which share.
        model: as :func:`isoprobe.analyze` takes it.
        data: as :func:`isoprobe.analyze` takes it, the same for every share.
        out: the result to be; the shard lies beside it.
        overwrite: replace an existing shard.
        resume: go on with an unfinished shard; a finished one of the same run is left alone.
        progress: show a bar on stderr.
        command: the command line that asks for this.
        settings: the other arguments of :func:`isoprobe.analyze`, the same for every share.

    Returns:
        The shard's path.

    Raises:
        ResultError: if the shard exists already, or is being written.
    """
    asked = Settings(**settings)
    path = part.path(Path(out))
    with opened(model, data, asked) as subject:
        job = subject.job(asked, progress=progress)
        job.run.require_mergeable()
        if resume and path.exists() and (not overwrite or is_done(path, job.identity)):
            with Shard.open(path) as shard:
                _require_same(shard, job.identity)
            return path
        rows = part.rows(job.run.data.samples)
        writer = ResultWriter.open(
            path,
            samples=len(rows),
            latent=job.run.vae.latent_size,
            overwrite=overwrite,
            resume=resume,
            identity={**job.identity, "shard": str(part)},
        )
        with writer:
            gathered = job.run.gather(writer, rows)
            attrs = {
                **job.attrs,
                "identity": _plain(job.identity),
                "request": _request(model, data, asked),
                "probe_notes": list(gathered.notes),
                "command": command,
            }
            write_shard(writer, rows, gathered.setup.active, gathered.state(), attrs)
    return path


def analyze_together(
    process: Process,
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray | None = None,
    *,
    out: str | Path | None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
    **settings: Any,
) -> Result | None:
    """Do this process' share of an analysis; the first process merges the shares of all.

    Args:
        process: its place among the processes.
        model: as :func:`isoprobe.analyze` takes it.
        data: as :func:`isoprobe.analyze` takes it.
        out: result file, in a folder that every process sees; the shards lie beside it meanwhile.
        overwrite: replace an existing result and shards.
        resume: go on with unfinished shards; finished ones are left alone.
        progress: show what the first process does on stderr.
        command: the command line that asks for this.
        settings: the other arguments of :func:`isoprobe.analyze`.

    Returns:
        The result in the first process, None in the others.

    Raises:
        OptionError: without a file to write.
        ResultError: if the result exists already, or another process died.
    """
    if out is None:
        raise OptionError("several processes need --out F.h5, in a folder that all of them see.")
    out = Path(out)
    if out.exists() and not overwrite:
        raise ResultError(f"{out} exists already; add --overwrite to replace it")
    if overwrite and not resume:
        process.part.path(out).unlink(missing_ok=True)  # or the first process might take it for new
    first = process.rank == 0
    settings["device"] = process.device(settings.get("device", "auto"))
    own = analyze_shard(
        process.part,
        model,
        data,
        out=out,
        overwrite=overwrite,
        resume=resume,
        progress=progress and first,
        command=command,
        **settings,
    )
    if not first:
        return None
    with Shard.open(own) as shard:
        identity = shard.identity
    paths = [part.path(out) for part in process.parts]
    await_shards(paths, partial(is_done, identity=identity), shown=progress)
    result = merge(
        paths,
        model,
        data,
        out=out,
        overwrite=overwrite,
        progress=progress,
        command=command,
        **settings,
    )
    for path in paths:
        path.unlink()
    return result


def merge(
    shards: Sequence[str | Path],
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray | None = None,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    progress: bool = False,
    command: str = "",
    **settings: Any,
) -> Result:
    """Make of all shards the result that one process would have made.

    Args:
        shards: every shard of one run, in any order.
        model: as the shards were made with.
        data: as the shards were made with.
        out: result file; a temporary one when None.
        overwrite: replace an existing result.
        progress: show a bar on stderr.
        command: the command line that asks for this.
        settings: as the shards were made with; the device may be another.

    Returns:
        The result.
    """
    asked = Settings(**settings)
    with ExitStack() as stack:
        ordered = in_order([stack.enter_context(Shard.open(path)) for path in shards])
        job = stack.enter_context(opened(model, data, asked)).job(asked, progress=progress)
        # the pass was made where the shards were; where they are put together does not matter
        job.attrs["device"] = ordered[0].attrs.get("device", "")
        job.identity["device"] = ordered[0].identity.get("device")
        _require_same(ordered[0], job.identity)
        writer = stack.enter_context(begin(job, out, overwrite=overwrite))
        gathered = job.run.merge(writer, ordered)
        context = job.run.resolve(gathered)
        return job.run.conclude(writer, gathered, context, job.labels(command, out))


def merge_files(
    shards: Sequence[Path],
    out: Path,
    *,
    model: Path | None = None,
    data: str | None = None,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    trust: bool = False,
    device: str = "auto",
    **more: Any,
) -> Result:
    """Merge shards as they say that they were made.

    Args:
        shards: every shard of one run, in any order.
        out: result file.
        model: where the checkpoint lies now; where it lay when None.
        data: the data's spec now; as it was when None.
        adapter: name of the adapter, where one was named for the shards.
        options: of the adapter, where some were given for the shards.
        trust: let code inside the checkpoint run.
        device: where the model runs.
        more: ``overwrite``, ``progress`` and ``command`` of :func:`merge`.

    Returns:
        The result.

    Raises:
        OptionError: where the adapter must be named again.
    """
    with Shard.open(shards[0]) as first:
        request = Request.read(first)
    if request.adapted and not (adapter or options):
        raise OptionError(
            "the shards were made with --adapter or --option; give these to merge as well, since "
            "no file may say which code is run"
        )
    return merge(
        shards,
        model or request.model,
        data or request.data,
        out=out,
        adapter=adapter,
        options=options,
        trust=trust,
        device=device,
        **request.settings(),
        **more,
    )


def is_done(path: Path, identity: Mapping[str, Any]) -> bool:
    """Return whether a shard of that run lies there, finished."""
    try:
        with Shard.open(path) as shard:
            return difference(shard.identity, _plain(identity)) is None
    except ResultError:
        return False


def _request(model: object, data: object, settings: Settings) -> Any:
    request = Request.of(model, data, settings)
    return None if request is None else msgspec.to_builtins(request)


def _plain(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity as a file gives it back."""
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain


def _require_same(shard: Shard, identity: Mapping[str, Any]) -> None:
    found = difference(shard.identity, _plain(identity))
    if found is not None:
        raise ResultError(f"{shard.path} is of another run: {found}; use what it was made with")
