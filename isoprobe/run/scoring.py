"""Score new rows against a reference result, streamed: one encoding, two decodings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from isoprobe.contracts import VAE, Beta, Context, Metric, Setup
from isoprobe.data.groups import group_keys, grouping
from isoprobe.derivatives.memory import rows_forwards
from isoprobe.errors import CheckpointError, MetricError, OptionError, ResultError
from isoprobe.probe.fixed import TWO_POINT
from isoprobe.probe.objective import Objective, parts, terms_of
from isoprobe.probe.shared import PassStatistics
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Group, Result, require_numbers
from isoprobe.run.decisions import Explained, decided, input_names
from isoprobe.run.opening import opened, processor_threads
from isoprobe.run.settings import Opening, ScoreSettings
from isoprobe.run.settle import model_attributes, tried
from isoprobe.theory.detection import TIE, conformal_p_values, upper_threshold
from isoprobe.theory.discoveries import trimmed
from isoprobe.theory.scores import NEEDS, Mahalanobis, score_of

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Dataset
    from isoprobe.data.batches import Prepared

SomeOpening = TypeVar("SomeOpening", bound=Opening)

GROUP = "anomaly"
_USUAL = "usual_"
#: rows that go through a model at least: of fewer, products are summed in another order
_LEAST = 32
_MAP = "distortion_map"
#: columns of a reference that have a number for each latent
_BY_LATENT = frozenset(["mean", "std", "score_rate"])


@dataclass(frozen=True)
class _Other:
    """Another score than L_x, of a reference's rows.

    Attributes:
        name: one of :data:`isoprobe.theory.scores.SCORES`.
        every: of all rows, ``(N,)``.
        normal: of those that are the reference.
        place: of the reference in y, for ``mahalanobis``.
    """

    name: str
    every: np.ndarray
    normal: np.ndarray
    place: Mahalanobis | None

    @classmethod
    def read(cls, result: Result, name: str) -> _Other:
        """Compute a score from the columns of a result.

        Returns:
            The score of its rows.

        Raises:
            ResultError: when it was made without what the score takes.
        """
        there = result["samples"]
        if name == "iwae" and "score_iwae" not in there:
            raise ResultError(
                f"--score iwae: {result.path.name} has no such score; make it with "
                "'isoprobe analyze MODEL --analysis anomaly:iwae=true --out F.h5'"
            )
        extra = ("score_transform",) if "score_transform" in there else ()
        columns = _columns(result, [*NEEDS[name], *extra])
        keep, place = _normal(result), None
        if name == "mahalanobis":
            mean, std = (columns[key][keep].astype(np.float64) for key in ("mean", "std"))
            place = Mahalanobis.of(mean, std, float(result.attrs["beta"]), _posterior(result))
        every = score_of(name, columns, place)
        return cls(name, every, every[keep], place)

    def thresholds(self, rules: Mapping[str, float]) -> dict[str, float]:
        """Thresholds of this score by rule, each with its share above."""
        pools = {"quantile": np.sort(self.normal), "contamination": np.sort(self.every)}
        return {rule: upper_threshold(pools[rule], share) for rule, share in rules.items()}


def _by_rule(group: Group, name: str) -> dict[str, float]:
    """A number of each rule of a reference, by the rule's name."""
    rules, values = np.atleast_1d(group["rule"].values), group.numbers(name, 1)
    if rules.shape != values.shape:
        raise ResultError(f"a reference is damaged: {len(values)} {name}s of {len(rules)} rules")
    return dict(zip(map(str, rules), map(float, values), strict=True))


