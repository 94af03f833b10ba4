"""One run: batches through the probe, analyses fed, beta resolved, the result written."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe.calibration import Overview
from isoprobe.contracts import ACTIVE_NATS, Analysis, Context, Setup
from isoprobe.formulas import kl_divergence
from isoprobe.probe import Probe, ProbeOptions
from isoprobe.statistics import Moments

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Beta, Metric, Variable
    from isoprobe.data import Prepared
    from isoprobe.hdf5 import ResultWriter
    from isoprobe.result import Result

#: samples of the encode-only pilot that fixes which dimensions are active
PILOT = 2048
_FINISH_ROWS = 8192


@dataclass
class Run:
    """Everything one run depends on.

    Attributes:
        vae: the model, on its device.
        metric: the distortion.
        data: batches that fit the model.
        analyses: in an order in which each follows those it reads.
        writer: takes columns and groups, gives the result.
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
    writer: ResultWriter
    options: ProbeOptions = field(default_factory=ProbeOptions)
    given_beta: float | None = None
    declared_beta: float | None = None
    beta_comparable: bool = True
    progress: bool = False

    def execute(self, attrs: Mapping[str, Any]) -> Result:
        """Run it.

        Args:
            attrs: root attributes of the result beyond what the run itself finds.

        Returns:
            The finished result.
        """
        setup = self._setup()
        overview = Overview()
        steps: list[Analysis] = [overview, *self.analyses]
        for step in steps:
            step.start(setup)
        probe = Probe(
            self.vae, self.metric, frozenset().union(*(s.needs for s in steps)), self.options
        )
        self._pass(probe, steps)
        beta = overview.resolve_beta(
            self.given_beta, self.declared_beta, comparable=self.beta_comparable
        )
        context = Context(setup, beta)
        groups = self._results(steps, context)
        context = Context(setup, beta, groups)
        self._finish(steps, context)
        for step in steps:
            more = step.conclude(self._column, context)
            groups[step.name] = {**groups[step.name], **(more or {})}
            self.writer.write_group(step.name, groups[step.name])
        notes = [*attrs.get("notes", ()), *probe.notes]
        return self.writer.finish({**attrs, **_beta_attrs(beta), "notes": notes})

    def _setup(self) -> Setup:
        return Setup(
            vae=self.vae,
            metric=self.metric,
            samples=self.data.samples,
            seed=self.options.seed,
            active=self._pilot(),
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

    def _pass(self, probe: Probe, steps: Sequence[Analysis]) -> None:
        done = self._restore(steps)
        with _bar(self.data.samples, done, "probing", shown=self.progress) as advance:
            for start in range(done, self.data.samples, probe.plan.batch):
                stop = min(start + probe.plan.batch, self.data.samples)
                x, labels = self.data.batch(start, stop, self.vae.device, self.vae.dtype)
                batch = probe(np.arange(start, stop), x, labels)
                for step in steps:
                    columns = step.update(batch)
                    if columns:
                        self.writer.append(start, columns)
                if self.writer.due():
                    self.writer.checkpoint(stop, _state(steps))
                advance(stop - start)

    def _restore(self, steps: Sequence[Analysis]) -> int:
        point = self.writer.resume_point()
        if point is None:
            return 0
        done, state = point
        for step in steps:
            prefix = f"{step.name}/"
            step.restore(
                {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
            )
        return done

    @staticmethod
    def _results(steps: Sequence[Analysis], context: Context) -> dict[str, Mapping[str, Variable]]:
        results: dict[str, Mapping[str, Variable]] = {}
        for step in steps:
            results[step.name] = step.result(Context(context.setup, context.beta, results))
        return results

    def _finish(self, steps: Sequence[Analysis], context: Context) -> None:
        finishing = [s for s in steps if type(s).finish_samples is not Analysis.finish_samples]
        if not finishing:
            return
        names = self.writer.names()
        with _bar(self.data.samples, 0, "finishing", shown=self.progress) as advance:
            for start in range(0, self.data.samples, _FINISH_ROWS):
                stop = min(start + _FINISH_ROWS, self.data.samples)
                chunk = self.writer.columns(start, stop, names)
                for step in finishing:
                    columns = step.finish_samples(chunk, context)
                    if columns:
                        self.writer.append(start, columns)
                        chunk = {**chunk, **{k: v.values for k, v in columns.items()}}
                advance(stop - start)

    def _column(self, name: str) -> np.ndarray:
        return self.writer.columns(0, self.data.samples, [name])[name]


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


def _state(steps: Sequence[Analysis]) -> dict[str, np.ndarray]:
    return {f"{s.name}/{key}": value for s in steps for key, value in s.state().items()}


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


@contextmanager
def _bar(total: int, done: int, label: str, *, shown: bool) -> Iterator[Any]:
    """A progress bar on stderr that appears only on a terminal and after two seconds."""
    import sys

    from tqdm import tqdm

    bar = tqdm(
        total=total,
        initial=done,
        desc=label,
        unit="sample",
        delay=2,
        file=sys.stderr,
        leave=False,
        disable=None if shown else True,
    )
    with bar:
        yield bar.update
