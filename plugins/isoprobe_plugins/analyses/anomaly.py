"""Score anomalies with additive parts, thresholds, and quality where labels are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from isoprobe.contracts import Analysis, Variable
from isoprobe.data.groups import group_keys, grouping
from isoprobe.errors import CheckpointError, DataError, MetricError, OptionError
from isoprobe.hookspecs import hookimpl
from isoprobe.registry.lookup import installed
from isoprobe.statistics.moments import Moments
from isoprobe.theory import formulas
from isoprobe.theory.covariance import correlated_kl
from isoprobe.theory.detection import (
    TIE,
    auroc,
    average_precision,
    detect,
    false_alarm_rate,
    tie_tolerance,
    upper_threshold,
)
from isoprobe.theory.scores import (
    NEEDS,
    SCORES,
    Mahalanobis,
    compared,
    score_of,
    weighted_loss,
)
from isoprobe.theory.stated import cite
from isoprobe.theory.weighted import log_weights
from isoprobe_plugins.analyses.figures import WithFigures
from isoprobe_plugins.analyses.variables import input_axes, sample, scalar

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from isoprobe.contracts import VAE, Batch, Context, Metric, Setup
    from isoprobe.probe.objective import Terms
    from isoprobe.probe.untrained import Untrained

NONZERO = "nonzero"
TRAINED_ON = (
    "{share:.0%} of the reference rows are rows the checkpoint was trained on, whose scores are "
    "too low: more new normal rows are flagged than p-values and thresholds say; take rows held "
    "out of training"
)
_QUALITY = {
    "precision": "share of the flagged rows that are anomalies",
    "recall": "share of the anomalies that are flagged",
    "f1": "harmonic mean of precision and recall",
    "flagged": "rows above the threshold",
    "ties": "rows at the threshold, not flagged",
}


#: what parts are measured: in words, units, and where they come from
_USUAL = {
    "mean": ("posterior means", "1", cite(formulas.weighted_rate)),
    "kl": ("KL_j", "nat", cite(formulas.kl_divergence)),
    "whole": ("the distortion parts of the score", "metric", cite(formulas.fixed_distortion)),
    "input": ("inputs", "1", cite(formulas.fixed_distortion)),
    "distortion": ("the distortion by input", "metric", cite(formulas.fixed_distortion)),
}
#: inputs up to which their parts are kept
_MOST_INPUTS = 1 << 16


class Anomaly(WithFigures):
    """L_x of each sample (Section 5.3), in units of the metric, and what it is worth as a score.

    ``score`` is the sum of ``score_distortion``, ``score_transform`` (decomposed loss alone) and
    ``score_rate`` over latents. Rows strictly above a threshold are flagged. Where rows are
    labelled, the reference is the normal ones alone, and the same network with its parameters
    drawn anew is scored beside the trained one.

    Args:
        contamination: share of all rows taken to be anomalies; by default the labelled share.
        quantile: level of the threshold by reference rows.
        anomaly: label of an anomaly, or ``nonzero``; by default 1 where labels are 0 and 1.
        by: column that goes along with the rows and tells their group, each of which is to be a
            reference of its own for ``score --by``.
        iwae: keep the distortion at each draw too, for the importance-weighted bound as a score.

    Raises:
        OptionError: for a share outside (0, 1).
    """

    name = "anomaly"
    summary = "additive scores L_x, thresholds, conformal reference, quality (Section 5.3)"
    needs = frozenset({"mean", "std", "distortion_fixed"})
    least_samples = 10_000

    def __init__(
        self,
        contamination: float | None = None,
        quantile: float = 0.99,
        anomaly: str | None = None,
        by: str | None = None,
        iwae: bool = False,
    ) -> None:
        super().__init__()
        for option, share in (("contamination", contamination), ("quantile", quantile)):
            if share is not None and not 0 < share < 1:
                raise OptionError(f"anomaly's {option} lies between 0 and 1; found {share}.")
        self.contamination = contamination
        self.quantile = quantile
        self.anomaly = anomaly
        self.by = by
        self.iwae = iwae

    def start(self, setup: Setup) -> None:
        """Choose the form of the score; draw the untrained network where rows are labelled."""
        super().start(setup)
        from isoprobe.probe.objective import Objective, quantities_of

        self.transform_metric = _transform_metric(setup.vae)
        self.decomposed = bool(setup.vae.facts.decomposed)
        self.by_input = _adds_up(setup)
        if self.iwae and self.decomposed:
            raise OptionError(
                "anomaly:iwae=true needs a model of the plain loss; the decomposed loss is no bound"
            )
        self.needs = quantities_of(setup.vae, by_input=self.by_input, draws=self.iwae)
        self.accumulators = {
            f"{kind}_{name}": Moments(shape)
            for kind in ("normal", "marked")
            for name, shape in self._usual(setup).items()
        }
        self.untrained = _untrained(setup) if setup.labelled else None
        if self.untrained is not None:
            self.objective = Objective(
                setup.vae, setup.metric, self.transform_metric, expectation=setup.expectation
            )

    def _usual(self, setup: Setup) -> dict[str, tuple[int, ...]]:
        """What a new row is compared with part by part, and its shape."""
        vae = setup.vae
        n = (vae.latent_size,)
        shapes: dict[str, tuple[int, ...]] = {"mean": n, "kl": n, "whole": ()}
        if vae.correlated:
            shapes["posterior"] = 2 * n
        if self.by_input:
            shapes |= {"input": tuple(vae.input_shape), "distortion": tuple(vae.input_shape)}
        return shapes

    def _learn_usual(self, batch: Batch, terms: Terms, marks: np.ndarray | None) -> None:
        """Take in what inputs, latents and their parts of the score are in these rows."""
        import numpy as np

        whole = _array(terms.distortion)
        if terms.transform is not None:
            whole = whole + _array(terms.transform)
        found = {"mean": _array(terms.mean), "kl": terms.rates, "whole": whole}
        if self.by_input and terms.by_input is not None:
            found |= {"input": _array(batch.x), "distortion": _array(terms.by_input)}
        if terms.root is not None:
            found["posterior"] = _array(terms.root @ terms.root.mT)
        odd = np.zeros(len(batch.index), dtype=bool) if marks is None else marks
        for name, values in found.items():
            cast("Moments", self.accumulators[f"normal_{name}"]).update(values[~odd])
            cast("Moments", self.accumulators[f"marked_{name}"]).update(values[odd])

    def update(self, batch: Batch) -> Mapping[str, Variable]:
        """Store the parts of the score that need no beta, and which rows are anomalies."""
        from isoprobe.probe.objective import terms_of

        terms = terms_of(batch, self.setup.vae, self.transform_metric)
        inner = "x_check" if self.decomposed else "x"
        columns = {
            "score_distortion": sample(
                _array(terms.distortion),
                f"mean of D({inner}, x_hat) over posterior draws",
                units="metric",
                **cite(formulas.fixed_distortion),
            )
        }
        if terms.root is not None:
            columns["score_kl"] = Variable(
                ("sample", "latent"),
                terms.rates,
                "KL_j given the latents before j",
                units="nat",
                show="none",
                **cite(correlated_kl),
            )
        if terms.transform is not None:
            columns["score_transform"] = sample(
                _array(terms.transform),
                "w D(x, x_check) with the weight of the decomposed loss",
                units="metric",
                **cite(formulas.objective),
            )
        if self.iwae:
            columns["score_draws"] = Variable(
                ("sample", "draw"),
                batch.array("distortion_fixed_draws"),
                "D(x, x_hat) at each draw of the fixed set",
                units="metric",
                show="none",
                **cite(formulas.fixed_distortion),
            )
            if terms.root is not None or self.setup.vae.prior is not None:
                columns["score_ratio"] = self._ratio(terms)
        if self.by is not None:
            values = grouping(dict(batch.carried), self.by, "the reference's data")
            columns["group"] = sample(
                group_keys(values),
                f"number of the row's group by '{self.by}'",
                theory="Decisions over many rows (beyond)",
            )
        marks = None if batch.labels is None else self._marks(batch.labels)
        self._learn_usual(batch, terms, marks)
        if marks is not None:
            columns["anomalous"] = sample(
                marks, "the row is labelled as an anomaly", theory="Anomaly score"
            )
            columns |= self._untrained_parts(batch)
        return columns

    def _ratio(self, terms: Terms) -> Variable:
        """Log p(z) / q(z) at the fixed draws, where mean and deviation alone do not tell it."""
        import numpy as np

        from isoprobe.probe.fixed import fixed_noise

        prior = self.setup.vae.prior
        mean, std = _array(terms.mean), _array(terms.std)
        root = None if terms.root is None else _array(terms.root)
        noise = fixed_noise(mean.shape[1], self.setup.expectation).numpy()[None]
        own = None
        if prior is not None:
            drawn = terms.mean[:, None] + terms.std[:, None] * terms.mean.new_tensor(noise)
            own = _array(prior.log_density(drawn.flatten(0, 1))).reshape(drawn.shape[:2])
        still = np.zeros((len(mean), noise.shape[1]))
        return Variable(
            ("sample", "draw"),
            log_weights(still, noise, mean, std, 1.0, own, root),
            "log of p(z) / q(z) at each draw of the fixed set",
            units="nat",
            show="none",
            **cite(log_weights),
        )

    def _marks(self, labels: np.ndarray) -> np.ndarray:
        """Whether each row is an anomaly, ``(B,)`` bool."""
        import numpy as np

        if labels.ndim > 1:
            raise DataError(
                f"analysis 'anomaly' needs one label a row; found {labels.shape[1]}. Name the one "
                "that marks anomalies in --data."
            )
        numeric = labels.dtype.kind in "fiub"
        if self.anomaly is None and not numeric:
            raise DataError(
                f"the labels are text such as {str(labels[0])!r}; say which one is the anomaly: "
                "--analysis anomaly:anomaly=LABEL"
            )
        if self.anomaly in {None, NONZERO}:
            if not numeric:
                raise DataError(
                    f"anomaly:anomaly={NONZERO} needs labels that are numbers; found text such as "
                    f"{str(labels[0])!r}. Name the label instead."
                )
            return np.asarray(labels != 0)
        if not numeric:
            return np.asarray(labels.astype(str) == self.anomaly)
        try:
            return np.asarray(labels == float(str(self.anomaly)))
        except ValueError as error:
            raise DataError(
                f"anomaly:anomaly={self.anomaly} is text, and the labels are numbers such as "
                f"{labels[0]}; give the number."
            ) from error

    def _untrained_parts(self, batch: Batch) -> dict[str, Variable]:
        from isoprobe.probe.untrained import swapped

        module = self.setup.vae.module
        if self.untrained is None or module is None or self.untrained.missing:
            return {}
        with swapped(module, self.untrained.tensors):
            terms = self.objective(batch.x)
        distortion = terms.distortion.double()
        if terms.transform is not None:
            distortion = distortion + terms.transform.double()
        return {
            "untrained_distortion": sample(
                distortion.cpu().numpy(),
                "distortion parts, parameters drawn anew",
                units="metric",
                **cite(formulas.objective),
            ),
            "untrained_rate": sample(
                formulas.rate(terms.rates),
                "KL, parameters drawn anew",
                units="nat",
                **cite(formulas.rate),
            ),
        }

    def finish_samples(
        self, chunk: Mapping[str, np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Rates in units of the metric, and the sums, once beta is known."""
        from isoprobe.probe.objective import Parts, rates

        beta = context.beta.value
        kl = chunk.get("score_kl")
        if kl is None:
            kl = rates(chunk["mean"], chunk["std"], self.setup.vae.prior)
        parts = Parts(
            chunk["score_distortion"],
            chunk["score_transform"] if self.decomposed else None,
            formulas.weighted_rate(kl, beta),
        )
        source = cite(formulas.objective)
        columns = {
            "score": sample(parts.score, "anomaly score L_x", units="metric", **source),
            "score_tolerance": sample(
                parts.tolerance,
                "scores nearer than this are tied",
                units="metric",
                **cite(tie_tolerance),
            ),
            "score_rate": Variable(
                ("sample", "latent"),
                parts.rate,
                "beta KL_j",
                units="metric",
                **cite(formulas.weighted_rate),
            ),
        }
        if "score_draws" in chunk:
            from isoprobe.probe.fixed import fixed_noise

            if "score_ratio" in chunk:
                weights = chunk["score_ratio"] - chunk["score_draws"] / beta
            else:
                noise = fixed_noise(chunk["mean"].shape[1], self.setup.expectation).numpy()
                weights = log_weights(
                    chunk["score_draws"],
                    noise[None],
                    chunk["mean"].astype(float),
                    chunk["std"].astype(float),
                    beta,
                )
            columns["score_iwae"] = sample(
                weighted_loss(weights, beta),
                "-beta times the importance-weighted bound at the fixed draws",
                units="metric",
                **cite(weighted_loss),
            )
        if "untrained_rate" in chunk:
            columns["untrained_score"] = sample(
                chunk["untrained_distortion"]
                + formulas.weighted_rate(chunk["untrained_rate"], beta),
                "anomaly score with parameters drawn anew",
                units="metric",
                **source,
            )
        return columns

    def result(self, context: Context) -> Mapping[str, Variable]:
        """Check that a score can be made.

        Returns:
            Nothing yet: every array needs finished samples.

        Raises:
            MetricError: when beta is unknown, without which parts cannot be added.
        """
        if not context.beta.value > 0:
            raise MetricError(
                "an anomaly score adds distortion and beta KL, and beta is not known: no latent is "
                "active to recover it from. Give it with --beta."
            )
        return {}

    def conclude(
        self, columns: Callable[[str], np.ndarray], context: Context
    ) -> Mapping[str, Variable]:
        """Thresholds, the conformal reference, and quality where rows are labelled."""
        import numpy as np

        scores = columns("score")
        self._require_finite(scores)
        marks, notes = self._usable_marks(columns)
        reference = np.sort(scores if marks is None else scores[~marks])
        variables = {
            **self._usual_parts(apart=marks is not None),
            "reference": Variable(
                ("reference",),
                reference,
                "scores of reference rows, ascending",
                units="metric",
                **cite(formulas.objective),
            ),
            **self._by_rule(scores, marks, columns("score_tolerance")),
        }
        if self.setup.training_share:
            notes.append(TRAINED_ON.format(share=self.setup.training_share))
        if marks is not None:
            variables["prevalence"] = scalar(
                float(marks.mean()), "share of rows that are anomalies", theory="Anomaly score"
            )
            variables |= self._by_score(columns, marks, context.beta.value)
            twin, note = self._untrained_scores(columns)
            notes += note
            if twin is not None:
                by_rule = self._by_rule(twin, marks, TIE * np.abs(twin))
                variables |= {
                    f"untrained_{name}": _renamed(variable, ", parameters drawn anew")
                    for name, variable in by_rule.items()
                    if name not in {"rule", "share", "false_alarms"}
                }
        if notes:
            variables["notes"] = scalar(
                "; ".join(notes), "what was left out, and why", theory="Anomaly score"
            )
        return variables

    def _usual_parts(self, *, apart: bool) -> dict[str, Variable]:
        """Means and deviations of inputs, latents and their parts of the score, by reference rows.

        Args:
            apart: whether rows marked as anomalies are left out.

        Returns:
            Named arrays.
        """
        found: dict[str, Variable] = {}
        for name, shape in self._usual(self.setup).items():
            seen = deepcopy(cast("Moments", self.accumulators[f"normal_{name}"]))
            if not apart:
                seen.merge(self.accumulators[f"marked_{name}"])
            if name == "posterior":
                found["usual_covariance"] = Variable(
                    ("latent", "latent_2"), seen.mean, "E[L L'] of reference rows", show="none",
                    **cite(Mahalanobis.distance),
                )  # fmt: skip
                continue
            dims = ("latent",) if name in {"mean", "kl"} else input_axes(shape) if shape else ()
            text, units, source = _USUAL[name]
            for kind, values in (("mean", seen.mean), ("sd", seen.sd)):
                said = "mean" if kind == "mean" else "standard deviation"
                found[f"usual_{name}_{kind}"] = Variable(
                    dims, values, f"{said} over reference rows of {text}", units=units, show="none",
                    **source,
                )  # fmt: skip
        if self.by is not None:
            found["by"] = scalar(
                self.by,
                "column of the reference's groups",
                theory="Decisions over many rows (beyond)",
            )
        return found

    def _require_finite(self, scores: np.ndarray) -> None:
        import numpy as np

        good = np.isfinite(scores)
        if not good.all():
            first = int(np.argmin(good))
            raise CheckpointError(
                f"{self.setup.vae.name}: the anomaly score of sample {first} is {scores[first]}; "
                "expected a finite number. The decoder may overflow one sigma off the mean."
            )

    def _usable_marks(
        self, columns: Callable[[str], np.ndarray]
    ) -> tuple[np.ndarray | None, list[str]]:
        """Marks where labels tell anomalies from normal rows; otherwise None and the reason."""
        import numpy as np

        if not self.setup.labelled:
            return None, []
        marks = columns("anomalous").astype(bool)
        if self.anomaly is None and len(values := np.unique(columns("label"))) > 2:
            shown = ", ".join(f"{value:g}" for value in values[:4])
            return None, [
                f"labels ({shown} ...) are classes, not marks of anomalies: no quality figures; "
                f"name the anomaly's label, or {NONZERO}, with anomaly:anomaly=LABEL"
            ]
        if marks.all() or not marks.any():
            which = "every row" if marks.all() else "no row"
            return None, [f"{which} is labelled as an anomaly: no quality figures"]
        return marks, []

    def _by_rule(
        self, scores: np.ndarray, marks: np.ndarray | None, tolerance: np.ndarray
    ) -> dict[str, Variable]:
        """Threshold by each rule, and what it finds."""
        import numpy as np

        shares = {"quantile": 1 - self.quantile}
        contamination = self.contamination
        if contamination is None and marks is not None:
            contamination = float(marks.mean())
        if contamination is not None:
            shares["contamination"] = contamination
        reference = scores if marks is None else scores[~marks]
        pools = {"quantile": np.sort(reference), "contamination": np.sort(scores)}
        thresholds = [upper_threshold(pools[rule], share) for rule, share in shares.items()]

        def by_rule(
            values: object,
            long_name: str,
            units: str = "1",
            formula: Callable[..., object] = upper_threshold,
        ) -> Variable:
            return Variable(("rule",), np.asarray(values), long_name, units=units, **cite(formula))

        variables = {
            "rule": by_rule(list(shares), "where the threshold comes from"),
            "share": by_rule(
                list(shares.values()), "share above it: of reference rows, or of all rows"
            ),
            "false_alarms": by_rule(
                [
                    false_alarm_rate(len(reference), share) if rule == "quantile" else np.nan
                    for rule, share in shares.items()
                ],
                "chance at most that a new normal row lies above it; not known by contamination",
                formula=false_alarm_rate,
            ),
            "threshold": by_rule(thresholds, "rows of a higher score are flagged", units="metric"),
        }
        if marks is None:
            return variables
        found = [asdict(detect(scores, marks, threshold, tolerance)) for threshold in thresholds]
        for name, text in _QUALITY.items():
            variables[name] = by_rule([row[name] for row in found], text, formula=detect)
        variables["auroc"] = scalar(
            auroc(scores, marks),
            "area under the ROC curve",
            show="tile",
            label="AUROC",
            form=".3f",
            **cite(auroc),
        )
        variables["average_precision"] = scalar(
            average_precision(scores, marks), "average precision", **cite(average_precision)
        )
        return variables

    def _posterior(self) -> np.ndarray | None:
        """E[L L'] of the normal rows; None where latents are independent."""
        if not self.setup.vae.correlated:
            return None
        return cast("Moments", self.accumulators["normal_posterior"]).mean

    def _by_score(
        self, columns: Callable[[str], np.ndarray], marks: np.ndarray, beta: float
    ) -> dict[str, Variable]:
        """Compare what could be taken as a score, by what the labels say of each.

        Returns:
            Named arrays, one value a score.
        """
        import numpy as np

        names = [name for name in SCORES if name != "iwae" or self.iwae]
        held = {name: columns(name) for score in names for name in NEEDS[score]}
        if self.decomposed:
            held["score_transform"] = columns("score_transform")
        mean, std = (held[name][~marks].astype(float) for name in ("mean", "std"))
        place = Mahalanobis.of(mean, std, beta, self._posterior())
        found = compared({name: score_of(name, held, place) for name in names}, marks)
        texts = {
            "auroc": "area under the ROC curve of each score",
            "auroc_se": "its standard error (DeLong)",
            "average_precision": "average precision of each score",
            "average_precision_se": "its standard error, by resampling rows",
        }
        variables = {
            f"by_score_{name}": Variable(("kind",), values, texts[name], **cite(compared))
            for name, values in found.items()
        }
        kinds = Variable(("kind",), np.array(names), "which score", **cite(compared))
        return variables | {"by_score": kinds}

    def _untrained_scores(
        self, columns: Callable[[str], np.ndarray]
    ) -> tuple[np.ndarray | None, list[str]]:
        import numpy as np

        left_out = "left out the untrained network's figures: "
        if self.untrained is None:
            return None, [f"{left_out}the model's parameters are not known"]
        if self.untrained.missing:
            named = ", ".join(self.untrained.missing[:3])
            return None, [f"{left_out}no reset_parameters fills {named}"]
        scores = columns("untrained_score")
        if not np.isfinite(scores).all():
            return None, [f"{left_out}some of its scores are not finite"]
        return scores, []


