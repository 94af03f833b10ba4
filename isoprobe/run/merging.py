"""Do a run as a list of shards: make those that are missing, and merge all of them in order.

One process, several, a job array, a run that was killed and one that takes samples until they are
enough differ in who makes which shard, and in nothing else.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.errors import IsoprobeError, OptionError, ResultError
from isoprobe.progress import bar
from isoprobe.results.shard import Shard
from isoprobe.results.working import Visited, Working, plain
from isoprobe.results.writer import ResultWriter
from isoprobe.run.cluster import absolute, require_seen
from isoprobe.run.engine import Gathered, Pass
from isoprobe.run.enough import (
    DECIDING,
    DEFAULT_LIMIT,
    Enough,
    Largest,
    encoded_too,
    largest_error,
    largest_rate_error,
)
from isoprobe.run.opening import opened, processor_threads
from isoprobe.run.settings import RunSettings, remember, remembered
from isoprobe.run.shards import (
    Part,
    ShardFolder,
    found_in,
    in_order,
    recorded,
    require_same,
    sweep,
)
from isoprobe.show.result import Result

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Context, Dataset
    from isoprobe.data.batches import Prepared
    from isoprobe.run.cluster import Cluster
    from isoprobe.run.processes import Process
    from isoprobe.run.settle import Job


_LOG = logging.getLogger(__name__)


class _EndedError(Exception):
    """Another process has published the result meanwhile."""


class UnfinishedError(Exception):
    """Shards are left to whoever makes them; resumed after that, the run goes on.

    Attributes:
        work: the run, as a worker is told of it.
        ranges: samples of each shard that is missing.
    """

    def __init__(self, work: ShardWork, ranges: Sequence[range]) -> None:
        super().__init__(f"{len(ranges)} shards are missing")
        self.work, self.ranges = work, list(ranges)


def run_shards(
    model: Any,
    data: Any,
    asked: RunSettings,
    *,
    out: str | Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    progress: bool = False,
    command: str = "",
    process: Process | None = None,
    cluster: Cluster | None = None,
    patience: float | None = None,
) -> Result | None:
    """Make every shard of a run that is not there, and the result of all.

    Args:
        model: as :func:`isoprobe.analyze` takes it.
        data: as :func:`isoprobe.analyze` takes it.
        asked: what for.
        out: result file; a temporary one when None.
        overwrite: replace an existing result.
        resume: go on with an unfinished result.
        progress: show a bar on stderr.
        command: the command line that asks for this.
        process: place among several that do the same; each makes shards until none is missing.
        cluster: makes the shards, of a model and data that its workers see under the same paths.
        patience: seconds after which shards are left to others, of a run that can be split; None
            for no end.

    Returns:
        The result; None in all processes but the first.

    Raises:
        UnfinishedError: where patience has ended before the shards.
    """
    last, until = process is not None and process.rank > 0, _until(patience)
    with opened(model, data, asked) as subject, processor_threads(asked.threads):
        rows = len(subject.dataset)
        enough = Enough.asked(asked.samples, asked.tolerance, rows)
        count = enough.first(subject.least(asked)) if enough else _number(asked)
        job = subject.job(asked, count, progress=progress)
        if process is not None or cluster is not None:
            job.run.require_mergeable()
        if last and out is not None and _is_there(Path(out), job):
            return None
        identity = {**job.identity, **_asked(enough)}
        with Working.open(
            None if out is None else Path(out),
            identity,
            overwrite=overwrite,
            resume=resume,
            together=process is not None,
        ) as working:
            work = _Work(working, identity, remember(model, data, asked), progress=progress)
            passing: Pass | None = None
            with suppress(_EndedError):
                while True:
                    told = Asked(model, data, asked, count, enough)
                    if cluster is not None:
                        passing = work.complete_on(cluster, job, told, passing)
                    elif until is not None and job.run.mergeable:
                        passing = work.complete_until(until, job, told, passing)
                    else:
                        passing = work.complete(job, process, earlier=passing)
                    with work.shards(job, passing) as made:
                        gathered = job.run.fold(made, passing.active, passing.notes, passing.steps)
                        if enough is None:
                            context = job.run.resolve(gathered)
                        else:
                            count, found = work.until(enough, job, passing, gathered, process)
                            if found is None:
                                job = subject.longer(job, asked, count, progress=progress)
                                continue
                            context = found
                        if last:
                            return None
                        attrs = {**job.labels(command, out), **_shown(work.folder.settled)}
                        _LOG.info("concluding: %s", ", ".join(s.name for s in gathered.steps))
                        with _writer(working, job, asked) as writer:
                            return job.run.conclude(writer, made, gathered, context, attrs)
    return None


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
    """Make one process' share of the shards; :func:`merge` makes the result of all shares.

    Args:
        part: which share.
        model: as :func:`isoprobe.analyze` takes it.
        data: as :func:`isoprobe.analyze` takes it, the same for every share.
        out: the result to be; the shards lie in its working folder, ``F.h5.partial``.
        overwrite: replace an existing result, and the shards of another run.
        resume: no shard that is there is made again, whether this is given or not.
        progress: show a bar on stderr.
        command: the command line that asks for this.
        settings: the other arguments of :func:`isoprobe.analyze`, the same for every share; 10,000
            samples where no number is given.

    Returns:
        The working folder.

    Raises:
        OptionError: for ``auto`` samples, of which no share is known beforehand.
        ResultError: if the folder holds another run, or is being written.
    """
    del command
    asked = RunSettings(**{"samples": DEFAULT_LIMIT, **settings})
    if asked.samples == "auto":
        raise OptionError(
            "--samples auto needs every sample, and a share has some; give a number of samples, as "
            "in --samples 10000"
        )
    with opened(model, data, asked) as subject, processor_threads(asked.threads):
        Enough.asked(asked.samples, asked.tolerance, len(subject.dataset))
        job = subject.job(asked, _number(asked), progress=progress)
        job.run.require_mergeable()
        with Working.open(
            Path(out), job.identity, overwrite=overwrite, resume=resume, together=True
        ) as working:
            request = remember(model, data, asked)
            work = _Work(working, job.identity, request, progress=progress)
            work.complete(job, part=part)
            return working.folder


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
        shards: every shard of one run, in any order, or folders of them.
        model: as the shards were made with.
        data: as the shards were made with.
        out: result file; a temporary one when None.
        overwrite: replace an existing result.
        progress: show a bar on stderr.
        command: the command line that asks for this.
        settings: as the shards were made with; the device may be another.

    Returns:
        The result; the working folder of ``out`` is removed, shards elsewhere are left alone.
    """
    asked = RunSettings(**{"samples": DEFAULT_LIMIT, **settings})
    with ExitStack() as stack:
        paths = found_in([Path(path) for path in shards])
        ordered = in_order([stack.enter_context(Shard.open(path)) for path in paths])
        job = stack.enter_context(opened(model, data, asked)).job(
            asked, _number(asked), progress=progress
        )
        first = ordered[0]
        # the pass was made where the shards were; where they are put together does not matter
        job.identity["device"] = recorded(first, "identity").get("device")
        require_same(first, plain(job.identity))
        job.attrs["device"] = recorded(first, "device", str)
        working = stack.enter_context(
            Working.open(
                None if out is None else Path(out), job.identity, overwrite=overwrite, resume=True
            )
        )
        working.keeps = True  # shards are somebody's work, whatever is wrong here
        active = np.array(recorded(first, "active", list), dtype=bool)
        gathered = job.run.fold(ordered, active, recorded(first, "notes", list))
        context = job.run.resolve(gathered)
        attrs = {**job.labels(command, out), **_shown(recorded(first, "settled"))}
        writer = stack.enter_context(_writer(working, job, asked))
        return job.run.conclude(writer, ordered, gathered, context, attrs)


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
        shards: every shard of one run, in any order, or folders of them.
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
    paths = found_in(shards)
    with Shard.open(paths[0]) as first:
        told, asked = remembered(first.record.get("request"), first.path)
    if told["adapted"] and not (adapter or options):
        raise OptionError(
            "the shards were made with --adapter or --option; give these to merge as well, since "
            "no file may say which code is run"
        )
    again = vars(asked) | {"adapter": adapter, "options": options, "trust": trust, "device": device}
    return merge(paths, model or told["model"], data or told["data"], out=out, **again, **more)


