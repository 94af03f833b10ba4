"""Rehearse a run in miniature, its batches in any order, in shards, or after a restart.

It keeps the engine's contract with an analysis (start, update, result, finish_samples, conclude)
and nothing of its files, so that a law can vary one thing at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.contracts import ACTIVE_NATS, Analysis, Batch, Context, Setup, Variable
from isoprobe.probe.objective import rates_of
from isoprobe.probe.overview import Overview
from isoprobe.probe.quantities import Probe
from isoprobe.registry.lookup import installed
from isoprobe.testing.models import small_data, small_vae

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import VAE, Metric

Order = Sequence[range]


@dataclass
class Outcome:
    """What an analysis ended in.

    Attributes:
        result: named arrays, of ``result`` and ``conclude``.
        columns: per-sample columns of ``update`` and ``finish_samples``, in order of the samples.
        groups: results of every analysis of the run, by name.
    """

    result: dict[str, Variable]
    columns: dict[str, Variable]
    groups: dict[str, Mapping[str, Variable]]


class Rehearsal:
    """An analysis, the ones it builds on, and a small model to try them on.

    Args:
        make: gives a fresh instance.
        metric: the distortion; BCE when None.
        vae: the model; a small one when None.
        samples: number of samples.
        seed: of data and draws.
    """

    def __init__(
        self,
        make: Callable[[], Analysis],
        metric: Metric | None = None,
        vae: VAE | None = None,
        samples: int = 45,
        seed: int = 0,
    ) -> None:
        self.make = make
        self.vae = vae or small_vae(seed)
        self.metric = metric or installed().metric("bce")
        self.samples = samples
        self.x = small_data(samples, seed)
        self.labels = np.arange(samples) % 3 == 0
        self._cache: dict[frozenset[str], Batch] = {}
        self.setup = Setup(
            vae=self.vae,
            metric=self.metric,
            samples=samples,
            seed=seed,
            active=self._active(),
            sample=self._sample,
            labelled=True,
            rows=lambda positions: self.x[positions],
        )

    def _active(self) -> np.ndarray:
        if self.vae.encode is None:
            return np.ones(self.vae.latent_size, dtype=bool)
        posterior = self.vae.encode(self.x)
        active: np.ndarray = rates_of(posterior).mean(axis=0) > ACTIVE_NATS
        return active

    def _sample(self, count: int) -> Tensor:
        rows = np.arange(count) * self.samples // count
        return self.x[rows]

    def order(self, size: int) -> list[range]:
        """Return the samples in batches of a size, the last one shorter."""
        return [
            range(start, min(start + size, self.samples)) for start in range(0, self.samples, size)
        ]

    def steps(self) -> list[Analysis]:
        """Return fresh, started instances: overview, what the analysis builds on, the analysis."""
        steps = [Overview(), *self._before(self.make()), self.make()]
        for step in steps:
            step.start(self.setup)
        return steps

    def _before(self, analysis: Analysis) -> list[Analysis]:
        found: dict[str, Analysis] = {}
        for name in analysis.after:
            if name != Overview.name:
                needed = installed().analysis(name)
                found |= {a.name: a for a in [*self._before(needed), needed]}
        return list(found.values())

    def batch(self, steps: Sequence[Analysis], rows: range) -> Batch:
        """Return one batch with what the analyses need, its tensors free to be spoilt."""
        whole = self._probed(frozenset().union(*(step.needs for step in steps)))
        part = slice(rows.start, rows.stop)
        quantities = {name: value[part].clone() for name, value in whole.quantities.items()}
        return Batch(whole.index[part], whole.x[part].clone(), quantities, self.labels[part])

    def _probed(self, needs: frozenset[str]) -> Batch:
        """All samples, probed once; a batch of the probe is the same in any company."""
        if needs not in self._cache:
            probe = Probe(self.vae, self.metric, needs)
            self._cache[needs] = probe(np.arange(self.samples), self.x, self.labels)
        return self._cache[needs]

    def feed(self, steps: Sequence[Analysis], order: Order) -> dict[str, Variable]:
        """Feed batches to analyses.

        Args:
            steps: started instances.
            order: the samples of each batch.

        Returns:
            The columns they stored, rows of samples not fed being zero.
        """
        stored: dict[str, Variable] = {}
        for rows in order:
            for step in steps:
                self._store(stored, step.update(self.batch(steps, rows)), rows)
        return stored

    def _store(
        self, stored: dict[str, Variable], new: Mapping[str, Variable] | None, rows: range
    ) -> None:
        for name, variable in (new or {}).items():
            values = np.asarray(variable.values)
            if name not in stored:
                whole = np.zeros((self.samples, *values.shape[1:]), values.dtype)
                stored[name] = replace(variable, values=whole)
            stored[name].values[rows.start : rows.stop] = values

    def finish(self, steps: Sequence[Analysis], stored: dict[str, Variable]) -> Outcome:
        """Take analyses that were fed to their end.

        Args:
            steps: as fed.
            stored: the columns of all samples.

        Returns:
            What the last of them, the analysis under test, ended in.
        """
        overview = next(step for step in steps if isinstance(step, Overview))
        beta = overview.resolve_beta(1.0, None, comparable=True, recover=False)
        results: dict[str, Mapping[str, Variable]] = {}
        for step in steps:
            results[step.name] = step.result(
                Context(self.setup, beta, overview.statistics, dict(results))
            )
        context = Context(self.setup, beta, overview.statistics, results)
        for step in steps:
            for rows in self.order(20):
                chunk = {n: v.values[rows.start : rows.stop] for n, v in stored.items()}
                self._store(stored, step.finish_samples(chunk, context), rows)
        for step in steps:
            more = step.conclude(lambda name: stored[name].values, context)
            results[step.name] = {**results[step.name], **(more or {})}
        return Outcome(dict(results[steps[-1].name]), stored, results)

    def run(self, order: Order) -> Outcome:
        """Run the analysis over batches in an order."""
        steps = self.steps()
        return self.finish(steps, self.feed(steps, order))
