"""Put the evidence of a run before the judge, and record the verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from isoprobe.contracts import Analysis, Variable
from isoprobe.hookspecs import hookimpl
from isoprobe.probe.beta import weighed
from isoprobe.registry.lookup import installed
from isoprobe.theory.judge import (
    Evidence,
    Level,
    Measured,
    OtherMetric,
    judge,
    used_latents,
    worst_moment,
)
from isoprobe_plugins.analyses.variables import latent, scalar, sourced

if TYPE_CHECKING:
    from isoprobe.contracts import Batch, Context, Facts, Metric
    from isoprobe.theory.judge import Finding, TriedReading, Verdict

#: inputs on which metrics and readings are tried where a rule needs them
KEPT = 512
TRIED = 256
#: findings that call for draws of the posterior through both sides, and for other metrics
_STRANGERS = {"own-samples", "encoder-mismatched", "decoder-dead"}
_METRICS = {"beta", "decoder", "rotated", "reconstruction", "scale-head"}


class DiagnosisAnalysis(Analysis):
    """The rules of :mod:`isoprobe.theory.judge` on what the other analyses found."""

    name = "diagnosis"
    summary = "a verdict with its evidence, for the model and for each latent"
    needs = frozenset()
    after = ("importance", "conditions")

    def update(self, batch: Batch) -> None:
        """Take in nothing: the evidence is what others have measured."""

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Level, findings with evidence and advice, remarks, and a label for each latent."""
        import numpy as np

        verdict, evidence = self.verdict(context)
        sound = verdict.level is not Level.NOT_SOUND
        variables = {
            "level": _word(str(verdict.level), "sound, undecided or not sound"),
            "verdict": _word(
                str(verdict.level) if sound else verdict.findings[0].code, "verdict in a word"
            ),
            "meaning": _word(verdict.meaning, "what the numbers mean, in a sentence"),
            "label": latent(
                np.array(verdict.labels),
                "verdict on each latent",
                theory="Verdict",
                show="column",
                label="diagnosis",
            ),
            **_texts("finding", verdict.findings),
            **_texts("remark", verdict.remarks),
        }
        variables |= {
            "condition": _column("condition", [c.name for c in verdict.conditions], "condition"),
            "answer": _column("condition", [str(c.answer) for c in verdict.conditions], "answer"),
            "size": _numbers([c.size for c in verdict.conditions], "largest deviation"),
            "error": _numbers([c.error for c in verdict.conditions], "half width of its interval"),
            "tolerance": _numbers([c.tolerance for c in verdict.conditions], "tolerance"),
        }
        if evidence.metrics:
            variables["metric"] = _column("metric", list(evidence.metrics), "plausible metrics")
            variables["metric_beta"] = Variable(
                ("metric",),
                np.array([other.beta for other in evidence.metrics.values()]),
                "beta recovered under it",
                units="metric",
                theory="Stationarity (beyond)",
            )
        return sourced(variables, judge)

    def verdict(self, context: Context) -> tuple[Verdict, Evidence]:
        """Judge; look at other metrics and readings only where the first judgement calls for it."""
        from dataclasses import replace

        evidence = evidence_of(context)
        verdict = judge(evidence)
        while verdict.level is Level.NOT_SOUND and evidence.used.any():
            more = self._look({finding.code for finding in verdict.findings}, evidence)
            if not more:
                break
            evidence = replace(evidence, **more)
            verdict = judge(evidence)
        return verdict, evidence

    def _look(self, codes: set[str], evidence: Evidence) -> dict[str, Any]:
        """Evidence that these findings call for and that was not asked for yet."""
        from isoprobe.probe.trials import code_fit

        setup = self.setup
        more: dict[str, Any] = {}
        if not evidence.trials:
            more["trials"] = self._trials(evidence)
        if evidence.code_fit is None and codes & _STRANGERS:
            more["code_fit"] = code_fit(*setup.bound(KEPT), setup.seed)
        if not evidence.metrics and codes & _METRICS:
            more["metrics"] = self._metrics(evidence)
        return {name: found for name, found in more.items() if found is not None and len(found)}

    def _metrics(self, evidence: Evidence) -> dict[str, OtherMetric]:
        """What each plausible metric shows, from evenly spread inputs."""
        from isoprobe.probe.recovery import PLAUSIBLE, recover_table
        from isoprobe.probe.trials import reconstruction_ratio

        known = installed().names("metric")
        metrics = [installed().metric(s) for s in PLAUSIBLE if s.partition(":")[0] in known]
        vae, x = self.setup.bound(KEPT)
        rows = recover_table(vae, metrics, x, evidence.used, self.setup.seed)
        by_spec = {metric.spec(): metric for metric in metrics}
        return {
            row.metric: OtherMetric(row.beta, reconstruction_ratio(vae, by_spec[row.metric], x))
            for row in rows
        }

    def _trials(self, evidence: Evidence) -> tuple[TriedReading, ...]:
        """The reading in hand and those that could be preferred, on the same rows."""
        from functools import partial

        from isoprobe.probe.trials import try_readings

        vae, x = self.setup.bound(TRIED)
        worst = partial(worst_moment, evidence)
        return tuple(try_readings(vae, self.setup.metric, x, self.setup.seed, worst))


