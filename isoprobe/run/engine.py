"""One run: batches through the probe, analyses fed, beta resolved, the result written.

What a run gathers from its samples is apart from what it concludes, so that several processes can
gather a share each and one of them conclude from all.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.contracts import ACTIVE_NATS, Analysis, Context, Setup
from isoprobe.errors import PluginError
from isoprobe.probe.overview import Overview
from isoprobe.probe.quantities import Probe, ProbeOptions
from isoprobe.progress import bar, say
from isoprobe.results.reader import readable
from isoprobe.run.announce import Trial, announcement, decoding_time, peak_memory
from isoprobe.statistics.moments import Moments
from isoprobe.theory.formulas import kl_divergence

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Batch, Beta, Metric, Variable
    from isoprobe.data.batches import Prepared
    from isoprobe.results.reader import Result
    from isoprobe.results.writer import ResultWriter
    from isoprobe.run.shards import Shard

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

    def state(self) -> dict[str, np.ndarray]:
        """Everything accumulated, by ``analysis/name``."""
        return {f"{s.name}/{key}": value for s in self.steps for key, value in s.state().items()}


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
        progress: show a bar on stderr.
    """

    vae: VAE
    metric: Metric
    data: Prepared
    analyses: Sequence[Analysis]
    options: ProbeOptions = field(default_factory=ProbeOptions)
    given_beta: float | None = None
    declared_beta: float | None = None
    beta_comparable: bool = True
    progress: bool = False

    # ------------------------------------------------------------------ gathering

    def gather(self, writer: ResultWriter, rows: range | None = None) -> Gathered:
        """Feed samples to the analyses, or those that an earlier attempt left.

        Args:
            writer: takes the rows' columns, the first of ``rows`` as its row 0.
            rows: positions of the samples; all when None.

        Returns:
            The analyses as they stand afterwards.
        """
        setup = self._setup(self._pilot())
        steps = [Overview(), *self.analyses]
        _start(steps, setup)
        needs = frozenset().union(*(s.needs for s in steps))
        probe = Probe(self.vae, self.metric, needs, self.options)
        gathered = Gathered(setup, steps, probe.notes)
        self._pass(probe, gathered, writer, range(self.data.samples) if rows is None else rows)
        return gathered

    def merge(self, writer: ResultWriter, shards: Sequence[Shard]) -> Gathered:
        """Take in what several processes gathered, as if it had been one.

        Args:
            writer: takes every row.
            shards: of this run, in the order of their samples, none missing.

        Returns:
            The analyses as they stand after all samples.
        """
        self.require_mergeable()
        setup = self._setup(shards[0].active)
        steps = [Overview(), *self.analyses]
        others = copy.deepcopy(steps)  # before the start they hold their options only
        _start(steps, setup)
        _start(others, setup)
        with bar(self.data.samples, 0, "merging", shown=self.progress) as advance:
            for number, shard in enumerate(shards):
                with readable(shard.path):
                    _restore(others if number else steps, shard.state())
                for step, other in zip(steps, others, strict=True):
                    if number:
                        step.merge(other)
                for start in range(0, len(shard.rows), _FINISH_ROWS):
                    columns = shard.columns(start, min(start + _FINISH_ROWS, len(shard.rows)))
                    writer.append(shard.rows.start + start, columns)
                advance(len(shard.rows))
        return Gathered(setup, steps, shards[0].notes)

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

    def _setup(self, active: np.ndarray) -> Setup:
        return Setup(
            vae=self.vae,
            metric=self.metric,
            samples=self.data.samples,
            seed=self.options.seed,
            active=active,
            sample=self._sample,
            pullback=self.options.pullback,
            labelled=self.data.labelled,
        )

    def _pilot(self) -> np.ndarray:
        """Dimensions whose mean KL over inputs spread over the data is above the threshold."""
        rate = Moments((self.vae.latent_size,))
        if self.vae.encode is not None:
            for x in self._spread(PILOT):
                with torch.no_grad():
                    posterior = self.vae.encode(x)
                    rates = kl_divergence(posterior.mean, posterior.std)
                if bool(rates.isfinite().all()):  # else the probe names sample and latent
                    rate.update(rates.double().cpu().numpy())
        active: np.ndarray = rate.mean > ACTIVE_NATS
        return active

    def _sample(self, count: int) -> Tensor:
        return torch.cat(list(self._spread(count)))

    def _spread(self, count: int) -> Iterator[Tensor]:
        """Inputs in short runs spread over the data, since files read runs faster than rows."""
        return spread(self.data, count, self.vae)

    def _pass(self, probe: Probe, gathered: Gathered, writer: ResultWriter, rows: range) -> None:
        done = self._resumed(gathered, writer)
        trial = Trial(len(rows) - done) if self.progress else None
        with bar(len(rows), done, "probing", shown=self.progress) as advance:
            for start in range(rows.start + done, rows.stop, probe.plan.batch):
                stop = min(start + probe.plan.batch, rows.stop)
                began = time.perf_counter()
                x, labels = self.data.batch(start, stop, self.vae.device, self.vae.dtype)
                batch = probe(np.arange(start, stop), x, labels)
                for step in gathered.steps:
                    columns = step.update(batch)
                    if columns:
                        writer.append(start - rows.start, columns)
                if writer.due():
                    writer.checkpoint(stop - rows.start, gathered.state())
                advance(stop - start)
                if trial is not None:
                    trial.add(stop - start, time.perf_counter() - began)
                    if trial.over:
                        self._announce(trial, probe, batch)
                        trial = None

    def _announce(self, trial: Trial, probe: Probe, batch: Batch) -> None:
        """Say what a long run will take, once its first batches are through."""
        note = announcement(
            trial,
            decoding_time(probe.view.decode, batch["mean"]),
            peak_memory(self.vae.device.type),
            exact=probe.route is not None and self.options.pullback == "exact",
        )
        if note is not None:
            say(note)

    @staticmethod
    def _resumed(gathered: Gathered, writer: ResultWriter) -> int:
        point = writer.resume_point()
        if point is None:
            return 0
        done, state = point
        _restore(gathered.steps, state)
        return done

    # ------------------------------------------------------------------ concluding

    def resolve(self, gathered: Gathered) -> Context:
        """Choose beta, and let every analysis give its results."""
        beta = gathered.overview.resolve_beta(
            self.given_beta, self.declared_beta, comparable=self.beta_comparable
        )
        statistics = gathered.overview.statistics
        results: dict[str, Mapping[str, Variable]] = {}
        for step in gathered.steps:
            context = Context(gathered.setup, beta, statistics, dict(results))
            results[step.name] = step.result(context)
        return Context(gathered.setup, beta, statistics, results)

    def conclude(
        self, writer: ResultWriter, gathered: Gathered, context: Context, attrs: Mapping[str, Any]
    ) -> Result:
        """Derive what rests on all samples, and write the result.

        Args:
            writer: holds every row.
            gathered: what was seen.
            context: from :meth:`resolve`.
            attrs: root attributes of the result beyond what the run itself finds.

        Returns:
            The finished result.
        """
        self._finish(writer, gathered.steps, context)
        groups = dict(context.results)
        context = replace(context, results=groups)

        def column(name: str) -> np.ndarray:
            return writer.columns(0, self.data.samples, [name])[name]

        for step in gathered.steps:
            more = step.conclude(column, context)
            groups[step.name] = {**groups[step.name], **(more or {})}
            writer.write_group(step.name, groups[step.name])
        notes = [*attrs.get("notes", ()), *gathered.notes]
        return writer.finish({**attrs, **_beta_attrs(context.beta), "notes": notes})

    def _finish(self, writer: ResultWriter, steps: Sequence[Analysis], context: Context) -> None:
        finishing = [s for s in steps if type(s).finish_samples is not Analysis.finish_samples]
        if not finishing:
            return
        names = writer.names()
        with bar(self.data.samples, 0, "finishing", shown=self.progress) as advance:
            for start in range(0, self.data.samples, _FINISH_ROWS):
                stop = min(start + _FINISH_ROWS, self.data.samples)
                chunk = writer.columns(start, stop, names)
                for step in finishing:
                    columns = step.finish_samples(chunk, context)
                    if columns:
                        writer.append(start, columns)
                        chunk = {**chunk, **{k: v.values for k, v in columns.items()}}
                advance(stop - start)


def spread(data: Prepared, count: int, vae: VAE) -> Iterator[Tensor]:
    """Yield about ``count`` inputs in short runs spread over the data.

    Args:
        data: the samples.
        count: how many; all when there are no more.
        vae: the model they are for.

    Yields:
        Runs of inputs, ``(B, *input_shape)``.
    """
    wanted = min(data.samples, count)
    runs = max(wanted // 256, 1)
    for start in np.unique(np.arange(runs) * data.samples // runs):
        stop = min(int(start) + math.ceil(wanted / runs), data.samples)
        yield data.batch(int(start), stop, vae.device, vae.dtype)[0]


def _start(steps: Sequence[Analysis], setup: Setup) -> None:
    for step in steps:
        step.start(setup)


def _restore(steps: Sequence[Analysis], state: Mapping[str, np.ndarray]) -> None:
    for step in steps:
        prefix = f"{step.name}/"
        step.restore({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})


def _beta_attrs(beta: Beta) -> dict[str, Any]:
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
