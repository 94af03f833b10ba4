"""Hold an analysis to its laws: one account of the data, however the data arrives."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.probe.quantities import QUANTITIES
from isoprobe.results.netcdf import check_group
from isoprobe.results.writer import ResultWriter
from isoprobe.show.plots.catalogue import draw, has_numbers
from isoprobe.testing.compare import require_same_variables
from isoprobe.testing.laws import Law, Laws, law, require
from isoprobe.testing.rehearsal import Rehearsal

if TYPE_CHECKING:
    from isoprobe.contracts import Analysis, Metric, Variable
    from isoprobe.results.reader import Result
    from isoprobe.testing.rehearsal import Outcome

#: rounding of sums taken in another order
TOLERANCE = 1e-8
#: samples at once in the run that others are held to; the last batch is shorter
BATCH = 7


def check_analysis(make: Callable[[], Analysis], metric: Metric | None = None) -> list[Law]:
    """List the laws of an analysis.

    Args:
        make: its class, or a function that gives a fresh instance with options set.
        metric: the distortion to try it with; BCE when None.

    Returns:
        The laws.
    """
    return AnalysisLaws(make, metric).collect()


class AnalysisLaws(Laws):
    """An analysis under test."""

    def __init__(self, make: Callable[[], Analysis], metric: Metric | None) -> None:
        self.make = make
        self.rehearsal = Rehearsal(make, metric)

    @law("needs are quantities of the probe")
    def _needs(self) -> None:
        analysis = self.make()
        analysis.start(self.rehearsal.setup)
        unknown = sorted(analysis.needs - QUANTITIES.keys())
        require(not unknown, f"{unknown} are none; the probe has {', '.join(QUANTITIES)}")

    @law("result does not depend on the batch size")
    def _batch_size(self) -> None:
        for size in (1, 32, self.rehearsal.samples):
            found = self.rehearsal.run(self.rehearsal.order(size))
            self._same(found, self._expected, f"a run in batches of {size}")

    @law("result does not depend on the order of batches")
    def _order(self) -> None:
        order = self.rehearsal.order(BATCH)
        for how, other in (("reverse", order[::-1]), ("another", order[3:] + order[:3])):
            self._same(self.rehearsal.run(other), self._expected, f"{how} order")

    @law("shards merged equal one pass")
    def _merge(self) -> None:
        require(self.make().mergeable(), "it has a state() of its own; it needs a merge() as well")
        order = self.rehearsal.order(BATCH)
        for cut in (1, 4):
            steps, others = self.rehearsal.steps(), self.rehearsal.steps()
            stored = self.rehearsal.feed(steps, order[:cut])
            rest = self.rehearsal.feed(others, order[cut:])
            for step, other in zip(steps, others, strict=True):
                step.merge(other)
            for name, variable in rest.items():
                start = order[cut].start
                stored[name].values[start:] = variable.values[start:]
            self._same(self.rehearsal.finish(steps, stored), self._expected, "merging two shards")

    @law("shards merged from their saved states equal one pass")
    def _merge_states(self) -> None:
        order = self.rehearsal.order(BATCH)
        steps, other = self.rehearsal.steps(), self.rehearsal.steps()
        stored: dict[str, Variable] = {}
        for number, rows in enumerate((order[:2], order[2:5], order[5:])):
            shard = self.rehearsal.steps()
            for name, variable in self.rehearsal.feed(shard, rows).items():
                stored.setdefault(name, variable)
                part = slice(rows[0].start, rows[-1].stop)
                stored[name].values[part] = variable.values[part]
            for into, mine, theirs in zip(steps, other, shard, strict=True):
                state = {name: np.copy(value) for name, value in theirs.state().items()}
                if number:
                    mine.restore(state)
                    into.merge(mine)
                else:
                    into.restore(state)
        found = self.rehearsal.finish(steps, stored)
        self._same(found, self._expected, "merging the saved states of three shards")

    @law("a run continued from its saved state equals one pass")
    def _state(self) -> None:
        order = self.rehearsal.order(BATCH)
        first, second = self.rehearsal.steps(), self.rehearsal.steps()
        stored = self.rehearsal.feed(first, order[:3])
        for before, after in zip(first, second, strict=True):
            after.restore({name: np.copy(value) for name, value in before.state().items()})
        for name, variable in self.rehearsal.feed(second, order[3:]).items():
            start = order[3].start
            stored[name].values[start:] = variable.values[start:]
        found = self.rehearsal.finish(second, stored)
        self._same(found, self._expected, "going on from a saved state")

    @law("every variable has units and a long name")
    def _units(self) -> None:
        for name, variable in self._all().items():
            require(variable.units.strip(), f"'{name}' has no units; write '1' where it has none")
            require(variable.long_name.strip(), f"'{name}' has no long name")

    @law("every axis has a dimension name of its length")
    def _dimensions(self) -> None:
        outcome = self._expected
        sizes = {"sample": self.rehearsal.samples, "latent": self.rehearsal.vae.latent_size}
        check_group("result", outcome.result, sizes)
        check_group("samples", outcome.columns, sizes)
        for name, variable in outcome.columns.items():
            require(
                variable.dims[:1] == ("sample",),
                f"column '{name}' has dims {variable.dims}; the first is 'sample'",
            )

    @law("batches are left unchanged")
    def _pure(self) -> None:
        steps = self.rehearsal.steps()
        batch = self.rehearsal.batch(steps, range(9))
        before = {name: value.clone() for name, value in batch.quantities.items()}
        x = batch.x.clone()
        steps[-1].update(batch)
        changed = [n for n, value in before.items() if not value.equal(batch.quantities[n])]
        require(not changed and x.equal(batch.x), f"{changed or 'x'} changed")

    @law("its figures can be drawn where there is what they need")
    def _figures(self) -> None:
        figures = self.make().figures()
        names = [figure.name for figure in figures]
        require(len(set(names)) == len(names), f"two figures have one name: {', '.join(names)}")
        if not figures:
            return
        with self._written() as result:
            for figure in figures:
                require("/" in figure.needs, f"'{figure.name}' needs '{figure.needs}': group/name")
                if has_numbers(result, figure):
                    draw(result, figure)

    def _written(self) -> Result:
        """The run as a result file, which is removed with the result."""
        samples, latents = self.rehearsal.samples, self.rehearsal.vae.latent_size
        with ResultWriter.open(None, samples=samples, latent=latents) as writer:
            writer.append(0, self._expected.columns)
            for name, variables in self._expected.groups.items():
                writer.write_group(name, variables)
            return writer.finish({"metric": self.rehearsal.metric.spec(), "samples": samples})

    @cached_property
    def _expected(self) -> Outcome:
        """The run that all others are held to."""
        return self.rehearsal.run(self.rehearsal.order(BATCH))

    def _all(self) -> dict[str, Variable]:
        return {**self._expected.columns, **self._expected.result}

    @staticmethod
    def _same(found: Outcome, expected: Outcome, how: str) -> None:
        require_same_variables(found.result, expected.result, TOLERANCE, how)
        require_same_variables(found.columns, expected.columns, TOLERANCE, how)
