"""Measure a model in memory: the pass and the formulas of a run, without files and without rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isoprobe.run.engine import Gathered, Pass, beta_attributes

if TYPE_CHECKING:
    from isoprobe.contracts import Variable
    from isoprobe.run.settle import Job


class Held(Mapping[str, "Variable"]):
    """A group of a result in memory: its variables by name."""

    def __init__(self, variables: Mapping[str, Variable]) -> None:
        self._variables = variables

    def __getitem__(self, name: str) -> Variable:
        return self._variables[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)

    def shown(self) -> dict[str, str]:
        """Return the names of the variables to show, each a ``column`` or a ``tile``."""
        shown = {name: variable.shown for name, variable in self._variables.items()}
        return {name: how for name, how in shown.items() if how != "none"}


@dataclass(frozen=True)
class Measured:
    """What a pass found, read as a result is.

    Attributes:
        attrs: root attributes.
        found: named arrays by analysis.
        settled: batch size and route of the pass, for the next one.
    """

    attrs: Mapping[str, Any]
    found: Mapping[str, Mapping[str, Variable]]
    settled: Mapping[str, Any]

    def groups(self) -> Sequence[str]:
        """Return the names of the analyses."""
        return list(self.found)

    def __getitem__(self, group: str) -> Held:
        return Held(self.found[group])


def measure(job: Job, settled: Mapping[str, Any] | None = None) -> Measured:
    """Do a run in one pass, in memory.

    Args:
        job: settled beforehand.
        settled: batch size and route of an earlier pass over the same model; found here when None.

    Returns:
        What the analyses found; equal to a result in a file, to rounding.
    """
    run = job.run
    passing = Pass(run, settled)
    for start in range(0, run.data.samples, passing.batch):
        passing.feed(start, min(start + passing.batch, run.data.samples))
    steps = passing.steps
    context = run.resolve(Gathered(run.setup(passing.active), steps, passing.notes))
    attrs = {**job.attrs, **beta_attributes(context.beta)}
    return Measured(attrs, context.results, passing.settled)