@dataclass(frozen=True)
class Asked:
    """How a run was asked for, by names alone.

    Attributes:
        model: path of a checkpoint.
        data: spec of the data.
        settings: as asked.
        samples: to take; None for all.
        enough: how many samples are enough, where that was asked.
    """

    model: Any
    data: Any
    settings: RunSettings
    samples: int | None
    enough: Enough | None = None

    def fixed(self, device: str, settled: Mapping[str, Any]) -> Asked:
        """Return the same as another process is to do it."""
        settings = replace(self.settings, device=device, threads=settled["threads"])
        data = None if self.data is None else absolute(str(self.data))
        return replace(self, model=absolute(str(self.model)), data=data, settings=settings)


@dataclass(frozen=True)
class ShardWork:
    """A run as a worker of a cluster is told of it, which makes shards of it.

    Attributes:
        asked: what for.
        target: the result to be, whose working folder every worker sees.
        record: what a shard says of itself.
    """

    asked: Asked
    target: Path
    record: Mapping[str, Any]

    @property
    def device(self) -> str:
        """Where its model runs."""
        return self.asked.settings.device

    @contextmanager
    def opened(self) -> Iterator[Callable[[range], None]]:
        """Open model and data here.

        Yields:
            What makes a shard of some samples.

        Raises:
            ResultError: when files or versions here are not those of the run.
        """
        settings, settled = self.asked.settings, self.record["settled"]
        with (
            opened(self.asked.model, self.asked.data, settings) as subject,
            processor_threads(settled["threads"]),
        ):
            job = subject.job(settings, self.asked.samples)
            folder = ShardFolder(Visited(self.target), self.record["identity"])
            own = plain({**job.identity, **_asked(self.asked.enough)})
            require_seen(folder.place, folder.identity, own)
            passing = Pass(job.run, settled)
            if passing.active.tolist() != self.record["active"]:
                raise ResultError("the pilot finds other latents active; use machines of one kind")

            def make(rows: range) -> None:
                torch.set_num_threads(settled["threads"])  # which each thread has its own of
                latent = job.run.vae.latent_size
                with folder.writer(rows, job.run.data.order, latent) as writer:
                    passing.make(writer, self.record, int, lambda: False)

            yield make


