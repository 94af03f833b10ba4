"""Settle what a run is asked to do: metric, beta, data and analyses that fit the model."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from isoprobe import __version__
from isoprobe.contracts import VAE, Analysis, Metric
from isoprobe.data.batches import prepare
from isoprobe.data.files import beside
from isoprobe.data.overlap import shared_rows
from isoprobe.derivatives.blackbox import BlackBox
from isoprobe.errors import CheckpointError, IsoprobeError, MetricError, OptionError
from isoprobe.probe.purity import ROWS, off_graph, require_domain, require_pure
from isoprobe.probe.quantities import ProbeOptions
from isoprobe.probe.recovery import PLAUSIBLE, recover_table
from isoprobe.probe.told import joined
from isoprobe.run.against import Second
from isoprobe.run.engine import Run, spread
from isoprobe.run.settings import Opening, RunSettings, recorded, with_defaults
from isoprobe.theory.tolerances import TOLERANCES

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Dataset
    from isoprobe.data.batches import Prepared
    from isoprobe.registry.lookup import Registry


@dataclass(frozen=True)
class Job:
    """A run and how its result is labelled.

    Attributes:
        run: ready to gather.
        attrs: root attributes of the result.
        notes: what a reader of the result should know.
        identity: whatever the numbers depend on, compared when a run is resumed or merged.
    """

    run: Run
    attrs: dict[str, Any]
    notes: list[str]
    identity: dict[str, Any]

    def labels(self, command: str, out: str | Path | None) -> dict[str, Any]:
        """Root attributes of a result that a command wrote to a file."""
        output = "" if out is None else str(out)
        return {**self.attrs, "notes": self.notes, "command": command, "output": output}


@dataclass(frozen=True)
class Subject:
    """A model in its place and its data, opened.

    Attributes:
        registry: knows the plugins.
        vae: the model.
        dataset: the data.
        notes: what a reader of the result should know of how they were found.
        conditions: rows that tell the model something of each sample, where such were named.
    """

    registry: Registry
    vae: VAE
    dataset: Dataset
    notes: Sequence[str]
    conditions: Dataset | None = None

    def fitted(
        self, settings: Opening, samples: int | None, metric: Metric | None = None
    ) -> Prepared:
        """Take the rows as the model and a metric take them.

        Args:
            settings: how images are resized and values scaled.
            samples: how many to take; None for all.
            metric: whose range the values must lie in, where there is one.

        Returns:
            The rows in batches.
        """
        return prepare(
            self.dataset,
            self.vae,
            samples=samples,
            resize=settings.resize,
            scale=settings.scale,
            metric=metric,
            conditions=self.conditions,
        )

    def job(self, settings: RunSettings, samples: int | None, *, progress: bool = False) -> Job:
        """Settle what is to be done.

        Args:
            settings: as asked.
            samples: how many to take; None for all.
            progress: show a bar on stderr.

        Returns:
            The job.

        Raises:
            IsoprobeError: whatever does not fit, in one line.
        """
        registry, vae = self.registry, self.vae
        notes = list(self.notes)
        fit = partial(self.fitted, settings, samples)
        metric = chosen_metric(registry, settings.metric, vae)
        if metric is None:
            metric = _metric_by_beta(registry, vae, fit(metric=None), settings.beta, notes)
        declared = declared_beta(registry, vae, metric, notes)
        prepared = fit(metric=metric)
        vae = tried(vae, metric, prepared, settings, notes)
        notes += [*vae.facts.assumptions, *prepared.notes]
        wanted = with_defaults(settings.analyses)
        steps = _judged(_analyses(registry, wanted), vae, notes)
        probing = ProbeOptions(
            pullback=settings.pullback,
            pairs=settings.pairs,
            expectation=settings.expectation,
            seed=settings.seed,
            memory=settings.memory,
            batch_size=settings.batch_size,
        )
        second = self._second(settings, samples, metric)
        training = None
        if any(step.name == "anomaly" for step in steps):
            training = training_share(registry, vae, self.dataset)
        run = Run(
            vae=vae,
            metric=metric,
            data=prepared,
            analyses=steps,
            options=probing,
            given_beta=_given(settings.beta),
            declared_beta=declared.value if declared else None,
            beta_comparable=declared is None or declared.comparable,
            recover_beta=settings.beta == "auto",
            progress=progress,
            training_share=training,
            against=second,
        )
        attrs = _attributes(vae, metric, prepared, steps, settings)
        attrs |= {} if second is None else second.attributes(prepared)
        attrs |= prepared.told
        identity = {
            **attrs,
            "device": vae.device.type,  # the processes of one run have an accelerator each
            "beta_given": settings.beta,
            "fitted": prepared.notes,
            "analyses_asked": [str(getattr(a, "name", a)) for a in wanted],
        }
        if training is not None:
            attrs = {**attrs, "training_share": training}
        return Job(run, attrs, notes, identity)

    def longer(
        self, job: Job, settings: RunSettings, samples: int, *, progress: bool = False
    ) -> Job:
        """Settle the same for more samples, without trying the model again.

        Args:
            job: for fewer samples.
            settings: as asked.
            samples: how many to take now.
            progress: show a bar on stderr.

        Returns:
            The job.
        """
        if samples >= len(self.dataset) or settings.against is not None:
            return self.job(settings, samples, progress=progress)
        data = replace(job.run.data, samples=samples)
        told = {"samples": samples}
        return Job(
            replace(job.run, data=data),
            {**job.attrs, **told},
            list(job.notes),
            {**job.identity, **told},
        )

    def least(self, settings: RunSettings) -> int:
        """Return how many samples the analyses that are asked for begin with."""
        steps = _analyses(self.registry, with_defaults(settings.analyses))
        return max((step.least_samples for step in steps), default=0)

    def _second(self, settings: RunSettings, samples: int | None, metric: Metric) -> Second | None:
        """The set that the data is compared with, where one is named."""
        spec = settings.against
        if spec is None:
            return None
        fit = partial(
            prepare,
            vae=self.vae,
            samples=samples,
            resize=settings.resize,
            scale=settings.scale,
            metric=metric,
        )
        return Second(spec, partial(self.registry.data, spec, self.vae), fit)


def training_share(registry: Registry, vae: VAE, dataset: Dataset) -> float | None:
    """Share of the rows that are those of the data set the checkpoint names; None if not known."""
    named = vae.facts.dataset
    if named is None:
        return None
    try:
        with closing(registry.data(beside(named, vae.path), vae)) as training:
            return shared_rows(dataset, training)
    except IsoprobeError:  # the data set is not here
        return None


def tried(
    vae: VAE,
    metric: Metric,
    data: Prepared,
    settings: Opening,
    notes: list[str],
    *,
    differentiated: bool = True,
) -> VAE:
    """Try a model on a few rows before a run, so that no pass is made with one that cannot be.

    Args:
        vae: the model.
        metric: the distortion.
        data: the samples.
        settings: as asked.
        notes: takes what a reader of the result should know.
        differentiated: derivatives of the decoder will be taken.

    Returns:
        The model, its decoder differentiated by differences where it has no graph.

    Raises:
        CheckpointError: for answers that are random or depend on the rest of the batch, or a
            decoder without gradients.
        MetricError: for an output that the metric does not take.
    """
    told, x = joined(list(spread(data, ROWS, vae)))
    told, x = told.rows(slice(ROWS)), x[:ROWS]
    if settings.allow_random:
        notes.append("answers that differ from call to call were allowed (--allow-random)")
    else:
        require_pure(told, x)
    if told.encode is None:
        return vae
    with torch.no_grad():
        z = told.encode(x).mean
    if bool(z.isfinite().all()):
        require_domain(told, metric, z)
        if differentiated and off_graph(told, z):
            return _by_differences(vae, settings, notes)
    return vae


def _by_differences(vae: VAE, settings: Opening, notes: list[str]) -> VAE:
    """Give a decoder off the autograd graph derivatives by differences, where that was asked."""
    if getattr(settings, "pullback", "exact") != "finite-difference":
        raise CheckpointError(
            f"{vae.name}: decode runs without gradients (torch.no_grad, inference_mode or "
            "detach): remove that, or use --pullback finite-difference"
        )
    if vae.conditional is not None:
        raise CheckpointError(
            f"{vae.name}: decode runs without gradients and is told {vae.conditional.words}: "
            "differences are taken of decoders without a condition; hold it with --condition VALUE"
        )
    notes.append("decode has no gradients: every derivative by central differences")
    logits = vae.decode_logits
    return replace(
        vae,
        decode=BlackBox(_off_graph(vae.decode), vae.dtype),
        decode_logits=None if logits is None else BlackBox(_off_graph(logits), vae.dtype),
    )


def _off_graph(decode: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Call a decoder so that its output may take part in autograd, as that of none may."""
    return lambda z: decode(z.detach()).clone()


