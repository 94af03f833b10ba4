"""Put several results side by side: spectra, counts, norms, rates, verdicts, matched latents."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.contracts import DEFAULT_ANALYSES
from isoprobe.errors import ResultError
from isoprobe.show.differences import Difference, differences
from isoprobe.show.far import KINDS, Distances, compare_distances, distance_rows
from isoprobe.show.matching import Matching, match
from isoprobe.show.shown import columns, number, said, tiles
from isoprobe.show.summary import to_json
from isoprobe.show.terminal import drawn, paragraph, table
from isoprobe.show.voice import voice
from isoprobe.theory.formulas import bits, excess, water_level
from isoprobe.theory.tolerances import TOLERANCES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from isoprobe.results.reader import Result

#: analyses whose columns have rows of their own, see :data:`ROWS`
_TABLED = {"overview", *DEFAULT_ANALYSES}
#: mean absolute correlation of matched latents from which two models count as the same
ALIKE = 0.9


@dataclass(frozen=True)
class Model:
    """One model in the comparison; numbers that were not computed are None.

    Attributes:
        name: of its file.
        model: name of the model.
        metric: spec of the metric.
        beta: in force.
        active: number of active latents.
        latents: number of latents.
        rate_bits: total rate.
        distortion: mean D(x, x_hat).
        coding_loss: E D(x_check, x_hat).
        transform_loss: E D(x, x_check).
        norm: mean norm of active latents.
        residual: mean absolute norm + sigma^2 - 1 of active latents.
        cosine: mean absolute cosine between decoder columns.
        importances: of the active latents, descending.
        shown: what the analyses show beyond these, by label: tiles, and means of columns over
            active latents.
        headline: the verdict in a few words.
        verdict: what is wrong, and what it means.
    """

    name: str
    model: str
    metric: str
    beta: float | None
    active: int
    latents: int
    rate_bits: float | None
    distortion: float | None
    coding_loss: float | None
    transform_loss: float | None
    norm: float | None
    residual: float | None
    cosine: float | None
    importances: tuple[float, ...]
    shown: dict[str, Any]
    headline: str
    verdict: str


@dataclass(frozen=True)
class Pair:
    """A latent of the reference and its counterpart.

    Attributes:
        reference: number of the latent in the reference.
        other: number of its counterpart, None without one.
        correlation: of the two; None without a counterpart.
        explained: share of it that all latents of the other together give linearly.
        importance: in the reference, None where not computed.
        other_importance: in the other.
        stays: whether water-filling of the reference predicts that it survives the other's beta;
            None where the two betas cannot be compared.
    """

    reference: int
    other: int | None
    correlation: float | None
    explained: float
    importance: float | None
    other_importance: float | None
    stays: bool | None


@dataclass(frozen=True)
class Against:
    """One model against the reference.

    Attributes:
        name: of its file.
        pairs: the reference's active latents with their counterparts.
        extra: the other's active latents without one.
        says: what it means, a sentence each.
        differences: in rate, distortion and ELBO, with their errors.
    """

    name: str
    pairs: tuple[Pair, ...]
    extra: tuple[int, ...]
    says: tuple[str, ...]
    differences: tuple[Difference, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Models side by side, each matched with the first, and their distances."""

    models: tuple[Model, ...]
    matchings: tuple[Against, ...]
    distances: Distances | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def to_text(self, width: int = 80) -> str:
        """Return tables for a terminal, of as many columns."""
        return "\n".join(_text(self, width))


def compare(results: Sequence[Result], names: Sequence[str] | None = None) -> Comparison:
    """Compare results with the first of them.

    Args:
        results: at least one.
        names: of each; those of their files when None.

    Returns:
        The comparison. Models that have not seen the same samples are not matched.
    """
    names = _names(results) if names is None else names
    models = tuple(_model(r, name) for r, name in zip(results, names, strict=True))
    matchings = tuple(
        _against(results[0], other, models[0], model)
        for other, model in zip(results[1:], models[1:], strict=True)
    )
    return Comparison(models, matchings, compare_distances(results, names))


def _names(results: Sequence[Result]) -> list[str]:
    """Return the stems of the files, with their folders where the stems are the same."""
    stems = [result.path.stem for result in results]
    return [
        stem if stems.count(stem) == 1 else f"{result.path.parent.name}/{stem}"
        for stem, result in zip(stems, results, strict=True)
    ]


