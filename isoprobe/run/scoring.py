"""Anomaly scores of new rows against a reference result, streamed: one encoding, two decodings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import numpy as np
import torch

from isoprobe.contracts import VAE, Metric
from isoprobe.data.batches import prepare
from isoprobe.derivatives.memory import decoder_width
from isoprobe.errors import CheckpointError, MetricError, OptionError, ResultError
from isoprobe.probe.objective import Objective, Parts, parts
from isoprobe.registry.lookup import installed
from isoprobe.results.reader import Result, readable
from isoprobe.run.opening import opened
from isoprobe.run.settle import Settings as Opening
from isoprobe.run.settle import model_attributes, tried
from isoprobe.theory.detection import conformal_p_values, upper_threshold

if TYPE_CHECKING:
    from torch import Tensor

    from isoprobe.contracts import Dataset
    from isoprobe.data.batches import Prepared

GROUP = "anomaly"
_MAX_BATCH = 8192
#: live copies of the widest layer in a forward pass: input, output, and the rows themselves
_COPIES = 4


class Settings(TypedDict, total=False):
    """Options of :func:`score`, as :func:`open_scoring` explains them."""

    metric: str | Metric | None
    alpha: float
    contamination: float | None
    by_latent: bool
    by_input: bool
    adapter: str | None
    options: Mapping[str, str] | None
    trust: bool
    samples: int | None
    batch_size: int | None
    device: str
    dtype: str | None
    resize: int | tuple[int, int] | None
    scale: tuple[float, float] | None
    memory: int
    allow_random: bool


@dataclass(frozen=True)
class Reference:
    """What scores are measured against, read once from a result with the analysis ``anomaly``.

    Attributes:
        path: the result file.
        attrs: its root attributes.
        scores: of the reference rows, ascending, ``(N,)``.
        thresholds: rows of a higher score are flagged, by rule.
    """

    path: Path
    attrs: Mapping[str, Any]
    scores: np.ndarray
    thresholds: Mapping[str, float]

    @classmethod
    def read(cls, path: str | Path, contamination: float | None = None) -> Reference:
        """Read a reference.

        Args:
            path: the result file.
            contamination: share of its rows, labelled or not, that are anomalies; None for what
                the result itself has.

        Returns:
            The reference; the file is closed again.

        Raises:
            ResultError: when it is no result, or was made without the analysis ``anomaly``.
            OptionError: for a share outside (0, 1).
        """
        if contamination is not None and not 0 < contamination < 1:
            raise OptionError(f"--contamination lies between 0 and 1; found {contamination:g}.")
        with readable(path), Result.open(path) as result:
            if GROUP not in result:
                raise ResultError(
                    f"{path} has no anomaly scores to compare with; make it with "
                    "'isoprobe analyze MODEL --analysis anomaly --out F.h5'"
                )
            group = result[GROUP]
            rules = [str(rule) for rule in group["rule"].values]
            thresholds = dict(zip(rules, map(float, group["threshold"].values), strict=True))
            if contamination is not None:
                every = np.sort(result.samples(names=["score"])["score"])
                thresholds["contamination"] = upper_threshold(every, contamination)
            return cls(Path(path), result.attrs, group["reference"].values, thresholds)

    @property
    def beta(self) -> float:
        """The KL weight its scores were made with, in units of its metric."""
        return float(self.attrs["beta"])

    def check_model(self, vae: VAE) -> None:
        """Refuse another model than the reference's.

        Raises:
            ResultError: naming what differs.
        """
        for name, value in model_attributes(vae).items():
            expected = self.attrs.get(name)
            if expected != value:
                raise ResultError(
                    f"{self.path} belongs to another model: its {name} is {expected!r}, that of "
                    f"{vae.name} is {value!r}; give the model it was made from, or analyse this one"
                )

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


@dataclass
class Scoring:
    """Rows to be scored, batch by batch; iterate to get columns.

    Attributes:
        vae: the model, on its device.
        objective: gives the terms of the score.
        data: the rows.
        reference: what they are compared with.
        alpha: rows of a conformal p-value up to this are flagged.
        batch: rows at once.
        by_latent: give the rate of each latent too.
    """

    vae: VAE
    objective: Objective
    data: Prepared
    reference: Reference
    alpha: float = 0.05
    batch: int = _MAX_BATCH
    by_latent: bool = False
    rows: int = field(init=False)

    def __post_init__(self) -> None:
        self.rows = self.data.samples

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return self.batches()

    def batches(self, done: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Yield the columns of successive batches, but for the first ``done`` rows."""
        for start in range(done, self.rows, self.batch):
            stop = min(start + self.batch, self.rows)
            x, _ = self.data.batch(start, stop, self.vae.device, self.vae.dtype)
            yield self._columns(self.data.indices(start, stop), x)

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
            "alpha": self.alpha,
            "thresholds": dict(self.reference.thresholds),
            "device": str(self.vae.device),
            "dtype": str(self.vae.dtype).removeprefix("torch."),
            "notes": self.data.notes,
        }

    def _columns(self, rows: np.ndarray, x: Tensor) -> dict[str, np.ndarray]:
        terms = self.objective(x)
        found = parts(terms, self.reference.beta)
        score = found.score
        self._check(rows, score)
        p_value = conformal_p_values(score, self.reference.scores)
        thresholds = self.reference.thresholds
        return {
            "row": rows,
            "score": score,
            **_part_columns(found, by_latent=self.by_latent),
            "p_value": p_value,
            "flag_alpha": p_value <= self.alpha,
            **{f"flag_{rule}": score > threshold for rule, threshold in thresholds.items()},
            **({} if terms.by_input is None else {"distortion_map": terms.by_input.cpu().numpy()}),
        }

    def _check(self, rows: np.ndarray, score: np.ndarray) -> None:
        good = np.isfinite(score)
        if not good.all():
            first = int(np.argmin(good))
            raise CheckpointError(
                f"{self.vae.name} gives row {rows[first]} of {self.data.name} the score "
                f"{score[first]}; expected a finite number. The row may lie far from what the "
                "model was trained on."
            )


