"""Tell what a job costs on a cluster before it is begun, from a small part of it done here.

The first batches of the job are made into two shards, merged and concluded in a temporary folder,
and each step is timed. Lines through these points give the whole job: the time of a sample, of a
shard, of its merge and of the result, and the bytes that each of them leaves.
"""

from __future__ import annotations

import heapq
import pickle
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.results.working import Working
from isoprobe.results.writer import ResultWriter
from isoprobe.run.announce import bytes_told, duration
from isoprobe.run.decisions import Tally
from isoprobe.run.engine import Pass
from isoprobe.run.enough import Enough
from isoprobe.run.merging import Asked, ShardWork
from isoprobe.run.opening import opened, processor_threads
from isoprobe.run.scoring import open_scoring
from isoprobe.run.shards import ShardFolder, even
from isoprobe.run.sweep import PATIENCE
from isoprobe.run.tables import ScoreWork, join, make_shard, score_identity

if TYPE_CHECKING:
    from isoprobe.data.batches import Prepared
    from isoprobe.results.shard import Shard
    from isoprobe.run.settings import RunSettings, ScoreSettings
    from isoprobe.run.settle import Job

#: processor seconds that a task takes of scheduler and asking process, at most, and when that was
#: measured, by ``python -m benchmarks.bench_cluster``
TASK, TASK_MEASURED = 0.003, "2026-11-27"
#: seconds of batches that are made to measure one, and the most of them
_SECONDS, _BATCHES = 3.0, 16
#: no more workers are told of
_WORKERS = 1024