def _model(result: Result, name: str) -> Model:
    document, judged = to_json(result), voice(result)
    flags = result["overview"]["active"].values
    active = [latent for latent in document["latents"] if flags[latent["index"]]]
    nats = document["summary"]["kl_total"]
    importances = sorted(filter(None, (a["importance_exact"] for a in active)), reverse=True)
    return Model(
        name=name,
        model=str(document["model"]),
        metric=str(document["metric"]),
        beta=document["beta"]["value"],
        active=document["summary"]["active"],
        latents=document["summary"]["latents"],
        rate_bits=None if nats is None else bits(nats),
        distortion=document["summary"]["distortion_mean"],
        coding_loss=number(result, "overview/distortion_coding_mean"),
        transform_loss=_transform_loss(result),
        norm=_mean(a["norm_mean"] for a in active),
        residual=_mean(map(_size, (a["residual_mean"] for a in active))),
        cosine=document["summary"]["cosine_mean_abs"],
        importances=tuple(importances),
        shown=_shown(result, flags),
        headline=judged.headline,
        verdict=" ".join([*(f"{found.evidence}." for found in judged.findings), judged.meaning]),
    )


def _shown(result: Result, active: np.ndarray) -> dict[str, Any]:
    """Tiles and mean columns that have no row of their own, by label."""
    own = {title for _, title, _ in ROWS}
    found = {tile.title: tile.words[0] for tile in tiles(result) if tile.title not in own}
    for column in columns(result):
        if column.group not in _TABLED and column.numeric:
            used = [value for value, flag in zip(column.values, active, strict=True) if flag]
            found[f"mean {column.title}"] = _mean(used)
    return found


def _transform_loss(result: Result) -> float | None:
    """Return E D(x, x_check) - D(x, x), which is zero for a perfect reconstruction."""
    whole = number(result, "overview/distortion_transform_mean")
    own = number(result, "overview/distortion_self_mean")
    return None if whole is None or own is None else excess(whole, own)


def _against(reference: Result, other: Result, first: Model, second: Model) -> Against:
    apart = differences(reference, other)
    try:
        matching = match(reference, other)
    except ResultError as error:
        return Against(second.name, (), (), (f"Not matched: {error}.",), apart)
    pairs = tuple(_pairs(reference, other, first, second, matching))
    extra = tuple(int(j) for j in matching.unmatched_other())
    return Against(second.name, pairs, extra, tuple(_says(first, second, pairs, extra)), apart)


def _pairs(
    reference: Result, other: Result, first: Model, second: Model, matching: Matching
) -> Iterator[Pair]:
    ours, theirs = _importances(reference), _importances(other)
    counterpart = dict(matching.pairs)
    comparable = first.metric == second.metric and second.beta is not None
    for place, latent in enumerate(matching.reference.tolist()):
        column = counterpart.get(place)
        number = None if column is None else int(matching.other[column])
        importance = ours.get(latent)
        stays = None
        if comparable and importance is not None and second.beta is not None:
            stays = importance > water_level(second.beta)
        yield Pair(
            reference=latent,
            other=number,
            correlation=None if column is None else float(matching.correlations[place, column]),
            explained=float(matching.explained[place]),
            importance=importance,
            other_importance=None if number is None else theirs.get(number),
            stays=stays,
        )


def _says(
    first: Model, second: Model, pairs: tuple[Pair, ...], extra: tuple[int, ...]
) -> Iterator[str]:
    matched = [pair for pair in pairs if pair.other is not None]
    lost = [pair for pair in pairs if pair.other is None]
    strength = _mean(abs(pair.correlation) for pair in matched if pair.correlation is not None)
    yield (
        f"{len(matched)} of {len(pairs)} active latents of {first.name} have a counterpart"
        + ("" if strength is None else f" (mean |correlation| {strength:.2f})")
        + (f"; {len(extra)} of {second.name} have none" if extra else "")
        + "."
    )
    if matched and not lost and not extra and strength is not None and strength >= ALIKE:
        yield "The two models agree: they found the same dimensions" + _same_spectrum(matched) + "."
    rotated = [pair.reference for pair in lost if pair.explained >= ALIKE]
    if rotated:
        yield (
            f"Latents {_list(rotated)} are not lost but rotated: the other's latents together give"
            f" at least {ALIKE:.0%} of their variance."
        )
    yield from _predictions(first, second, pairs)