# --------------------------------------------------------------------------- metric and beta


def chosen_metric(registry: Registry, metric: str | Metric | None, vae: VAE) -> Metric | None:
    """Return the metric asked for, else the declared one, else None.

    Args:
        registry: knows the metrics.
        metric: asked for; ``auto`` and None leave it to the checkpoint.
        vae: the model.
    """
    if isinstance(metric, Metric):
        return metric
    spec = vae.facts.metric if metric in {None, "auto"} else metric
    return None if spec is None else registry.metric(spec)


def _metric_by_beta(
    registry: Registry,
    vae: VAE,
    data: Prepared,
    beta: float | str | None,
    notes: list[str],
) -> Metric:
    """The metric whose recovered beta is the one declared; weights alone cannot tell."""
    active = np.ones(vae.latent_size, dtype=bool)
    known = registry.names("metric")
    metrics = [registry.metric(s) for s in PLAUSIBLE if s.partition(":")[0] in known]
    told, x = joined(list(spread(data, 512, vae)))
    rows = recover_table(told, metrics, x, active)
    declared = _given(beta) or vae.facts.beta
    shown = ", ".join(f"{row.metric} {row.beta:.3g}" for row in rows)
    if declared is None:
        raise MetricError(
            f"{vae.name} does not say which loss it was trained with, and weights alone cannot "
            f"tell: beta would be {shown}. Give --metric, or the --beta you know."
        )
    off = {row.metric: abs(math.log(max(row.beta, 1e-300) / declared)) for row in rows}
    near = 2 * TOLERANCES["beta"].value
    matching = sorted((r for r in rows if off[r.metric] <= near), key=lambda r: off[r.metric])
    if not matching:
        raise MetricError(
            f"{vae.name}: no metric gives the declared beta {declared:g}; recovered: {shown}. "
            "Give --metric."
        )
    best, *others = matching
    notes.append(
        f"metric {best.metric} chosen: its beta {best.beta:.3g} fits {declared:g}"
        + "".join(f"; so would {row.metric}, {row.beta:.3g}" for row in others)
    )
    return registry.metric(best.metric)


