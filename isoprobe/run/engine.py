"""Make one run: batches through the probe into shards, shards folded, the result written.

What a run gathers from its samples is apart from what it concludes, so that several processes can
gather a share each and one of them conclude from all.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.contracts import Analysis, Context, Setup, Variable
from isoprobe.errors import PluginError, ResultError
from isoprobe.probe.overview import Overview
from isoprobe.probe.pilot import active_latents
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.probe.told import joined
from isoprobe.progress import bar, say
from isoprobe.results.writer import without_places
from isoprobe.run.against import GROUP, Second
from isoprobe.run.announce import Trial, announcement, decoding_time, peak_memory
from isoprobe.run.shards import Columns, planned
from isoprobe.show.result import Result

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Batch, Beta, Metric
    from isoprobe.data.batches import Prepared
    from isoprobe.results.shard import Shard, ShardWriter
    from isoprobe.results.writer import ResultWriter

#: samples of the encode-only pilot that fixes which dimensions are active
PILOT = 2048
_FINISH_ROWS = 8192


@dataclass(frozen=True)
class Gathered:
    """What a pass over samples leaves, beside the rows that a writer holds.

    Attributes:
        setup: what the analyses knew before the first batch.
        steps: analyses that have seen the samples, the overview first.
        notes: what the probe has to say of how it worked.
    """

    setup: Setup
    steps: Sequence[Analysis]
    notes: Sequence[str]

    @property
    def overview(self) -> Overview:
        """The first step, which knows about beta."""
        first = self.steps[0]
        if not isinstance(first, Overview):
            raise PluginError(f"the overview comes first; found analysis '{first.name}'")
        return first


@dataclass
class Run:
    """Everything one run depends on.

    Attributes:
        vae: the model, on its device.
        metric: the distortion.
        data: batches that fit the model.
        analyses: in an order in which each follows those it reads.
        options: of the probe.
        given_beta: by the user, in units of the metric.
        declared_beta: by the checkpoint.
        beta_comparable: the declared beta is in units of the metric.
        recover_beta: take the recovered beta although one is declared.
        progress: show a bar on stderr.
        against: a second set to be measured.
        kept: the inputs that were last sampled, by number and number of samples of the run.
        training_share: share of the rows that the checkpoint was trained on; None if not known.
    """

    vae: VAE
    metric: Metric
    data: Prepared
    analyses: Sequence[Analysis]
    options: ProbeOptions = field(default_factory=ProbeOptions)
    given_beta: float | None = None
    declared_beta: float | None = None
    beta_comparable: bool = True
    recover_beta: bool = False
    progress: bool = False
    training_share: float | None = None
    against: Second | None = None
    kept: dict[tuple[int, int], tuple[VAE, Tensor]] = field(default_factory=dict, repr=False)

    # ------------------------------------------------------------------ gathering

    def ranges(self, batch: int) -> list[range]:
        """Positions of each shard of the run; all samples in one where nothing can be merged."""
        if not all(analysis.mergeable() for analysis in self.analyses):
            return [range(self.data.samples)]
        return planned(self.data.samples, batch)

    def fold(
        self,
        shards: Sequence[Shard],
        active: np.ndarray,
        notes: Sequence[str],
        others: Sequence[Analysis] | None = None,
    ) -> Gathered:
        """Take in shards in the order of their samples, which alone leads to a result.

        Args:
            shards: of this run, none missing.
            active: dimensions that the pilot found active.
            notes: what the probe had to say.
            others: analyses that have started and may be overwritten; new ones when None.

        Returns:
            The analyses as they stand after all samples.
        """
        setup = self.setup(active)
        steps = self.started(setup)
        if others is None and len(shards) > 1:
            others = self.started(setup)
        for number, shard in enumerate(shards):
            take(steps if number == 0 else others or (), shard)
            if number:
                for step, other in zip(steps, others or (), strict=True):
                    step.merge(other)
        return Gathered(setup, steps, notes)

    def started(self, setup: Setup) -> list[Analysis]:
        """Analyses that have seen nothing yet, the overview first."""
        steps = [Overview(), *copy.deepcopy(list(self.analyses))]
        for step in steps:
            step.start(setup)
        return steps

    @property
    def mergeable(self) -> bool:
        """Whether every analysis can be put together from shards."""
        return all(analysis.mergeable() for analysis in self.analyses)

    def require_mergeable(self) -> None:
        """Refuse to split what cannot be put together again.

        Raises:
            PluginError: naming the analysis.
        """
        for analysis in self.analyses:
            if not analysis.mergeable():
                raise PluginError(
                    f"analysis '{analysis.name}' keeps a state of its own and no merge(), so its "
                    "samples cannot be split over processes; leave it out, or use one process"
                )

    def setup(self, active: np.ndarray) -> Setup:
        """What analyses may know before the first batch."""
        return Setup(
            vae=self.vae,
            metric=self.metric,
            samples=self.data.samples,
            seed=self.options.seed,
            active=active,
            sample=lambda count: self._bound(count)[1],
            pullback=self.options.pullback,
            labelled=self.data.labelled,
            own_draws=self.data.name.partition(":")[0] == "prior",
            expectation=self.options.expectation,
            training_share=self.training_share,
            factors=self.data.dataset.factors,
            carried=self.data.dataset.carried,
            rows=self._rows,
            told=self._bound,
            at_one=self._at_one,
        )

    def pilot(self) -> np.ndarray:
        """Dimensions that do something for inputs spread over the data, ``(n,)`` bool."""
        return active_latents(self.vae, self.metric, self._spread(PILOT), self.options.seed)

    def _bound(self, count: int) -> tuple[VAE, Tensor]:
        key = (count, self.data.samples)
        if key not in self.kept:  # several analyses try something on the same few rows
            self.kept.clear()
            self.kept[key] = joined(list(self._spread(count)))
        return self.kept[key]

    def _rows(self, positions: np.ndarray) -> Tensor:
        """Inputs at positions of the run, in their order."""
        vae = self.vae
        each = (self.data.batch(at, at + 1, vae.device, vae.dtype)[0] for at in positions.tolist())
        return torch.cat(list(each))

    def _at_one(self) -> VAE:
        """The model at the condition that most of some rows have."""
        if self.vae.conditional is None:
            return self.vae
        given = self._bound(PILOT)[0].given
        if given is None:
            return self.vae
        values, counts = np.unique(given.double().cpu().numpy(), axis=0, return_counts=True)
        return self.vae.held(torch.as_tensor(values[counts.argmax()]))

    def _spread(self, count: int) -> Iterator[tuple[VAE, Tensor]]:
        """Inputs in short runs spread over the data, since files read runs faster than rows."""
        return spread(self.data, count, self.vae)

    # ------------------------------------------------------------------ concluding

    def resolve(self, gathered: Gathered, only: Sequence[str] | None = None) -> Context:
        """Choose beta, and let every analysis give its results, or some alone."""
        beta = gathered.overview.resolve_beta(
            self.given_beta,
            self.declared_beta,
            comparable=self.beta_comparable,
            recover=self.recover_beta,
        )
        statistics = gathered.overview.statistics
        results: dict[str, Mapping[str, Variable]] = {}
        for step in gathered.steps:
            if only is not None and step.name not in only:
                continue
            context = Context(gathered.setup, beta, statistics, dict(results))
            results[step.name] = step.result(context)
        return Context(gathered.setup, beta, statistics, results)

    def conclude(
        self,
        writer: ResultWriter,
        shards: Sequence[Shard],
        gathered: Gathered,
        context: Context,
        attrs: Mapping[str, Any],
    ) -> Result:
        """Write every row with what rests on all samples, and the result.

        Args:
            writer: of the result.
            shards: of this run, in the order of their samples, none missing.
            gathered: what they hold together.
            context: from :meth:`resolve`.
            attrs: root attributes of the result beyond what the run itself finds.

        Returns:
            The finished result.
        """
        self._write_rows(writer, Columns(shards), gathered.steps, context)
        groups = dict(context.results)
        context = replace(context, results=groups)

        def column(name: str) -> np.ndarray:
            return writer.columns(0, self.data.samples, [name])[name]

        for step in gathered.steps:
            more = step.conclude(column, context)
            groups[step.name] = {**groups[step.name], **(more or {})}
            kept = groups[step.name].keys() - (step.of_rows if not writer.keeps_rows else ())
            writer.write_group(
                step.name, {name: v for name, v in groups[step.name].items() if name in kept}
            )
        if self.against is not None:
            writer.write_group(GROUP, self._second(column, context.beta.value))
        notes = [*attrs.get("notes", ()), *gathered.notes]
        told = {**attrs, **beta_attributes(context.beta), "notes": notes}
        return Result.of(writer.finish(told if writer.keeps_rows else without_places(told)))

    def _second(self, column: Callable[[str], np.ndarray], beta: float) -> Mapping[str, Variable]:
        if self.against is None:
            return {}
        return self.against.measure(self.vae, self.metric, self.options, column, beta)

    def _write_rows(
        self, writer: ResultWriter, rows: Columns, steps: Sequence[Analysis], context: Context
    ) -> None:
        finishing = [s for s in steps if type(s).finish_samples is not Analysis.finish_samples]
        with bar(self.data.samples, 0, "finishing", shown=self.progress) as advance:
            for start in range(0, self.data.samples, _FINISH_ROWS):
                stop = min(start + _FINISH_ROWS, self.data.samples)
                columns = rows.read(start, stop)
                chunk = {name: column.values for name, column in columns.items()}
                for step in finishing:
                    derived = step.finish_samples(chunk, context) or {}
                    columns |= derived
                    chunk |= {name: column.values for name, column in derived.items()}
                writer.append(start, columns)
                advance(stop - start)


class Pass:
    """One process' way through samples: a probe and analyses, which make shards.

    Args:
        run: what is to be done.
        settled: batch size, route and memory that hold for every shard; found here when None.
        active: what the pilot found, where it need not fly again.

    Attributes:
        active: dimensions that the pilot found active.
        batch: samples at once.
        notes: what the probe has to say of how it works.
    """

    def __init__(
        self,
        run: Run,
        settled: Mapping[str, Any] | None = None,
        active: np.ndarray | None = None,
    ) -> None:
        self.run = run
        self.active = run.pilot() if active is None else active
        self.steps = run.started(run.setup(self.active))
        self._fresh = _kept(_state(self.steps))
        given = settled or {}
        options = replace(
            run.options,
            **{name: given[name] for name in ("batch_size", "route", "memory") if name in given},
        )
        needs = frozenset().union(*(s.needs for s in self.steps))
        self._probe = Probe(run.vae, run.metric, needs, options)
        self.batch = self._probe.plan.batch
        self.notes = self._probe.notes
        self._trial: Trial | None = None

    @property
    def settled(self) -> dict[str, Any]:
        """What must be the same for every shard, and does not follow from the identity alone."""
        route = self._probe.route
        return {
            "batch_size": self.batch,
            "route": None if route is None else route.name,
            "memory": self.run.options.memory,  # which blocks of tangents follow from
            "threads": torch.get_num_threads(),
        }

    def announce(self, samples: int) -> None:
        """Watch the first batches, and say what so many samples will take if that is long."""
        self._trial = Trial(samples)

    def make(
        self,
        writer: ShardWriter,
        record: Mapping[str, Any],
        advance: Callable[[int], object],
        over: Callable[[], bool],
        encoded: Prepared | None = None,
    ) -> bool:
        """Make a shard from statistics that have seen nothing.

        Args:
            writer: of the shard.
            record: what it is to say of itself.
            advance: takes how many more samples are done.
            over: asked before each batch whether the shard is not needed any more.
            encoded: rows, by position, that go through the encoder alone; the run's own, through
                both, when None.

        Returns:
            Whether it was made.
        """
        restore(self.steps, _anew(self._fresh))
        steps = self.steps if encoded is None else seeing_encoded(self.steps)
        feed = self.feed if encoded is None else self._encoding(steps, encoded)
        rows = writer.rows
        for start in range(rows.start, rows.stop, self.batch):
            if over():
                return False
            stop = min(start + self.batch, rows.stop)
            writer.append(stop - start, feed(start, stop))
            advance(stop - start)
        writer.finish(record, _state(steps))
        return True

    def _encoding(
        self, steps: Sequence[Analysis], data: Prepared
    ) -> Callable[[int, int], Mapping[str, Variable]]:
        """Return what feeds analyses with rows that go through the encoder alone."""

        def feed(start: int, stop: int) -> dict[str, Variable]:
            told, x, labels = data.rows(start, stop, self.run.vae)
            batch = self._probe(np.arange(start, stop), x, labels, told, encoder_only=True)
            for step in steps:
                step.update_encoded(batch)
            return {}

        return feed

    def merge_encoded(self, steps: Sequence[Analysis], shards: Sequence[Shard]) -> None:
        """Take shards of :meth:`make` with ``encoded`` into analyses that have seen the samples.

        Args:
            steps: take them in.
            shards: in the order of their rows.
        """
        into, others = seeing_encoded(steps), seeing_encoded(self.steps)
        for shard in shards:
            take(others, shard)
            for step, other in zip(into, others, strict=True):
                step.merge(other)

    def feed(self, start: int, stop: int) -> dict[str, Variable]:
        """Feed samples start to stop to the analyses; return the columns that they give."""
        began = time.perf_counter()
        data, vae = self.run.data, self.run.vae
        told, x, labels = data.rows(start, stop, vae)
        batch = self._probe(np.arange(start, stop), x, labels, told)
        if data.dataset.carried:
            batch = replace(batch, carried=data.carried(start, stop))
        columns: dict[str, Variable] = {}
        if not data.order.whole:
            rows = data.indices(start, stop)
            columns["row"] = Variable(("sample",), rows, "row of the data that the sample is")
        for step in self.steps:
            columns |= step.update(batch) or {}
        self._time(batch, time.perf_counter() - began)
        return columns

    def _time(self, batch: Batch, seconds: float) -> None:
        if self._trial is None:
            return
        self._trial.add(len(batch.index), seconds)
        if self._trial.over:
            self._say(self._trial, batch)
            self._trial = None

    def _say(self, trial: Trial, batch: Batch) -> None:
        """Say what a long run will take, once its first batches are through."""
        note = announcement(
            trial,
            decoding_time(self._probe.view.decode, batch["mean"]),
            peak_memory(self.run.vae.device.type),
            exact=self._probe.route is not None and self.run.options.pullback == "exact",
        )
        if note is not None:
            say(note)


def seeing_encoded(steps: Sequence[Analysis]) -> list[Analysis]:
    """Return the analyses that see rows of which the encoder alone speaks."""
    return [s for s in steps if type(s).update_encoded is not Analysis.update_encoded]


def spread(data: Prepared, count: int, vae: VAE) -> Iterator[tuple[VAE, Tensor]]:
    """Yield about ``count`` inputs in short runs spread over the data.

    Args:
        data: the samples.
        count: how many; all when there are no more.
        vae: the model they are for.

    Yields:
        Runs of inputs, ``(B, *input_shape)``, each with the model bound to its conditions.
    """
    for rows in data.spread(count):
        yield data.rows(rows.start, rows.stop, vae)[:2]


def take(steps: Sequence[Analysis], shard: Shard) -> None:
    """Give analyses the state that a shard keeps.

    Raises:
        ResultError: when it lacks some of it.
    """
    state = shard.state()
    lacking = sorted(_state(steps).keys() - state.keys())
    if lacking:
        raise ResultError(
            f"{shard.path} is damaged: it has no '{lacking[0]}'; make it again: remove it, and use "
            "--resume"
        )
    restore(steps, state)


def restore(steps: Sequence[Analysis], state: Mapping[str, np.ndarray]) -> None:
    """Give analyses a state, by ``analysis/name``."""
    for step in steps:
        prefix = f"{step.name}/"
        step.restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


@dataclass(frozen=True)
class _Zeros:
    shape: tuple[int, ...]
    dtype: np.dtype


def _kept(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray | _Zeros]:
    """Copy a state; sums that are still 0 take no memory, with thousands of latents most of it."""
    return {
        name: _Zeros(values.shape, values.dtype) if _is_zero(values) else values.copy()
        for name, values in state.items()
    }


def _is_zero(values: np.ndarray) -> bool:
    return values.dtype.kind in "biuf" and not values.any()


def _anew(kept: Mapping[str, np.ndarray | _Zeros]) -> dict[str, np.ndarray]:
    """Return arrays that may be written into."""
    return {
        name: np.zeros(values.shape, values.dtype) if isinstance(values, _Zeros) else values.copy()
        for name, values in kept.items()
    }


def _state(steps: Sequence[Analysis]) -> dict[str, np.ndarray]:
    """Everything accumulated, by ``analysis/name``."""
    return {f"{s.name}/{key}": value for s in steps for key, value in s.state().items()}


def beta_attributes(beta: Beta) -> dict[str, Any]:
    """Return what is known of beta as root attributes of a result."""
    attrs = {
        "beta": beta.value,
        "beta_source": beta.source,
        "beta_declared": beta.declared,
        "beta_recovered": beta.recovered,
        "beta_ci95": beta.ci95,
        "beta_recovered_pullback": beta.recovered_pullback,
        "beta_ci95_pullback": beta.ci95_pullback,
    }
    return {name: value for name, value in attrs.items() if value is not None}
