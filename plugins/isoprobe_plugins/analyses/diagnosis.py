"""Diagnosis: a plain verdict for the model and each dimension, with its evidence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe.theory.importance import STATES
from isoprobe.theory.isometry import decoder_response, recovered_beta
from isoprobe.theory.stated import cite
from isoprobe_plugins.analyses.variables import latent, scalar

if TYPE_CHECKING:
    from isoprobe.contracts import Batch, Context, Setup
    from isoprobe.statistics.moments import Moments
    from isoprobe.theory.diagnosis import Evidence

#: other ways a scale head is commonly read, as powers of the sigma in hand
READINGS = {"read as log variance instead": 0.5, "read as log deviation instead": 2.0}
#: inputs used for the table of betas under other metrics
KEPT = 512


class DiagnosisAnalysis(Analysis):
    """The rules of :mod:`isoprobe.theory.diagnosis` on what the run has seen."""

    name = "diagnosis"
    summary = "a verdict with its evidence, for the model and for each latent"
    needs = frozenset({"std", "stationarity"})
    after = ("importance",)

    def start(self, setup: Setup) -> None:
        """Prepare accumulators; use the pullback where the metric has a tensor."""
        from isoprobe.statistics.moments import Moments

        super().start(setup)
        self.readings: dict[str, tuple[Moments, Moments]] = {}
        if setup.metric.smooth:
            self.needs = self.needs | {"pullback"}
            n = setup.vae.latent_size
            self.readings = {reading: (Moments((n,)), Moments((n,))) for reading in READINGS}
        self.accumulators = {
            f"{reading} {part}": moments
            for reading, pair in self.readings.items()
            for part, moments in zip(("norm", "var"), pair, strict=True)
        }

    def update(self, batch: Batch) -> None:
        """Take in what other readings of the scale head would make of a batch."""
        for reading, (response, variance) in self.readings.items():
            std = batch.array("std") ** READINGS[reading]
            response.update(decoder_response(std, batch.array("pullback")))
            variance.update(std**2)

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Verdict, findings with evidence and advice, and a label for each latent."""
        import numpy as np

        from isoprobe.theory.diagnosis import diagnose

        table: dict[str, float] = {}

        def asked() -> Mapping[str, float]:
            """Recover betas once a rule asks for them: it takes a pass of its own."""
            table.update(table or self._table())
            return table

        found, source = diagnose(self._evidence(context, asked)), cite(diagnose)
        variables = {
            "verdict": scalar(
                "sound" if found.sound else found.findings[0].code, "verdict", **source
            ),
            "label": latent(
                np.array(found.labels),
                "verdict on each latent",
                show="column",
                label="diagnosis",
                **source,
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
                **cite(recovered_beta),
            )
        return variables

    def _evidence(self, context: Context, table: Callable[[], Mapping[str, float]]) -> Evidence:
        from isoprobe.theory.diagnosis import Evidence

        found = context.statistics
        declared = context.beta.value if context.beta.source == "user" else context.beta.declared
        return Evidence(
            active=self.setup.active,
            mixed=context.results["importance"]["state"].values == STATES.index("mixed"),
            rate=found.kl.mean,
            variance=found.variance.mean,
            stationary=found.stationarity.mean,
            stationary_se=found.stationarity.se,
            scaled=found.response.mean if self.readings else None,
            second_moment=found.second_moment.mean,
            beta=context.beta.value,
            declared=declared,
            metric=self.setup.metric.spec(),
            readings={
                reading: (response.mean, variance.mean)
                for reading, (response, variance) in self.readings.items()
            },
            table=table,
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

    return Variable((dim,), np.array(texts), long_name, theory="Verdict")


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Diagnosis."""
    return [DiagnosisAnalysis]