def evidence_of(context: Context) -> Evidence:
    """Collect what the rules read."""
    import numpy as np

    from isoprobe.probe.trials import channels

    results, setup = context.results, context.setup
    c, overview, importance = results["conditions"], results["overview"], results["importance"]

    def measured(name: str) -> Measured:
        return Measured.of(c[name].values, c[f"{name}_se"].values)

    def mean_of(name: str) -> Measured:
        values, errors = overview[f"{name}_mean"].values, overview[f"{name}_se"].values
        one = setup.samples < 2  # a single row says nothing of its error
        return Measured.of(values, np.full_like(errors, np.inf) if one else errors)

    beta = context.beta
    declared = beta.declared if beta.comparable else None
    prior = setup.vae.prior
    variance = overview["variance_mean"].values
    if prior is not None or setup.vae.correlated:
        variance = context.statistics.beta.variance()
    # a full covariance has these eigenvalues however the latents are turned: they tell no axes
    ranked = "eigenvalue" in c and not setup.vae.correlated
    own = float(c["distortion_self"].values)
    baseline = float(c["mean_distortion"].values) - own if "mean_distortion" in c else None
    facts = setup.vae.facts
    # where nothing moves and the decoder answers to nothing, no latent is used
    used = setup.active & used_latents(measured("variance"), measured("answer")).any()
    held = used & ~weighed(used, facts, overview["kl_mean"].values)
    return Evidence(
        samples=setup.samples,
        own_draws=setup.own_draws,
        used=used & ~held,
        held=held,
        mixed=importance["state"].values == 1,
        spatial=channels(setup.vae) > 0,
        rate=overview["kl_mean"].values,
        rate_most=c["kl_max"].values,
        variance=variance,
        fixed_scale=bool((c["scale_sd"].values < 1e-6).all()) and setup.samples > 1,
        beta=measured("beta") if "beta" in c else None,
        beta_each=measured("beta_each"),
        beta_pullback=measured("beta_pullback") if "beta_pullback" in c else None,
        declared=beta.value if beta.source == "user" else declared,
        residual=measured("residual"),
        answer=measured("answer"),
        gain=measured("gain"),
        second=mean_of("second_moment"),
        centre=mean_of("posterior_mean" if prior is None else "prior_slope"),
        mixing=measured("mixing") if "mixing" in c else None,
        turn=measured("turn") if "turn" in c else None,
        round_trip=c["round_trip"].values if "round_trip" in c else None,
        expected_trip=c["round_trip_expected"].values
        if "round_trip" in c
        else np.ones_like(variance),
        eigenvalues=measured("eigenvalue") if ranked else None,
        isometric=c["eigenvalue_expected"].values if ranked else None,
        distortion=measured("distortion"),
        baseline=baseline,
        loss=measured("loss") if np.isfinite(c["loss"].values) else Measured.of([]),
        metric=setup.metric.spec(),
        families=_families(setup.metric),
        objective=_objective(facts),
        capacity=facts.capacity,
        free_bits=facts.free_bits,
        prior="" if prior is None else prior.words,
    )


def _objective(facts: Facts) -> str:
    """Words for an objective that weighs the KL otherwise than by one beta."""
    if facts.capacity is not None:
        return f"a capacity loss, gamma |KL - {facts.capacity:g}|"
    if facts.free_bits is not None:
        return f"free bits, {facts.free_bits:g} nats a latent"
    return "decomposed loss" if facts.decomposed else ""


def _families(metric: Metric) -> dict[str, str]:
    """Family by spec, of the plausible metrics and of the one in use."""
    from isoprobe.probe.recovery import PLAUSIBLE

    known = installed().names("metric")
    plausible = [installed().metric(s) for s in PLAUSIBLE if s.partition(":")[0] in known]
    return {m.spec(): m.family for m in (*plausible, metric)}


def _texts(dim: str, findings: tuple[Finding, ...]) -> dict[str, Variable]:
    if not findings:
        return {}
    names = {"finding": ("finding", "evidence", "advice", "causes")}
    code, evidence, advice, causes = names.get(
        dim, (dim, f"{dim}_evidence", f"{dim}_advice", f"{dim}_causes")
    )
    return {
        code: _column(dim, [f.code for f in findings], "what was found"),
        evidence: _column(dim, [f.evidence for f in findings], "evidence"),
        advice: _column(dim, [f.advice for f in findings], "what to do"),
        causes: _column(dim, [", ".join(f.causes) for f in findings], "what may lie behind it"),
    }


def _word(text: str, long_name: str) -> Variable:
    return scalar(text, long_name, theory="Verdict", show="none")


def _column(dim: str, texts: list[str], long_name: str) -> Variable:
    import numpy as np

    return Variable((dim,), np.array(texts, dtype=str), long_name, theory="Verdict")


def _numbers(values: list[float], long_name: str) -> Variable:
    import numpy as np

    return Variable(("condition",), np.array(values, dtype=float), long_name, theory="Verdict")


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Diagnosis."""
    return [DiagnosisAnalysis]