@dataclass(frozen=True)
class Plan:
    """What a job costs, measured on a small part of it.

    Seconds are those of one processor thread, or of the clock where the model runs on a device or
    on several threads.

    Attributes:
        ranges: samples of each shard.
        measured: samples that were done here.
        opening: seconds until model and data stand ready, which each worker needs too.
        sample: seconds of a sample, without what the shard takes.
        shard: seconds of completing a shard's file.
        merge: seconds of taking a shard into the result.
        result: seconds of the result, whatever the number of samples.
        result_sample: and of a sample more.
        state_bytes: of a shard's file, whatever the number of its samples.
        sample_bytes: of a shard's file for each sample.
        input_bytes: of a sample's data, as it is stored.
        model_bytes: of the checkpoint.
        task_bytes: of a task as it goes to the scheduler.
        checkpoints: how many such jobs there are, a task each; a job alone, and one that takes
            long, goes by shards.
        most: the number of samples is the most that may be needed.
        beside: shards are put together while others are made, in the order of their samples.
    """

    ranges: Sequence[range]
    measured: int
    opening: float
    sample: float
    shard: float
    merge: float
    result: float
    result_sample: float
    state_bytes: int
    sample_bytes: float
    input_bytes: int
    model_bytes: int
    task_bytes: int
    checkpoints: int = 1
    most: bool = False
    beside: bool = False

    @property
    def samples(self) -> int:
        """Samples of a job."""
        return self.ranges[-1].stop if self.ranges else 0

    def alone(self) -> float:
        """Seconds of one process without a cluster."""
        made = self.samples * self.sample + len(self.ranges) * self.shard
        return self.checkpoints * (self.opening + made + self.concluding())

    def concluding(self) -> float:
        """Seconds that the asking process needs once all shards of a job are there."""
        return len(self.ranges) * self.merge + self.result + self.samples * self.result_sample

    def on(self, workers: int) -> float:
        """Seconds on so many workers, each shard going to the worker that is free first.

        The asking process opens model and data before the first task, and concludes after the
        last, or beside the workers; each worker opens them once. Each has a processor of its own.

        Args:
            workers: at least 1.

        Returns:
            Seconds.
        """
        if self.checkpoints > 1:
            rounds = -(-self.checkpoints // workers)
            whole = rounds * self.alone() / self.checkpoints + self.checkpoints * TASK
            return min(whole, self._split(workers)) if self.splits else whole
        free = [self.opening] * min(workers, len(self.ranges))
        for rows in self.ranges:
            heapq.heapreplace(free, free[0] + len(rows) * self.sample + self.shard)
        begun = self.opening + len(self.ranges) * TASK
        made, concluding = max(free, default=0.0), self.concluding()
        if self.beside and self.ranges:
            # all but the last shard, which cannot be put together before it is made
            return begun + max(made + len(self.ranges[-1]) * self.result_sample, concluding)
        return begun + made + concluding

    @property
    def splits(self) -> bool:
        """Whether each of many jobs takes so long that its shards are tasks of their own."""
        several = self.checkpoints > 1 and len(self.ranges) > 1
        return several and self.alone() > self.checkpoints * PATIENCE

    def _split(self, workers: int) -> float:
        """Seconds of many jobs, each opened by all workers and again to be concluded."""
        longest = max(map(len, self.ranges)) * self.sample
        again = 2 * self.opening + min(longest, PATIENCE)  # a shard that was given up is lost
        one = replace(self, checkpoints=1)
        each = one.alone() + again + (len(self.ranges) + 2) * TASK
        opened = min(workers, len(self.ranges)) * self.opening
        return max(self.checkpoints * (each + opened) / workers, one.on(workers) + again)

    def workers(self) -> list[int]:
        """Numbers of workers to tell of: powers of two, up to as many as there are tasks."""
        shards = len(self.ranges) if self.splits or self.checkpoints == 1 else 1
        tasks = min(self.checkpoints * shards, _WORKERS)
        return [*(2**k for k in range(tasks.bit_length()) if 2**k < tasks), tasks]

    def bytes_moved(self, workers: int = 1) -> dict[str, int]:
        """Bytes by what they are: read by workers, in shards, through the scheduler."""
        sweep = self.checkpoints > 1
        tasks = 1 if sweep and not self.splits else len(self.ranges)
        shards = len(self.ranges) * self.state_bytes + self.samples * self.sample_bytes
        return {
            "data": self.checkpoints * self.samples * self.input_bytes,
            "checkpoints": self.model_bytes
            * (workers if self.checkpoints == 1 else self.checkpoints),
            "shards": round(self.checkpoints * shards),
            "tasks": self.checkpoints * tasks * self.task_bytes,
        }

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        names = ("measured", "opening", "sample", "shard", "merge", "result", "result_sample",
                 "state_bytes", "sample_bytes", "input_bytes", "model_bytes", "task_bytes",
                 "checkpoints", "most")  # fmt: skip
        alone = self.alone()
        return {
            "samples": self.samples,
            "shards": len(self.ranges),
            "longest_shard": max(map(len, self.ranges), default=0),
            **{name: getattr(self, name) for name in names},
            "task": TASK,
            "alone": alone,
            "workers": [
                {
                    "workers": count,
                    "seconds": self.on(count),
                    "efficiency": alone / count / self.on(count),
                    "bytes_moved": self.bytes_moved(count),
                }
                for count in self.workers()
            ],
        }

    def to_text(self) -> str:
        """A few lines and a table."""
        longest = max(map(len, self.ranges), default=0)
        shards, count = len(self.ranges), self.samples
        moved = self.bytes_moved()
        held = shards * self.state_bytes + count * self.sample_bytes
        what = (
            f"{self.checkpoints:,} checkpoints, each with " if self.checkpoints > 1 else ""
        ) + f"{'at most ' if self.most else ''}{count:,} samples in {shards:,} shards"
        lines = [
            f"{what} of up to {longest:,}; measured on the first {self.measured:,}, here and now.",
            "",
            f"{'model and data opened':<24}{_seconds(self.opening):>9}  by every process",
            f"{'a sample':<24}{_seconds(self.sample):>9}  {_told(count * self.sample)} for all",
            f"{'a shard completed':<24}{_seconds(self.shard):>9}  "
            f"{_told(shards * self.shard)} for all, {bytes_told(held)} of files",
            f"{'a shard merged':<24}{_seconds(self.merge):>9}  "
            f"{_told(shards * self.merge)} for all",
            f"{'the result':<24}{_seconds(self.result + count * self.result_sample):>9}",
            f"{'a task':<24}{_seconds(TASK):>9}  of scheduler and asking process "
            f"(measured {TASK_MEASURED})",
            "",
            f"Workers read {bytes_told(moved['data'])} of data, and {bytes_told(self.model_bytes)} "
            f"of checkpoint each; {bytes_told(moved['tasks'])} go through the scheduler.",
            "",
            f"{'workers':>11}{'time':>10}{'of ideal':>10}",
            f"{'no cluster':>11}{_told(self.alone()):>10}",
        ]
        for workers in self.workers():
            time_ = self.on(workers)
            share = self.alone() / workers / time_
            lines.append(f"{workers:>11,}{_told(time_):>10}{share:>10.0%}")
        return "\n".join(lines)


def plan_analysis(models: Sequence[str | Path], data: Any, asked: RunSettings) -> Plan:
    """Measure the first batches of an analysis.

    Args:
        models: paths of the checkpoints; the first one is measured.
        data: as :func:`isoprobe.analyze` takes it.
        asked: what for.

    Returns:
        The plan.
    """
    threads = asked.threads or 1
    asked, clock = replace(asked, threads=threads), _Clock(threads)
    with opened(models[0], data, asked) as subject, processor_threads(asked.threads):
        enough = Enough.asked(asked.samples, asked.tolerance, len(subject.dataset))
        count = enough.limit if enough else asked.samples
        job = subject.job(asked, None if isinstance(count, str) else count)
        job.run.require_mergeable()
        passing = Pass(job.run)
        opening = clock.on(job.run.vae.device.type)
        ranges = job.run.ranges(passing.batch)
        with _working(job.identity) as working:
            folder = ShardFolder(working, job.identity)
            folder.settled = working.settle(passing.settled)
            record = folder.record({"active": passing.active.tolist(), "notes": []})
            fixed = Asked(models[0], data, asked, job.run.data.samples, enough).fixed(
                job.run.vae.device.type, folder.settled
            )

            def make(rows: range, advance: Callable[[int], object]) -> None:
                latent = job.run.vae.latent_size
                with folder.writer(rows, job.run.data.order, latent) as writer:
                    passing.make(writer, record, advance, lambda: False)

            made = _Parts.of(make, ranges, passing.batch, clock)
            with folder.opened(made.ranges, job.run.data.order) as shards:
                bytes_ = _bytes_of(shards)
                first = _concluded(job, passing, shards[:1], clock)
                merge, result, each = _line(first, _concluded(job, passing, shards, clock), made)
    return made.plan(
        ranges,
        opening=opening,
        merge=merge,
        result=result,
        result_sample=each,
        **bytes_,
        input_bytes=_input_bytes(job.run.data),
        model_bytes=_size(Path(models[0])),
        task_bytes=len(pickle.dumps(ShardWork(fixed, working.target, record))),
        checkpoints=len(models),
        most=enough is not None,
    )


def plan_scores(
    model: str | Path, data: str, reference: str | Path, asked: ScoreSettings, *, parts: bool
) -> Plan:
    """Measure the first batches of rows to be scored.

    Args:
        model: path of the checkpoint.
        data: spec of the rows.
        reference: path of the result that they are compared with.
        asked: settings.
        parts: the scores go into a folder of Parquet files.

    Returns:
        The plan.
    """
    threads = asked.threads or 1
    asked, clock = replace(asked, threads=threads), _Clock(threads)
    given = {f.name: getattr(asked, f.name) for f in fields(asked)}
    with open_scoring(model, data, reference, **given) as scoring:
        opening = clock.on(scoring.vae.device.type)
        ranges = even(scoring.rows, scoring.batch)
        identity = score_identity(scoring)
        with _working(identity) as working:
            folder = ShardFolder(working, identity)
            settled = {"batch_size": scoring.batch, "threads": torch.get_num_threads()}
            folder.settled = working.settle(settled)
            work = ScoreWork(str(model), data, str(reference), asked)
            task = pickle.dumps(work.fixed(scoring, working.target, folder.record()))
            made = _Parts.of(partial(make_shard, scoring, folder), ranges, scoring.batch, clock)
            with folder.opened(made.ranges, scoring.data.order) as shards:
                bytes_ = _bytes_of(shards)
            clock.start()
            join(working, folder, made.ranges, scoring, Tally(), parts=parts, ready=made.ranges)
            result = clock.stop() / made.ranges[-1].stop
    return made.plan(
        ranges,
        opening=opening,
        merge=0.0,
        result=0.0,
        result_sample=result,
        **bytes_,
        input_bytes=_input_bytes(scoring.data),
        model_bytes=_size(Path(model)),
        task_bytes=len(task),
        beside=asked.fdr is None,  # which needs every p-value before the first row
    )


# --------------------------------------------------------------------------- measuring


@contextmanager
def _working(identity: Mapping[str, Any]) -> Iterator[Working]:
    """Yield a working folder that goes away with all that is made in it."""
    with (
        tempfile.TemporaryDirectory(prefix="isoprobe-plan-") as place,
        Working.open(Path(place) / "result.h5", identity) as working,
    ):
        yield working


class _Clock:
    """Processor time of this process, or the wall clock where that tells nothing.

    Args:
        threads: of the processor.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._began = (time.process_time(), time.perf_counter())
        self._read: Callable[[], float] = time.process_time
        self._start = 0.0

    def on(self, device: str) -> float:
        """Choose by where the model runs; return the seconds since this clock was made."""
        alone = device == "cpu" and self._threads == 1
        self._read = time.process_time if alone else time.perf_counter
        return self._read() - self._began[not alone]

    def start(self) -> None:
        """Begin to measure."""
        self._start = self._read()

    def stop(self) -> float:
        """Return the seconds since the last start."""
        return self._read() - self._start


@dataclass(frozen=True)
class _Parts:
    """Shards that were made to be measured, and what they took.

    Attributes:
        ranges: samples of each, from the first on.
        sample: seconds of a sample.
        shard: seconds of completing a file.
    """

    ranges: list[range]
    sample: float
    shard: float

    @classmethod
    def of(
        cls,
        make: Callable[[range, Callable[[int], object]], None],
        ranges: Sequence[range],
        batch: int,
        clock: _Clock,
    ) -> _Parts:
        """Make a shard of a batch, and one of as many batches as a few seconds hold."""
        last = ranges[-1].stop
        parts = [range(min(batch, last))]
        make(parts[0], int)  # the first batch of all warms up
        sample, shard, took = _timed(make, parts[0], clock)
        if last > batch:
            batches = max(1, min(int(_SECONDS / max(took, 1e-9)), _BATCHES))
            parts.append(range(batch, min(batch + batches * batch, last)))
            sample, shard, _ = _timed(make, parts[1], clock)
        return cls(parts, sample, shard)

    def plan(self, ranges: Sequence[range], **measured: Any) -> Plan:
        """Return the plan of all shards from what these took, and the rest that was measured."""
        return Plan(
            ranges=ranges,
            measured=self.ranges[-1].stop,
            sample=self.sample,
            shard=self.shard,
            **measured,
        )


def _timed(
    make: Callable[[range, Callable[[int], object]], None], rows: range, clock: _Clock
) -> tuple[float, float, float]:
    """Seconds of a sample, of completing a shard, and of the whole."""
    batches = [0.0]
    clock.start()
    make(rows, lambda count: batches.append(clock.stop()))
    whole = clock.stop()
    return batches[-1] / len(rows), whole - batches[-1], whole


def _concluded(
    job: Job, passing: Pass, shards: Sequence[Shard], clock: _Clock
) -> tuple[int, float, float]:
    """Samples of some shards, seconds of a merge, and those of the result."""
    count = shards[-1].rows.stop
    run = replace(job.run, data=replace(job.run.data, samples=count), progress=False, kept={})
    clock.start()
    gathered = run.fold(shards, passing.active, passing.notes)
    merge = clock.stop() / len(shards)
    with (
        _working({**job.identity, "samples": count}) as working,
        ResultWriter(working, samples=count, latent=run.vae.latent_size) as writer,
    ):
        clock.start()
        run.conclude(writer, shards, gathered, run.resolve(gathered), job.attrs).close()
        return count, merge, clock.stop()


def _line(
    first: tuple[int, float, float], second: tuple[int, float, float], made: _Parts
) -> tuple[float, float, float]:
    """Seconds of a merge, of any result, and of a sample more in it."""
    if len(made.ranges) == 1:
        return second[1], second[2], 0.0
    each = max((second[2] - first[2]) / (second[0] - first[0]), 0.0)
    return second[1], max(second[2] - each * second[0], 0.0), each


def _bytes_of(shards: Sequence[Shard]) -> dict[str, Any]:
    last = shards[-1]
    row = sum(column.row_bytes for column in last.columns.values())
    whole = last.path.stat().st_size
    return {"sample_bytes": row, "state_bytes": whole - row * len(last.rows)}


def _input_bytes(data: Prepared) -> int:
    return prod(data.dataset.shape) * np.dtype(data.dataset.dtype).itemsize


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())


def _told(seconds: float) -> str:
    """A time, short ones with three digits."""
    return duration(seconds) if seconds >= 10 else _seconds(seconds)


def _seconds(value: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value * 1e6:.2g} µs"