@dataclass(frozen=True)
class Declared:
    """A checkpoint's beta.

    Attributes:
        value: the KL weight.
        comparable: it is in units of the metric in use.
    """

    value: float
    comparable: bool


def declared_beta(
    registry: Registry, vae: VAE, metric: Metric, notes: list[str]
) -> Declared | None:
    """Convert the checkpoint's beta to units of the metric in use, where a factor leads there.

    Args:
        registry: knows the metrics.
        vae: the model.
        metric: in use.
        notes: takes what a reader should know when there is no factor.

    Returns:
        The beta, None where none is declared.
    """
    facts = vae.facts
    if facts.beta is None:
        return None
    if facts.metric is None:
        return Declared(facts.beta, comparable=True)
    trained = registry.metric(facts.metric)
    if trained.spec() == metric.spec():
        return Declared(facts.beta, comparable=True)
    if metric.family and trained.family == metric.family:
        size = vae.input_size
        factor = trained.family_units(size) / metric.family_units(size)
        return Declared(facts.beta * factor, comparable=True)
    notes.append(
        f"the declared beta {facts.beta:g} belongs to metric {trained.spec()}, not {metric.spec()}"
    )
    return Declared(facts.beta, comparable=False)


def _given(beta: float | str | None) -> float | None:
    if beta is None or beta == "auto":
        return None
    try:
        value = float(beta)
    except ValueError as error:
        raise OptionError(f"--beta takes 'auto' or a number; found {beta!r}.") from error
    if not 0 < value < math.inf:
        raise OptionError(f"--beta must be positive and finite; found {beta}.")
    return value