@contextmanager
def open_scoring(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray,
    reference: str | Path,
    *,
    metric: str | Metric | None = None,
    alpha: float = 0.05,
    contamination: float | None = None,
    by_latent: bool = False,
    by_input: bool = False,
    adapter: str | None = None,
    options: Mapping[str, str] | None = None,
    trust: bool = False,
    samples: int | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str | None = None,
    resize: int | tuple[int, int] | None = None,
    scale: tuple[float, float] | None = None,
    memory: int = 1 << 30,
    allow_random: bool = False,
) -> Iterator[Scoring]:
    """Prepare to score new rows; use it in a ``with`` statement and iterate over what it gives.

    Args:
        model: the reference's model, in memory or as the path of a checkpoint.
        data: the new rows: a data spec, an opened data set, or an array ``(N, ...)``.
        reference: result file of ``analyze`` with the analysis ``anomaly``.
        metric: has to be the reference's, which is taken when None.
        alpha: rows of a conformal p-value up to this are flagged.
        contamination: share of the reference's rows that are anomalies, for a threshold.
        by_latent: give the rate of each latent too.
        by_input: give the distortion parts by input too, where the metric is a sum over inputs.
        adapter: name of the adapter for a path.
        options: of the adapter.
        trust: let code inside the checkpoint run, as for :func:`isoprobe.load`.
        samples: at most this many rows, evenly spaced; None for all.
        batch_size: rows at once; planned from ``memory`` when None.
        device: ``auto``, ``cpu``, ``cuda``, ``mps`` ...
        dtype: ``float32`` or ``float64``; the reference's when None.
        resize: images to this height and width.
        scale: data values that stand for the ends of the model's input range.
        memory: bytes that layers may take at once.
        allow_random: go on with a model that answers the same row differently.

    Yields:
        The rows to be scored.

    Raises:
        OptionError: for an option that cannot be.
        ResultError: when the reference has no scores, or belongs to another model.
        MetricError: when the metric is not the reference's, or has no parts by input.
        DataError: when the rows do not fit the model.
    """
    if not 0 < alpha < 1:
        raise OptionError(f"--alpha lies between 0 and 1; found {alpha:g}.")
    against = Reference.read(reference, contamination)
    chosen = against.metric(metric)
    asked = Opening(
        metric=chosen,
        adapter=adapter,
        options=options,
        trust=trust,
        device=device,
        dtype=dtype or str(against.attrs["dtype"]),
        resize=resize,
        scale=scale,
        allow_random=allow_random,
    )
    with opened(model, data, asked) as subject:
        vae = subject.vae
        against.check_model(vae)
        fitted = prepare(
            subject.dataset, vae, samples=samples, resize=resize, scale=scale, metric=chosen
        )
        vae = tried(vae, chosen, fitted, asked, [], differentiated=False)
        transform = vae.facts.transform_metric
        objective = Objective(
            vae,
            chosen,
            None if transform is None else installed().metric(transform),
            by_input=by_input,
        )
        yield Scoring(
            vae=vae,
            objective=objective,
            data=fitted,
            reference=against,
            alpha=alpha,
            batch=batch_size or _planned_batch(vae, objective, memory),
            by_latent=by_latent,
        )


def score(
    model: VAE | str | Path,
    data: str | Dataset | Tensor | np.ndarray,
    reference: str | Path,
    **settings: Unpack[Settings],
) -> dict[str, np.ndarray]:
    """Score new rows and keep everything in memory; :func:`open_scoring` streams.

    Args:
        model: the reference's model, in memory or as the path of a checkpoint.
        data: the new rows: a data spec, an opened data set, or an array ``(N, ...)``.
        reference: result file of ``analyze`` with the analysis ``anomaly``.
        **settings: as for :func:`open_scoring`.

    Returns:
        Columns by name, each ``(N,)``: ``row``, ``score`` and its parts ``distortion``,
        ``transform`` (decomposed loss alone) and ``rate`` in units of the metric, ``p_value``, a
        flag for each rule; with ``by_latent`` also ``rate_by_latent``, ``(N, n)``, with
        ``by_input`` also ``distortion_map``, ``(N, *input_shape)``.
    """
    with open_scoring(model, data, reference, **settings) as scoring:
        batches = list(scoring)
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def _part_columns(found: Parts, *, by_latent: bool) -> dict[str, np.ndarray]:
    columns = {"distortion": found.distortion}
    if found.transform is not None:
        columns["transform"] = found.transform
    columns["rate"] = found.rate.sum(axis=1)
    if by_latent:
        columns["rate_by_latent"] = found.rate
    return columns


def _planned_batch(vae: VAE, objective: Objective, memory: int) -> int:
    width = max(decoder_width(vae, objective.view.decode), vae.input_size)
    number = torch.empty((), dtype=vae.dtype).element_size()
    return max(1, min(memory // (_COPIES * width * number), _MAX_BATCH))
