"""Measure a second set of rows in the same run, and how far it differs from the first.

With training and test rows these are the generalisation gaps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.contracts import Variable
from isoprobe.errors import OptionError
from isoprobe.probe.quantities import Probe
from isoprobe.theory.differences import gap
from isoprobe.theory.formulas import elbo, excess, rate
from isoprobe.theory.stated import cite

if TYPE_CHECKING:
    from isoprobe.contracts import VAE, Dataset, Metric
    from isoprobe.data.batches import Prepared
    from isoprobe.probe.quantities import ProbeOptions
    from isoprobe.statistics.moments import Estimate

GROUP = "against"
_COLUMNS = ("kl", "distortion", "distortion_self")
#: name, units, words
_MEANS = (
    ("rate", "nat", "KL summed over latents"),
    ("distortion", "metric", "E_z D(x, x_hat) - D(x, x)"),
    ("elbo", "nat", "ELBO less its constant"),
)


@dataclass(frozen=True)
class Second:
    """A second set of rows, opened when its turn comes.

    Attributes:
        spec: as asked for.
        open: gives the data set.
        fit: makes it fit the model.
    """

    spec: str
    open: Callable[[], Dataset]
    fit: Callable[[Dataset], Prepared]

    def attributes(self, first: Prepared) -> dict[str, object]:
        """Open it once before the run, so that what is wrong with it shows before the work.

        Args:
            first: the set that the run is about.

        Returns:
            What is recorded of it.

        Raises:
            OptionError: when it is the same set.
        """
        with closing(self.open()) as dataset:
            data = self.fit(dataset)
            if data.fingerprint == first.fingerprint:
                raise OptionError(
                    f"--against {self.spec} holds the very rows of {first.name}; name another set, "
                    "such as the training rows where --data names test rows."
                )
            return {
                "against": data.name,
                "against_fingerprint": data.fingerprint,
                "against_samples": data.samples,
            }

    def measure(
        self,
        vae: VAE,
        metric: Metric,
        options: ProbeOptions,
        column: Callable[[str], np.ndarray],
        beta: float,
    ) -> Mapping[str, Variable]:
        """Means of the second set, and how they differ from the first.

        Args:
            vae: the model.
            metric: the distortion.
            options: of the probe.
            column: stored columns of the first set, by name.
            beta: KL weight in force, of both.

        Returns:
            Named values with errors.
        """
        first = {name: column(name).astype(float) for name in _COLUMNS}
        with closing(self.open()) as dataset:
            data = self.fit(dataset)
            probe = Probe(vae, metric, _COLUMNS, options)
            second = _rows(probe, data, vae, len(first["kl"]))
        ours, theirs = _means(first, beta), _means(second, beta)
        found: dict[str, Variable] = {}
        for name, units, words in _MEANS:
            if np.isfinite(ours[name]).all() and np.isfinite(theirs[name]).all():
                found |= _variables(name, units, words, theirs[name], gap(ours[name], theirs[name]))
        return found


def _rows(probe: Probe, data: Prepared, vae: VAE, after: int) -> dict[str, np.ndarray]:
    """Columns of the second set, whose draws go on where those of the first set end."""
    parts: dict[str, list[np.ndarray]] = {name: [] for name in _COLUMNS}
    for start in range(0, data.samples, probe.plan.batch):
        stop = min(start + probe.plan.batch, data.samples)
        told, x, _ = data.rows(start, stop, vae)
        batch = probe(np.arange(after + start, after + stop), x, vae=told)
        for name in _COLUMNS:
            values = batch.array(name)
            parts[name].append(rate(values) if name == "kl" else values)
    return {name: np.concatenate(values) for name, values in parts.items()}


def _means(columns: Mapping[str, np.ndarray], beta: float) -> dict[str, np.ndarray]:
    """What is compared, of each row."""
    moved = excess(columns["distortion"], columns["distortion_self"])
    bound = elbo(moved, columns["kl"], beta)
    return {"rate": columns["kl"], "distortion": moved, "elbo": bound}


def _variables(
    name: str, units: str, words: str, values: np.ndarray, found: Estimate
) -> dict[str, Variable]:
    source = cite(gap)
    half = float(found.high - found.value)
    return {
        f"{name}_mean": Variable(
            (), values.mean(), f"mean over the second set of {words}", units=units, **source
        ),
        f"{name}_gap": Variable(
            (),
            found.value,
            f"second set less first, +- {half:.2g} (95 %), of {words}",
            units=units,
            show="tile",
            label=f"{name} gap",
            form="+.3g",
            **source,
        ),
        f"{name}_gap_se": Variable(
            (), found.se, f"standard error of {name}_gap; errors of both sets add", units=units,
            **source,
        ),
    }  # fmt: skip