def _predictions(first: Model, second: Model, pairs: tuple[Pair, ...]) -> Iterator[str]:
    """Say whether the dimensions lost at another beta are those water-filling drowns (Eq. 92)."""
    mine, theirs = first.beta or 0.0, second.beta or 0.0
    if not min(mine, theirs) > 0 or any(pair.stays is None for pair in pairs):
        return
    if abs(math.log(theirs / mine)) <= TOLERANCES["beta"].value:
        return
    expected = {pair.reference for pair in pairs if not pair.stays}
    gone = {pair.reference for pair in pairs if pair.other is None}
    said = f"At beta {second.beta:.3g} instead of {first.beta:.3g} water-filling predicts "
    said += f"the loss of latents {_list(expected)}" if expected else "no loss of latents"
    if expected == gone:
        yield said + ": as found."
    else:
        yield said + f"; lost are {_list(gone) if gone else 'none'}."


def _same_spectrum(matched: list[Pair]) -> str:
    ratios = [
        pair.other_importance / pair.importance
        for pair in matched
        if pair.importance and pair.other_importance
    ]
    if not ratios:
        return ""
    off = max(max(ratio, 1 / ratio) for ratio in ratios) - 1
    return f", with importances within {off:.0%} of each other"


def _importances(result: Result) -> dict[int, float]:
    if "importance" not in result:
        return {}
    exact = result["importance"]["exact"].values
    return {j: float(value) for j, value in enumerate(exact) if np.isfinite(value)}


def _mean(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None


def _size(value: float | None) -> float | None:
    return None if value is None else abs(value)


def _list(numbers: Any) -> str:
    return ", ".join(map(str, sorted(numbers)))


# --------------------------------------------------------------------------- text

ROWS: tuple[tuple[str, str, str], ...] = (
    ("model", "model", ""),
    ("metric", "metric", ""),
    ("beta", "beta", ".4g"),
    ("active", "active latents", "d"),
    ("latents", "latents", "d"),
    ("rate_bits", "rate [bit]", ".1f"),
    ("distortion", "distortion", ".4g"),
    ("coding_loss", "coding loss", ".4g"),
    ("transform_loss", "transform loss", ".4g"),
    ("norm", "mean norm", ".3f"),
    ("residual", "mean |residual|", ".3f"),
    ("cosine", "mean |cosine|", ".3f"),
)


def rows(models: Sequence[Model]) -> list[tuple[str, list[str]]]:
    """Return the table of a comparison, in words.

    Args:
        models: compared.

    Returns:
        Title and a cell for each model, row by row.
    """
    found = [(title, [said(getattr(m, name), spec) for m in models]) for name, title, spec in ROWS]
    for title in dict.fromkeys(title for model in models for title in model.shown):
        found.append((title, [said(model.shown.get(title)) for model in models]))
    return found


def _text(comparison: Comparison, width: int) -> Iterator[str]:
    cells = [["", *(model.name for model in comparison.models)]]
    cells += [[title, *row] for title, row in rows(comparison.models)]
    longest = max(len(model.importances) for model in comparison.models)
    for rank in range(min(longest, 10)):
        row = [
            said(model.importances[rank], ".3g") if rank < len(model.importances) else ""
            for model in comparison.models
        ]
        cells.append([f"importance {rank + 1}", *row])
    yield from table(cells, width)
    for against in comparison.matchings:
        yield ""
        title = paragraph(f"{comparison.models[0].name} and {against.name}", width)
        yield from (drawn(line, "bold") for line in title.splitlines())
        if against.pairs:
            yield from table(_pair_rows(against), width, left=(), indent="  ")
        if against.differences:
            told = "; ".join(difference.text for difference in against.differences)
            less = f"{against.name} less {comparison.models[0].name}: {told}"
            yield paragraph(less, width, "  ", "    ")
        for text in against.says:
            yield paragraph(text, width, "  ", "  ")
    if comparison.distances is not None:
        yield from _far(comparison.distances, width)
    yield ""
    for model in comparison.models:
        yield paragraph(f"{model.name}: {model.headline}. {model.verdict}", width, "", "  ")


def _far(distances: Distances, width: int) -> Iterator[str]:
    yield ""
    yield drawn(f"correlation of distances over {distances.pairs} pairs of samples", "bold")
    for kind in KINDS:
        if kind in distances.correlations:
            yield from table(distance_rows(distances, kind), width, indent="  ")
    yield paragraph(distances.says, width, "  ", "  ")


def _pair_rows(against: Against) -> list[list[str]]:
    heading = ["latent", "is", "correlation", "explained", "importance", "there", "stays"]
    words = {None: "", True: "yes", False: "no"}
    return [heading] + [
        [
            str(pair.reference),
            said(pair.other, "d"),
            said(pair.correlation, "+.2f"),
            said(pair.explained, ".2f"),
            said(pair.importance, ".3g"),
            said(pair.other_importance, ".3g"),
            words[pair.stays],
        ]
        for pair in against.pairs
    ]