class _Work:
    """A run in its working folder."""

    def __init__(
        self,
        working: Working,
        identity: Mapping[str, Any],
        request: dict[str, Any] | None,
        *,
        progress: bool,
    ) -> None:
        self.working = working
        self.folder = ShardFolder(working, identity)
        self._request = request
        self._progress = progress

    def complete(
        self,
        job: Job,
        process: Process | None = None,
        part: Part | None = None,
        earlier: Pass | None = None,
    ) -> Pass:
        """Make the shards that are missing: all, or those of a part alone.

        Args:
            job: whose shards.
            process: place among several.
            part: of the shards; all when None.
            earlier: pass of a shorter run of the same.

        Returns:
            The pass that made them, or would have.
        """
        passing = self._settle(job, earlier)
        wanted = job.run.ranges(passing.batch)
        if part is not None:
            wanted = part.of(wanted)
        elif process is not None:
            wanted = process.part.first(wanted)
        with self._missing(job, wanted) as (missing, advance):
            if self._progress:
                passing.announce(sum(map(len, missing)))
            for rows in missing:
                self._make(job, passing, rows, advance)
        return passing

    def complete_on(
        self, cluster: Cluster, job: Job, asked: Asked, earlier: Pass | None = None
    ) -> Pass:
        """Have a cluster make the shards that are missing.

        Returns:
            The pass that would have made them here.
        """
        passing = self._settle(job, earlier)
        with self._missing(job, job.run.ranges(passing.batch)) as (missing, advance):
            for rows in cluster.make(self._told(job, passing, asked), missing):
                advance(len(rows))
        return passing

    def complete_until(
        self, until: Callable[[], bool], job: Job, asked: Asked, earlier: Pass | None = None
    ) -> Pass:
        """Make the shards that are missing, as long as there is time for it.

        Returns:
            The pass that made them.

        Raises:
            UnfinishedError: where more than one shard was missing, and one still is.
        """
        passing = self._settle(job, earlier)
        with self._missing(job, job.run.ranges(passing.batch)) as (missing, advance):
            over = until if len(missing) > 1 else lambda: False
            for place, rows in enumerate(missing):
                self._make(job, passing, rows, advance, over=over)
                if over() and (left := self.folder.missing(missing[place:], job.run.data.order)):
                    self.working.keeps = True  # what others are about to fill
                    raise UnfinishedError(self._told(job, passing, asked), left)
        return passing

    def _told(self, job: Job, passing: Pass, asked: Asked) -> ShardWork:
        """The run as a worker is told of it."""
        return ShardWork(
            asked.fixed(job.run.vae.device.type, self.folder.settled),
            self.working.target,
            self.folder.record(self._more(job, passing)),
        )

    @contextmanager
    def _missing(
        self, job: Job, wanted: list[range]
    ) -> Iterator[tuple[list[range], Callable[[int], object]]]:
        """Shards that are not there, and what takes how many more samples are done."""
        missing = self.folder.missing(wanted, job.run.data.order)
        total, left = (sum(map(len, ranges)) for ranges in (wanted, missing))
        with bar(total, total - left, "probing", shown=self._progress) as advance:
            yield missing, advance

    def _more(self, job: Job, passing: Pass) -> dict[str, Any]:
        """What a shard says of itself beside the run it is of."""
        return {
            "active": passing.active.tolist(),
            "notes": list(passing.notes),
            "device": job.attrs["device"],
            "request": self._request,
        }

    def until(
        self,
        enough: Enough,
        job: Job,
        passing: Pass,
        gathered: Gathered,
        process: Process | None,
    ) -> tuple[int, Context | None]:
        """Look whether samples are enough; where they are, encode more rows and conclude.

        Args:
            enough: what is.
            job: whose samples are all there; takes notes of why they are enough.
            passing: of that job.
            gathered: what they hold.
            process: place among several.

        Returns:
            How many samples to take, and what was concluded; None where that is more than there
            are.
        """
        samples = job.run.data.samples
        found = job.run.resolve(gathered, DECIDING)
        largest = largest_error(found.results, passing.active, found.beta)
        wanted = enough.after(samples, largest)
        _LOG.info("%d samples: %s is known to %.3g", samples, largest.what, largest.error)
        if wanted > samples:
            return wanted, None
        encoded, rate = self._encode(job, passing, gathered, enough, process)
        context = job.run.resolve(gathered)
        wanted = enough.decided(samples, context.results)
        if wanted > samples:
            return wanted, None
        job.notes.append(enough.told(samples, largest))
        if rate is not None:
            job.notes.append(encoded_too(encoded, rate))
            job.attrs["encoded"] = encoded
        return samples, context

    def _encode(
        self,
        job: Job,
        passing: Pass,
        gathered: Gathered,
        enough: Enough,
        process: Process | None,
    ) -> tuple[int, Largest | None]:
        """Let the analyses see more rows, through the encoder alone, until rates are known.

        Args:
            job: whose samples are all there.
            passing: of that job.
            gathered: takes the rows in.
            enough: says how many.
            process: place among several.

        Returns:
            How many were encoded in all, and the largest error of a rate; None where these are no
            more than the samples.
        """
        start, largest = job.run.data.samples, None
        stop = enough.encoded(start)
        while stop > start:
            data = replace(job.run.data, samples=stop, beyond=start)
            ranges = sweep(start, stop, passing.batch)
            wanted = ranges if process is None else process.part.first(ranges)
            missing = self.folder.missing(wanted, data.order)
            with bar(stop - start, 0, "encoding", shown=self._progress) as advance:
                for rows in missing:
                    self._make(job, passing, rows, advance, data)
            with self._unless_ended(), self.folder.opened(ranges, data.order) as shards:
                passing.merge_encoded(gathered.steps, shards)
            overview = job.run.resolve(gathered, ("overview",)).results["overview"]
            largest = largest_rate_error(overview, passing.active)
            start, stop = stop, enough.encoded(stop, largest)
        return start, largest

    @contextmanager
    def shards(self, job: Job, passing: Pass) -> Iterator[list[Shard]]:
        """All shards of the run, open, in order.

        Yields:
            The shards.
        """
        ranges = job.run.ranges(passing.batch)
        with self._unless_ended(), self.folder.opened(ranges, job.run.data.order) as shards:
            yield shards

    def _settle(self, job: Job, earlier: Pass | None) -> Pass:
        """A pass with the batch size, the route and the threads that hold for the whole run."""
        held = self.working.settled()
        # of runs that go on in the spread order, the pilot sees the same rows
        known = None if earlier is None or job.run.data.order.whole else earlier.active
        passing = Pass(job.run, held, known)
        if held is None:
            held = self.working.settle(passing.settled)
        torch.set_num_threads(held["threads"])
        self.folder.settled = held
        _LOG.info("settled: %s", ", ".join(f"{name} {value}" for name, value in held.items()))
        return passing if held == passing.settled else Pass(job.run, held, passing.active)

    def _make(
        self,
        job: Job,
        passing: Pass,
        rows: range,
        advance: Callable[[int], object],
        encoded: Prepared | None = None,
        over: Callable[[], bool] = lambda: False,
    ) -> None:
        """Make a shard; of rows that go through the encoder alone where they are given."""
        order = (encoded or job.run.data).order
        path = self.folder.path(rows, order)

        def done() -> bool:  # by somebody else, or the whole result is, meanwhile
            together = self.working.together
            return together and (path.exists() or not self.working.folder.exists())

        def ended() -> bool:
            return over() or done()

        if done() and not self.folder.missing([rows], order):
            return
        with self._unless_ended():
            with self.folder.writer(rows, order, job.run.vae.latent_size) as writer:
                record = self.folder.record(self._more(job, passing))
                if encoded is None:
                    passing.make(writer, record, advance, ended)
                else:
                    passing.make(writer, record, advance, ended, encoded)
            what = "probed" if encoded is None else "encoded"
            _LOG.info("samples %d to %d: %s", rows.start, rows.stop, what)
            if not self.working.folder.exists():
                raise _EndedError

    @contextmanager
    def _unless_ended(self) -> Iterator[None]:
        """Tell a folder that the first process has taken away from one that cannot be written.

        Yields:
            Nothing.

        Raises:
            _EndedError: for the former.
            ResultError: for the latter.
        """
        try:
            yield
        except ResultError:
            if self.working.together and not self.working.folder.exists():
                raise _EndedError from None
            raise


