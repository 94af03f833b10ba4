"""Diagnosis: a plain verdict for the model and each dimension, with its evidence."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe_plugins.analyses.variables import latent, scalar

if TYPE_CHECKING:
    from isoprobe.contracts import Batch, Context, Setup
    from isoprobe.theory.diagnosis import Evidence

#: other ways a scale head is commonly read, as powers of the sigma in hand
READINGS = {"read as log variance instead": 0.5, "read as log deviation instead": 2.0}
#: inputs used for the table of betas under other metrics
KEPT = 512


class DiagnosisAnalysis(Analysis):
    """The rules of :mod:`isoprobe.theory.diagnosis` on what the run has seen."""

    name = "diagnosis"
    summary = "a verdict with its evidence, for the model and for each latent"
    needs = frozenset({"mean", "std", "stationarity"})
    after = ("importance",)

    def start(self, setup: Setup) -> None:
        """Prepare accumulators; use the pullback where the metric has a tensor."""
        from isoprobe.statistics.moments import Moments

        super().start(setup)
        n = setup.vae.latent_size
        names = ["variance", "stationarity", "second_moment"]
        if setup.metric.smooth:
            self.needs = self.needs | {"pullback"}
            names += ["scaled", *(f"{r} {part}" for r in READINGS for part in ("norm", "var"))]
        self.moments = {name: Moments((n,)) for name in names}
        self.accumulators = dict(self.moments)

    def update(self, batch: Batch) -> None:
        """Take in a batch."""
        mean, std = batch.array("mean"), batch.array("std")
        self.moments["variance"].update(std**2)
        self.moments["stationarity"].update(batch.array("stationarity"))
        self.moments["second_moment"].update(mean**2 + std**2)
        if "pullback" in batch.quantities and "scaled" in self.moments:
            pullback = batch.array("pullback")
            self.moments["scaled"].update(2 * std**2 * pullback)
            for reading, power in READINGS.items():
                self.moments[f"{reading} norm"].update(2 * std ** (2 * power) * pullback)
                self.moments[f"{reading} var"].update(std ** (2 * power))

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Verdict, findings with evidence and advice, and a label for each latent."""
        import numpy as np

        from isoprobe.theory.diagnosis import diagnose

        evidence = self._evidence(context)
        found = diagnose(evidence)
        table = evidence.table
        variables = {
            "verdict": scalar("sound" if found.sound else found.findings[0].code, "verdict"),
            "label": latent(
                np.array(found.labels), "verdict on each latent", show="column", label="diagnosis"
            ),
        }
        if found.findings:
            variables |= {
                "finding": _texts("finding", [f.code for f in found.findings], "what is wrong"),
                "evidence": _texts("finding", [f.evidence for f in found.findings], "evidence"),
                "advice": _texts("finding", [f.advice for f in found.findings], "what to do"),
            }
        if table:
            variables["metric"] = _texts("metric", list(table), "plausible metrics")
            variables["metric_beta"] = Variable(
                ("metric",),
                np.array(list(table.values())),
                "beta recovered under it",
                units="metric",
            )
        return variables

    def _evidence(self, context: Context) -> Evidence:
        from isoprobe.theory.diagnosis import Evidence

        means = {name: moments.mean for name, moments in self.moments.items()}
        importance, overview = context.results["importance"], context.results["overview"]
        declared = context.beta.value if context.beta.source == "user" else context.beta.declared
        return Evidence(
            active=self.setup.active,
            mixed=importance["state"].values == 1,
            rate=overview["kl_mean"].values,
            variance=means["variance"],
            stationary=means["stationarity"],
            stationary_se=self.moments["stationarity"].se,
            scaled=means.get("scaled"),
            second_moment=means["second_moment"],
            beta=context.beta.value,
            declared=declared,
            metric=self.setup.metric.spec(),
            readings={
                reading: (means[f"{reading} norm"], means[f"{reading} var"])
                for reading in READINGS
                if f"{reading} norm" in means
            },
            table=self._table(),
        )

    def _table(self) -> dict[str, float]:
        """Beta recovered under each plausible metric, from evenly spread inputs."""
        from isoprobe.probe.recovery import PLAUSIBLE, recover_table
        from isoprobe.registry.lookup import installed

        x = self.setup.sample(KEPT)
        known = installed().names("metric")
        metrics = [installed().metric(s) for s in PLAUSIBLE if s.partition(":")[0] in known]
        rows = recover_table(self.setup.vae, metrics, x, self.setup.active, self.setup.seed)
        return {row.metric: row.beta for row in rows}


def _texts(dim: str, texts: list[str], long_name: str) -> Variable:
    import numpy as np

    return Variable((dim,), np.array(texts), long_name)


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Diagnosis."""
    return [DiagnosisAnalysis]