def _columns(result: Result, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Columns of a reference that are numbers, of a row or of each of its latents."""
    found = result.samples(names=names)
    return {
        n: require_numbers(v, 1 + (n in _BY_LATENT), f"{result.path}: {n}")
        for n, v in found.items()
    }


def _posterior(result: Result) -> np.ndarray | None:
    """E[L L'] of a reference whose latents are correlated; None where they are independent."""
    if "covariance" not in result.attrs:
        return None
    if "usual_covariance" not in result[GROUP]:
        raise ResultError(
            f"--score mahalanobis: {result.path.name} was made before it had a covariance; make it "
            "anew with 'isoprobe analyze MODEL --analysis anomaly --out F.h5'"
        )
    return result[GROUP].numbers("usual_covariance", 2)


def _normal(result: Result) -> np.ndarray:
    """Which rows of a result are its reference, ``(N,)`` bool."""
    count = result.sizes["sample"]
    if len(result[GROUP].numbers("reference", 1)) == count:
        return np.ones(count, dtype=bool)
    marks: np.ndarray = _columns(result, ["anomalous"])["anomalous"].astype(bool)
    return ~marks


@dataclass(frozen=True)
class Pool:
    """Scores of reference rows.

    Attributes:
        scores: of all, ascending, ``(N,)``.
        groups: of each group, ascending, by its number; None where all are one.
    """

    scores: np.ndarray
    groups: Mapping[int, np.ndarray] | None = None

    @classmethod
    def read(cls, result: Result, by: str | None, trim: float, other: _Other | None) -> Pool:
        """Read the scores of a reference, less a share of the highest.

        Args:
            result: with the analysis ``anomaly``.
            by: column that tells groups apart; None for one pool.
            trim: share of each pool's highest scores that is left out.
            other: another score than L_x, of these rows.

        Returns:
            The scores.

        Raises:
            ResultError: when its rows are not told apart by that column.
        """
        group = result[GROUP]
        reference = group.numbers("reference", 1) if other is None else np.sort(other.normal)
        whole = cls(trimmed(reference, trim))
        if by is None:
            return whole
        made = str(group["by"].values) if "by" in group else None
        if made != by:
            found = "is one group" if made is None else f"is grouped by '{made}'"
            raise ResultError(
                f"--by {by}: the reference {result.path.name} {found}; make it with 'isoprobe "
                f"analyze MODEL --data FILE.csv:keep={by} --analysis anomaly:by={by} --out F.h5'"
            )
        columns = _columns(result, ["score", "group"])
        keep = _normal(result)
        scores = columns["score"][keep] if other is None else other.normal
        keys = columns["group"][keep]
        groups = {int(key): trimmed(np.sort(scores[keys == key]), trim) for key in np.unique(keys)}
        return cls(whole.scores, groups)

    def p_values(
        self, scores: np.ndarray, tolerance: np.ndarray, keys: np.ndarray | None
    ) -> np.ndarray:
        """Conformal p-values of new rows, each against its own group; 1 where that has no row.

        Args:
            scores: of new rows, ``(B,)``.
            tolerance: within which scores are tied, ``(B,)``.
            keys: numbers of the rows' groups, ``(B,)``; None where all are one.

        Returns:
            ``(B,)``.
        """
        if self.groups is None or keys is None:
            return conformal_p_values(scores, self.scores, tolerance)
        found = np.ones(len(scores))
        for key in np.unique(keys):
            own = keys == key
            group = self.groups.get(int(key), np.empty(0))
            found[own] = conformal_p_values(scores[own], group, tolerance[own])
        return found

    def size(self, key: int | None) -> int:
        """Reference rows of a group, or of all."""
        if self.groups is None or key is None:
            return len(self.scores)
        return len(self.groups.get(key, ()))


@dataclass(frozen=True)
class Reference:
    """What scores are measured against, read once from a result with the analysis ``anomaly``.

    Attributes:
        path: the result file.
        attrs: its root attributes.
        pool: scores of its rows, and by group where these are told apart.
        thresholds: rows of a higher score are flagged, by rule.
        usual: means and deviations of parts over its rows, by name; none in older results.
        other: the score that is taken instead of L_x; None for L_x.
    """

    path: Path
    attrs: Mapping[str, Any]
    pool: Pool
    thresholds: Mapping[str, float]
    usual: Mapping[str, np.ndarray]
    other: _Other | None = None

    @classmethod
    def read(
        cls,
        path: str | Path,
        contamination: float | None = None,
        by: str | None = None,
        trim: float = 0.0,
        score: str = "loss",
    ) -> Reference:
        """Read a reference.

        Args:
            path: the result file.
            contamination: share of its rows, labelled or not, that are anomalies; None for what
                the result itself has.
            by: column that tells groups of its rows apart; None for one pool.
            trim: share of each pool's highest scores that is left out.
            score: which one is taken, of :data:`isoprobe.theory.scores.SCORES`.

        Returns:
            The reference; the file is closed again.

        Raises:
            ResultError: when it is no result, or was made without the analysis ``anomaly``, or
                without those groups.
            OptionError: for a share outside (0, 1).
        """
        if contamination is not None and not 0 < contamination < 1:
            raise OptionError(f"--contamination lies between 0 and 1; found {contamination:g}.")
        if not 0 <= trim < 1:
            raise OptionError(f"--trim is at least 0 and below 1; found {trim:g}.")
        with Result.open(path) as result:
            if GROUP not in result:
                raise ResultError(
                    f"{path} has no anomaly scores to compare with; make it with "
                    "'isoprobe analyze MODEL --analysis anomaly --out F.h5'"
                )
            group = result[GROUP]
            thresholds = _by_rule(group, "threshold")
            other = None if score == "loss" else _Other.read(result, score)
            if other is not None:
                thresholds = other.thresholds(_by_rule(group, "share"))
            if contamination is not None:
                every = other.every if other else _columns(result, ["score"])["score"]
                thresholds["contamination"] = upper_threshold(np.sort(every), contamination)
            usual = {
                name.removeprefix(_USUAL): group[name].values
                for name in group
                if name.startswith(_USUAL)
            }
            pool = Pool.read(result, by, trim, other)
            return cls(Path(path), result.attrs, pool, thresholds, usual, other)

    @property
    def beta(self) -> float:
        """The KL weight its scores were made with, in units of its metric."""
        return float(self.attrs["beta"])

    @property
    def expectation(self) -> str:
        """How it takes E_z D; by two points before that was recorded."""
        return str(self.attrs.get("expectation", TWO_POINT))

    @property
    def dtype(self) -> str:
        """Floating type of the run that its scores are of."""
        return str(self.attrs["dtype"])

    def check_model(self, vae: VAE) -> None:
        """Refuse another model than the reference's.

        Raises:
            ResultError: naming what differs.
        """
        check_model(vae, self.path, self.attrs)

    def metric(self, given: str | Metric | None) -> Metric:
        """The metric of the reference, which another may not take the place of.

        Returns:
            The metric; an instance given is returned itself when it fits.

        Raises:
            MetricError: when another one is given.
        """
        spec = str(self.attrs["metric"])
        if given is None:
            return installed().metric(spec)
        metric = given if isinstance(given, Metric) else installed().metric(given)
        if metric.spec() != spec:
            raise MetricError(
                f"{self.path} has scores in metric '{spec}', and '{metric.spec()}' was asked for; "
                "leave --metric out, or analyse the reference rows with it"
            )
        return metric


def check_model(vae: VAE, path: Path, attrs: Mapping[str, Any]) -> None:
    """Refuse another model than that of a result.

    Args:
        vae: the model.
        path: the result file.
        attrs: its root attributes.

    Raises:
        ResultError: naming what differs.
    """
    for name, value in model_attributes(vae).items():
        expected = attrs.get(name)
        if expected != value and name == "reading":
            raise ResultError(
                f"{path} and this run read the weights of {vae.name} in two ways; leave --adapter "
                "and --option out to have them read as there"
            )
        if expected != value:
            raise ResultError(
                f"{path} belongs to another model: its {name} is {expected!r}, that of "
                f"{vae.name} is {value!r}; give the model it was made from, or analyse this one"
            )


def read_alike(asked: SomeOpening, attrs: Mapping[str, Any]) -> SomeOpening:
    """Have weights that nothing describes read as a result had them, not anew on other rows.

    Args:
        asked: settings; an adapter or options of the user's own stand.
        attrs: root attributes of the result.

    Returns:
        The settings.
    """
    reading = attrs.get("reading")
    if not reading or asked.adapter or asked.options:
        return asked
    return replace(asked, options={"reading": str(reading)})


def check_settings(asked: ScoreSettings) -> None:
    """Refuse settings that cannot be, whatever the rows.

    Raises:
        OptionError: for such a setting.
    """
    if not 0 < asked.alpha < 1:
        raise OptionError(f"--alpha lies between 0 and 1; found {asked.alpha:g}.")
    if asked.fdr is not None and not 0 < asked.fdr < 1:
        raise OptionError(f"--fdr lies between 0 and 1; found {asked.fdr:g}.")


class Scores:
    """What rows of a model's inputs score against a reference, a block at a time.

    A row's numbers do not hang on the company it comes in: short blocks are filled up, since
    products of very few rows are summed in another order than those of many.

    Args:
        vae: the model, on its device.
        metric: the reference's.
        reference: what they are compared with.
        asked: settings.

    Attributes:
        batch: rows at once.
    """

    def __init__(
        self, vae: VAE, metric: Metric, reference: Reference, asked: ScoreSettings
    ) -> None:
        self.vae, self.reference, self.asked = vae, reference, asked
        self.metric = metric
        self.objective = self.objective_of(by_input=asked.by_input)
        self.batch = asked.batch_size or rows_forwards(
            vae, asked.memory, self.objective.probe.view.decode
        )
        setup = Setup(
            vae=vae,
            metric=metric,
            samples=0,
            seed=0,
            active=np.ones(vae.latent_size, dtype=bool),
            expectation=reference.expectation,
            sample=self._zeros,
        )
        self._analysis = installed().analysis(f"{GROUP}:iwae=true" if self._weighs else GROUP)
        self._analysis.start(setup)
        unseen = PassStatistics.empty(vae.latent_size)
        self._context = Context(setup, Beta(reference.beta, "reference"), unseen)

    def columns(
        self,
        x: Tensor,
        rows: np.ndarray,
        name: str,
        keys: np.ndarray | None = None,
        told: VAE | None = None,
    ) -> dict[str, np.ndarray]:
        """Score some rows.

        Args:
            x: inputs, ``(B, *input_shape)``; B may be 0.
            rows: their numbers, ``(B,)``.
            name: of the data, for errors.
            keys: numbers of their groups, ``(B,)``; None where all rows are one.
            told: the model bound to what it is told of these rows, where it does not find that.

        Returns:
            Columns by name, each ``(B, ...)``.

        Raises:
            CheckpointError: when a score is not finite.
        """
        found = self._found(*self._filled(x, told or self.vae))
        found = {name: values[: len(x)] for name, values in found.items()}
        score = found["score"]
        self._check(rows, score, name)
        tolerance, loss, other = found["score_tolerance"], {}, self.reference.other
        if other is not None:
            loss, score = {"loss": score}, score_of(other.name, found, other.place)
            tolerance = TIE * np.abs(score)
        p_value = self.reference.pool.p_values(score, tolerance, keys)
        thresholds = self.reference.thresholds
        return {
            "row": rows,
            "score": score,
            **loss,
            **_part_columns(found, by_latent=self.asked.by_latent),
            "p_value": p_value,
            "flag_alpha": p_value <= self.asked.alpha,
            **{
                f"flag_{rule}": score > threshold + tolerance
                for rule, threshold in thresholds.items()
            },
            **({"distortion_map": found[_MAP]} if _MAP in found else {}),
        }

    def watched(
        self, x: Tensor, *, by_input: bool, told: VAE | None = None
    ) -> dict[str, np.ndarray]:
        """Return what is to be compared of rows, one by one.

        Args:
            x: inputs, ``(B, *input_shape)``.
            by_input: give distortions by input too, where the metric is a sum over inputs.
            told: the model bound to what it is told of these rows, where it does not find that.

        Returns:
            ``score``, ``p_value``, ``whole`` (distortion parts), ``(B,)`` each; ``latent`` (means)
            and ``rate`` (KL in nats), ``(B, n)``; ``input`` and ``distortion``, ``(B, m)``.
        """
        if by_input and not self.objective.by_input:
            self.objective = self.objective_of(by_input=True)
        terms = self.objective(*self._filled(x, told or self.vae))
        whole = parts(terms, self.reference.beta)
        score, tolerance = whole.score[: len(x)], whole.tolerance[: len(x)]
        distortion = (
            whole.distortion if whole.transform is None else whole.distortion + whole.transform
        )
        found = {
            "score": score,
            "p_value": self.reference.pool.p_values(score, tolerance, None),
            "whole": distortion[: len(x)],
            "latent": terms.mean[: len(x)].double().cpu().numpy(),
            "rate": terms.rates[: len(x)],
            "input": x.flatten(1).double().cpu().numpy(),
        }
        if terms.by_input is not None:
            found["distortion"] = terms.by_input[: len(x)].flatten(1).double().cpu().numpy()
        return found

    @property
    def _weighs(self) -> bool:
        other = self.reference.other
        return other is not None and other.name == "iwae"

    def objective_of(self, *, by_input: bool) -> Objective:
        """Return the terms of the scores, by input too where that is asked for."""
        transform = self.vae.facts.transform_metric
        return Objective(
            self.vae,
            self.metric,
            None if transform is None else installed().metric(transform),
            by_input=by_input,
            draws=self._weighs,
            batch_size=1,
            expectation=self.reference.expectation,
        )

    def _found(self, x: Tensor, told: VAE) -> dict[str, np.ndarray]:
        """What the analysis keeps of each row, and by input where that is asked for."""
        batch = self.objective.probe(np.arange(len(x)), x, vae=told)
        columns = dict(self._analysis.update(batch) or {})
        chunk = {name: column.values for name, column in columns.items()}
        chunk |= {name: batch[name].cpu().numpy() for name in ("mean", "std")}
        finished = self._analysis.finish_samples(chunk, self._context) or {}
        maps = {}
        if self.asked.by_input:
            terms = terms_of(batch, self.vae, self.objective.transform_metric)
            maps = {} if terms.by_input is None else {_MAP: terms.by_input.cpu().numpy()}
        return chunk | {name: column.values for name, column in finished.items()} | maps

    def _filled(self, x: Tensor, told: VAE) -> tuple[Tensor, VAE]:
        lacking = min(_LEAST, self.batch) - len(x)
        if not len(x):
            return self._zeros(max(lacking, 1)), self.vae.anywhere()
        told = told.on(x)
        if lacking <= 0:
            return x, told
        places = torch.arange(len(x) + lacking, device=x.device).clamp(max=len(x) - 1)
        return x[places], told.rows(places)

    def _zeros(self, count: int) -> Tensor:
        shape = (count, *self.vae.input_shape)
        return torch.zeros(shape, dtype=self.vae.dtype, device=self.vae.device)

    def _check(self, rows: np.ndarray, score: np.ndarray, name: str) -> None:
        good = np.isfinite(score)
        if not good.all():
            first = int(np.argmin(good))
            raise CheckpointError(
                f"{self.vae.name} gives row {rows[first]} of {name} the score "
                f"{score[first]}; expected a finite number. The row may lie far from what the "
                "model was trained on."
            )


class Scoring:
    """Rows of a data set to be scored, batch by batch; iterate to get columns.

    Args:
        scores: what scores them.
        data: the rows.

    Attributes:
        batch: rows at once.
        rows: how many there are.
    """

    def __init__(self, scores: Scores, data: Prepared) -> None:
        self.scores, self.data = scores, data
        self.vae, self.reference, self.asked = scores.vae, scores.reference, scores.asked
        self.batch, self.rows = scores.batch, data.samples

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        batches = self.batches(range(self.rows))
        return iter(batches) if self.asked.fdr is None else decided(batches, self.asked.fdr)

    def batches(self, rows: range) -> Iterator[dict[str, np.ndarray]]:
        """Yield the columns of successive batches of some of the rows, each row by itself.

        What a decision over all rows adds, iteration over the whole adds.
        """
        for start in range(rows.start, rows.stop, self.batch):
            stop = min(start + self.batch, rows.stop)
            told, x, labels = self.data.rows(start, stop, self.vae)
            along = self.data.carried(start, stop)
            keys = None
            if self.asked.by is not None:
                keys = group_keys(grouping(along, self.asked.by, self.data.name))
            if labels is not None and labels.ndim == 1:
                along["label"] = labels
            numbers = self.data.indices(start, stop)
            columns = self.scores.columns(x, numbers, self.data.name, keys, told)
            # a column that goes along under the name of one of ours is told apart
            given = {f"{n}_given" if n in columns else n: v for n, v in along.items()}
            yield {"row": numbers, **given, **columns}

    def attributes(self) -> dict[str, object]:
        """What the scores depend on, to be recorded with them."""
        attrs = self.reference.attrs
        kept = ("model", "model_sha256", "adapter", "metric", "beta", "decomposed", "condition")
        return {
            **{name: attrs[name] for name in kept},
            "data": self.data.name,
            "data_fingerprint": self.data.fingerprint,
            "samples": self.rows,
            "reference": self.reference.path.name,
            "reference_data": attrs["data"],
            "reference_data_fingerprint": attrs["data_fingerprint"],
            "alpha": self.asked.alpha,
            **({} if self.asked.score == "loss" else {"score": self.asked.score}),
            **({} if self.asked.fdr is None else {"fdr": self.asked.fdr}),
            **({} if self.asked.by is None else {"by": self.asked.by}),
            **({} if self.asked.trim == 0 else {"trim": self.asked.trim}),
            "thresholds": dict(self.reference.thresholds),
            "device": str(self.vae.device),
            "dtype": str(self.vae.dtype).removeprefix("torch."),
            "notes": self.notes,
        }

    @property
    def notes(self) -> list[str]:
        """What a reader of the scores should know: of the rows, and of what they are against."""
        attrs, found = self.reference.attrs, list(self.data.notes)
        if share := attrs.get("training_share"):
            found.append(
                f"{share:.0%} of the reference rows of {self.reference.path.name} are rows the "
                "model was trained on, whose scores are too low: more normal rows are flagged than "
                "the p-values say"
            )
        if self.data.fingerprint == attrs["data_fingerprint"]:
            found.append(
                f"the rows are those of the reference {self.reference.path.name}: each is compared "
                "with itself, and the p-values are no test"
            )
        return found

    def explained(self, position: int, score: float | None = None) -> Explained:
        """Return what made a row's score, part by part.

        Args:
            position: of the row among those scored.
            score: as it was found in company, from which rounding may keep it apart; None for its
                own.

        Returns:
            Its parts, which add up to the score exactly.
        """
        x, _ = self.data.batch(position, position + 1, self.vae.device, self.vae.dtype)
        usual, beta = self.reference.usual, self.reference.beta
        by_input = "distortion_mean" in usual
        objective = self.scores.objective_of(by_input=by_input)
        terms = objective(x)
        whole = parts(terms, beta)
        named = input_names(self.data.dataset, self.vae.input_shape)
        names, values = [], []
        expected: list[float] | None = [] if "kl_mean" in usual else None
        if terms.by_input is not None:
            found = terms.by_input[0]
            mean = usual["distortion_mean"].ravel()
            for name, places in named.items():
                names.append(("input", name))
                values.append(float(found.double().ravel()[places].sum()))
                if expected is not None:
                    expected.append(float(mean[places].sum()))
        else:
            distortion = float(whole.distortion[0])
            distortion += 0.0 if whole.transform is None else float(whole.transform[0])
            names.append(("distortion", "distortion"))
            values.append(distortion)
            expected = None
        through = self._through(terms.mean, named)
        for latent, value in enumerate(whole.rate[0].tolist()):
            names.append(("latent", str(latent)))
            values.append(value)
            if expected is not None:
                expected.append(beta * float(usual["kl_mean"][latent]))
        return Explained.of(
            float(whole.score[0]) if score is None else score, names, values, expected, through
        )

    def _through(self, mean: Tensor, named: Mapping[str, np.ndarray]) -> dict[str, str]:
        """Input that each latent moves most, from what is usual to where the row has it.

        Returns:
            Its name, by the latent's number; none where the reference does not say what is usual.
        """
        usual = self.reference.usual.get("mean_mean")
        if usual is None:
            return {}
        n = mean.shape[1]
        z = mean.repeat(n + 1, 1)
        z[range(n), range(n)] = torch.as_tensor(usual, dtype=z.dtype, device=z.device)
        with torch.no_grad():
            output = self.vae.decode(z).flatten(1)
        moved = (output[:-1] - output[-1]).double().square().cpu().numpy()
        by_name = np.stack([moved[:, places].sum(axis=1) for places in named.values()], axis=1)
        most = by_name.argmax(axis=1)
        return {str(latent): list(named)[place] for latent, place in enumerate(most.tolist())}


@contextmanager
def open_scoring(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray,
    reference: str | Path,
    **settings: Any,
) -> Iterator[Scoring]:
    """Prepare to score new rows; use it in a ``with`` statement and iterate over what it gives.

    Args:
        model: the reference's model, in memory or as the path of a checkpoint.
        data: the new rows: a data spec, an opened data set, or an array ``(N, ...)``.
        reference: result file of ``analyze`` with the analysis ``anomaly``.
        **settings: as for :func:`score`.

    Yields:
        The rows to be scored.

    Raises:
        OptionError: for an option that cannot be.
        ResultError: when the reference has no scores, or belongs to another model.
        MetricError: when the metric is not the reference's, or has no parts by input.
        DataError: when the rows do not fit the model.
    """
    asked = ScoreSettings(**settings)
    check_settings(asked)
    against = Reference.read(reference, asked.contamination, asked.by, asked.trim, asked.score)
    chosen = against.metric(asked.metric)
    asked = replace(asked, metric=chosen, dtype=asked.dtype or against.dtype)
    asked = read_alike(asked, against.attrs)
    with opened(model, data, asked) as subject, processor_threads(asked.threads):
        vae = subject.vae
        against.check_model(vae)
        prepared = subject.fitted(asked, asked.samples, chosen)
        if asked.by is not None:
            grouping(prepared.carried(0, 1), asked.by, prepared.name)
        vae = tried(vae, chosen, prepared, asked, [], differentiated=False)
        yield Scoring(Scores(vae, chosen, against, asked), prepared)


def score(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray,
    reference: str | Path,
    *,
    metric: str | Metric | None = None,
    score: str = "loss",
    alpha: float = 0.05,
    fdr: float | None = None,
    by: str | None = None,
    trim: float = 0.0,
    contamination: float | None = None,
    by_latent: bool = False,
    by_input: bool = False,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    trust: bool = False,
    allow_random: bool = False,
    samples: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    resize: int | tuple[int, int] | None = None,
    pad: int | tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    condition: Any = None,
    memory: int = 1 << 30,
    threads: int | None = None,
) -> dict[str, np.ndarray]:
    """Score new rows and keep everything in memory; :func:`open_scoring` streams.

    Args:
        model: the reference's model, in memory or as the path of a checkpoint.
        data: the new rows: a data spec, an opened data set, or an array ``(N, ...)``.
        reference: result file of ``analyze`` with the analysis ``anomaly``.
        metric: has to be the reference's, which is taken when None.
        score: what is taken as the score: ``loss`` (L_x), ``iwae``, ``mahalanobis`` (in y),
            ``reconstruction`` or ``kl``; L_x is then the column ``loss``.
        alpha: rows of a conformal p-value up to this are flagged.
        fdr: flag rows too so that at most this share of those flagged is expected to be normal.
        by: column that goes along and tells groups; each row is compared with its own.
        trim: share of the reference's highest scores that is left out, as of anomalies.
        contamination: share of the reference's rows that are anomalies, for a threshold.
        by_latent: give the rate of each latent too.
        by_input: give the distortion parts by input too, where the metric is a sum over inputs.
        adapter: name of the adapter for a path.
        options: of the adapter.
        trust: let code inside the checkpoint run, as for :func:`isoprobe.load`.
        allow_random: go on with a model that answers the same row differently.
        samples: at most this many rows, spread evenly over the data; None for all.
        batch_size: rows at once; planned from ``memory`` when None.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` ...
        dtype: ``float32`` or ``float64``; the reference's when None.
        resize: images to this height and width.
        pad: images to this height and width with zeros; as the checkpoint says when None.
        scale: data values that stand for the ends of the model's input range.
        condition: what a conditional model is told of each row: a spec or rows, as many as there
            are, or a number for all; None for the data's labels, or what the model finds itself.
        memory: bytes that layers may take at once.
        threads: processor threads; as many as PyTorch takes when None.

    Returns:
        Columns by name, each ``(N,)``: ``row``, what goes along with the rows, ``label`` where
        there is one, ``score`` and its parts ``distortion``, ``transform`` (decomposed loss alone)
        and ``rate`` in units of the metric, ``p_value``, a flag for each rule, with ``fdr`` also
        ``q_value`` and ``flag_fdr``; with ``by_latent`` also ``rate_by_latent``, ``(N, n)``, with
        ``by_input`` also ``distortion_map``, ``(N, *input_shape)``.
    """
    given = locals()
    asked = {f.name: given[f.name] for f in fields(ScoreSettings)}
    with open_scoring(model, data, reference, **asked) as scoring:
        return gathered(scoring)


def gathered(batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the columns of all batches, one after the other."""
    held = list(batches)
    return {name: np.concatenate([batch[name] for batch in held]) for name in held[0]}


def _part_columns(found: Mapping[str, np.ndarray], *, by_latent: bool) -> dict[str, np.ndarray]:
    columns = {"distortion": found["score_distortion"]}
    if "score_transform" in found:
        columns["transform"] = found["score_transform"]
    columns["rate"] = found["score_rate"].sum(axis=1)
    if by_latent:
        columns["rate_by_latent"] = found["score_rate"]
    return columns