def _array(values: Tensor) -> np.ndarray:
    array: np.ndarray = values.detach().double().cpu().numpy()
    return array


def _adds_up(setup: Setup) -> bool:
    """Whether the distortion is a sum over inputs, by trying rows of the data against others."""
    from isoprobe.probe.quantities import distortion_by_input

    if setup.vae.input_size > _MOST_INPUTS or setup.samples == 0:
        return False
    if setup.metric.likelihood:
        return True
    x = setup.sample(min(4, setup.samples))
    if tuple(x.shape[1:]) != tuple(setup.vae.input_shape):
        return False
    other = x.flip(0).roll(1, dims=-1)
    if bool((setup.metric.distortion(x, other) == 0).all()):
        return False
    try:
        distortion_by_input(setup.metric.distortion, x, other)
        transform = _transform_metric(setup.vae)
        if setup.vae.facts.decomposed and transform is not None:
            distortion_by_input(transform.distortion, x, other)
    except MetricError:
        return False
    return True


def _transform_metric(vae: VAE) -> Metric | None:
    spec = vae.facts.transform_metric
    return None if spec is None else installed().metric(spec)


def _untrained(setup: Setup) -> Untrained | None:
    from isoprobe.probe.untrained import untrained

    module = setup.vae.module
    return None if module is None else untrained(module, setup.seed)


def _renamed(variable: Variable, suffix: str) -> Variable:
    from dataclasses import replace

    return replace(variable, long_name=variable.long_name + suffix, show="none")


@hookimpl
def isoprobe_analyses() -> list[type[Analysis]]:
    """Anomaly scores."""
    return [Anomaly]