# --------------------------------------------------------------------------- analyses and record


def _analyses(registry: Registry, wanted: Sequence[str | Analysis]) -> list[Analysis]:
    """Instances in an order in which each follows what it reads, each name once."""
    ordered: dict[str, Analysis] = {}

    def add(item: str | Analysis, chain: tuple[str, ...] = ()) -> None:
        analysis = registry.analysis(item) if isinstance(item, str) else item
        if analysis.name in chain:
            raise IsoprobeError(f"analyses wait for each other: {' -> '.join(chain)}.")
        for needed in analysis.after:
            if needed not in ordered and needed != "overview":
                add(needed, (*chain, analysis.name))
        if isinstance(item, str) and ":" not in item and analysis.name in ordered:
            return
        ordered[analysis.name] = analysis

    explicit = {str(getattr(w, "name", w)).partition(":")[0]: w for w in wanted}
    for item in explicit.values():
        add(item)
    return list(ordered.values())


_CORRELATED = (
    "latents are correlated in posteriors N(mu, Sigma): sigma_j^2 is 1 / (Sigma^-1)_jj, what is "
    "left of latent j when the others are known, and norm + sigma_j^2 = 1 stays exact; KL_j is "
    "given the latents before j; turning all latents costs nothing, so importances go by axis, and "
    "'isoprobe spectrum' finds the directions"
)


def _judged(steps: list[Analysis], vae: VAE, notes: list[str]) -> list[Analysis]:
    """Leave out, with the reason, what says nothing of a prior or a covariance like this."""
    if vae.correlated:
        notes.append(_CORRELATED)
        notes += [
            f"{step.name} not judged: {step.independent}, and here they are correlated"
            for step in steps
            if step.independent
        ]
        return [step for step in steps if not step.independent]
    if vae.prior is None:
        return steps
    kept = [step for step in steps if not step.standard_prior]
    notes.append(
        f"the prior is {vae.prior.words}: rates are means over draws, a latent's given those "
        "before it; norm by stationarity + P_j = 1 with P_j = E[sigma_j eps_j s_j] is exact, what "
        "rests on the pullback or on sigma alone holds to second order"
    )
    notes += [
        f"{step.name} not judged: {step.standard_prior}, and the prior is {vae.prior.words}"
        for step in steps
        if step.standard_prior
    ]
    return kept


def model_attributes(vae: VAE) -> dict[str, Any]:
    """Return what tells a model from another, as results record it."""
    return {
        "model_sha256": vae.sha256,
        "adapter": vae.adapter,
        "input_shape": list(vae.input_shape),
        "latent_shape": list(vae.latent_shape),
        "condition": vae.condition,
        "decomposed": bool(vae.facts.decomposed),
        **({} if vae.prior is None else {"prior": vae.prior.words}),
        **({"covariance": "full"} if vae.correlated else {}),
        **({"reading": vae.reading} if vae.reading else {}),
    }


def _attributes(
    vae: VAE,
    metric: Metric,
    data: Prepared,
    analyses: Sequence[Analysis],
    settings: RunSettings,
) -> dict[str, Any]:
    """What the numbers depend on; recorded, and compared when a run is resumed."""
    return {
        "model": vae.name,
        **model_attributes(vae),
        "metric": metric.spec(),
        "logits": vae.decode_logits is not None and metric.logits_distortion is not None,
        "data": data.name,
        "data_fingerprint": data.fingerprint,
        "samples": data.samples,
        "analyses": [analysis.name for analysis in analyses],
        **recorded(settings),
        "device": str(vae.device),
        "dtype": str(vae.dtype).removeprefix("torch."),
        "isoprobe_version": __version__,
        "torch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "python_version": ".".join(map(str, sys.version_info[:3])),
    }