def _writer(working: Working, job: Job, asked: RunSettings) -> ResultWriter:
    samples, latent = job.run.data.samples, job.run.vae.latent_size
    return ResultWriter(working, samples=samples, latent=latent, keeps_rows=not asked.no_rows)


def _until(patience: float | None) -> Callable[[], bool] | None:
    """Return what tells whether so many seconds are over; None for no end."""
    if patience is None:
        return None
    end = time.monotonic() + patience
    return lambda: time.monotonic() >= end


def _number(asked: RunSettings) -> int | None:
    return None if asked.samples == "auto" else asked.samples


def _asked(enough: Enough | None) -> dict[str, Any]:
    """What tells a run of as many samples as are enough from one that was asked for by number."""
    if enough is None:
        return {}
    return {"samples": "auto", "tolerance": enough.tolerance, "limit": enough.limit}


def _shown(settled: Mapping[str, Any]) -> dict[str, Any]:
    """What was settled, as attributes of the result."""
    names = ("batch_size", "route", "threads")
    return {name: settled[name] for name in names if settled.get(name) is not None}


def _is_there(out: Path, job: Job) -> bool:
    """Whether another process has published this very result already."""
    try:
        with Result.open(out) as result:
            told = {name: result.attrs.get(name) for name in job.attrs}
    except IsoprobeError:
        return False
    known = plain(job.attrs)
    return all(plain(told)[name] == known[name] for name in known if name != "samples")
