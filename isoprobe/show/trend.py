"""Follow a model through its training: the same figures of every checkpoint, latents matched.

A point is what a result says in a few numbers. A monitor in a training takes its points from
memory, a sweep over checkpoints from result files, and both are shown from here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from isoprobe.data.files import short_names
from isoprobe.errors import FileError, ResultError
from isoprobe.files.documents import parse_json
from isoprobe.results.reader import Result
from isoprobe.results.sweep import Outcome, axis, read_table, stem, steps_in_name
from isoprobe.show import terminal
from isoprobe.show.matching import match
from isoprobe.show.shown import column, number, plain, said
from isoprobe.show.voice import known_beta, voice

if TYPE_CHECKING:
    from isoprobe.show.shown import Readable

#: longest log that is read, in bytes
LOG_LIMIT = 256 << 20


@dataclass(frozen=True, kw_only=True)
class Point:
    """What is followed of a model, at one step of its training; None where it is not known.

    Attributes:
        step: of the training.
        name: of the checkpoint.
        data: name of the data set, where there are several.
        level: of the verdict.
        used: number of used latents.
        latents: number of latents.
        rate: KL summed over latents, nats.
        distortion: E_z D(x, x_hat), units of the metric.
        beta: that is in force by schedule or declaration, units of the metric.
        beta_recovered: by stationarity.
        beta_low: lower end of its 95 % interval.
        beta_high: upper end.
        residual: of the used latent farthest from norm + sigma^2 = 1, at the recovered beta.
        residual_se: its standard error.
        gain: gain error of the used latent that has the largest.
        gain_se: its standard error.
        eigenvalue: largest mean eigenvalue of the scaled pullback; below 1 where isometric.
        eigenvalue_se: its standard error.
        kl: mean KL of each latent, nats.
        active: numbers of the used latents.
    """

    step: float
    name: str = ""
    data: str = ""
    level: str | None = None
    used: int = 0
    latents: int = 0
    rate: float | None = None
    distortion: float | None = None
    beta: float | None = None
    beta_recovered: float | None = None
    beta_low: float | None = None
    beta_high: float | None = None
    residual: float | None = None
    residual_se: float | None = None
    gain: float | None = None
    gain_se: float | None = None
    eigenvalue: float | None = None
    eigenvalue_se: float | None = None
    kl: tuple[float | None, ...] = ()
    active: tuple[int, ...] = ()


def point(result: Readable, step: float, name: str = "", beta: float | None = None) -> Point:
    """Read what is followed of a result.

    Args:
        result: complete, in a file or in memory.
        step: of the training.
        name: of the checkpoint.
        beta: that was in force; None takes the one that the result says was given or declared.

    Returns:
        The point.
    """
    used = np.array([bool(flag) for flag in column(result, "overview/active")])
    known = known_beta(result.attrs)
    if beta is None and known["source"] in {"user", "declared"}:
        beta = known["value"]
    low, high = known["ci95"] or (None, None)
    residual, residual_se = _worst(result, "conditions/residual", used)
    gain, gain_se = _worst(result, "conditions/gain", used)
    eigenvalue = _first(result, "conditions/eigenvalue")
    judged = "diagnosis" in result.groups()
    return Point(
        step=step,
        name=name,
        level=voice(result).level if judged else None,
        used=int(used.sum()),
        latents=len(used),
        rate=number(result, "overview/rate_mean"),
        distortion=number(result, "overview/distortion_mean"),
        beta=beta,
        beta_recovered=known["recovered"],
        beta_low=low,
        beta_high=high,
        residual=residual,
        residual_se=residual_se,
        gain=gain,
        gain_se=gain_se,
        eigenvalue=eigenvalue,
        eigenvalue_se=_first(result, "conditions/eigenvalue_se"),
        kl=tuple(column(result, "overview/kl_mean")),
        active=tuple(np.flatnonzero(used).tolist()),
    )


def _worst(result: Readable, place: str, used: np.ndarray) -> tuple[float | None, float | None]:
    """The value of the used latent farthest from zero beyond its noise, and its error."""
    values, errors = column(result, place), column(result, f"{place}_se")
    known = [j for j in np.flatnonzero(used).tolist() if values[j] is not None]
    if not known:
        return None, None
    # twice its error is taken off: what a hardly used latent is measured at is mostly noise
    worst = max(known, key=lambda j: (abs(values[j]) - 2 * (errors[j] or 0.0), abs(values[j])))
    return values[worst], errors[worst]


def _first(result: Readable, place: str) -> float | None:
    group, _, name = place.partition("/")
    if group not in result.groups() or name not in result[group]:
        return None
    values = np.atleast_1d(result[group][name].values)
    value: float | None = plain(values[0]) if len(values) else None
    return value


# --------------------------------------------------------------------------- through time


@dataclass(frozen=True)
class Track:
    """One latent through a training.

    Attributes:
        name: its number in the last checkpoint in which it is used.
        places: of the points in which it is used.
        latents: its number in each of them.
        kl: its mean KL in each of them, nats.
    """

    name: int
    places: tuple[int, ...]
    latents: tuple[int, ...]
    kl: tuple[float, ...]


@dataclass(frozen=True)
class Failure:
    """A checkpoint without a result, on one data set where there are several."""

    model: str
    error: str
    data: str = ""

    @property
    def what(self) -> str:
        """What has failed."""
        return f"{self.model} on {self.data}" if self.data else self.model


@dataclass(frozen=True)
class Trend:
    """A training seen through its checkpoints, on one data set or on each of several.

    Attributes:
        axis: what steps count: ``step``, ``epoch`` ..., or ``order`` for the order given.
        points: by step, those of one data set after those of another.
        tracks: used latents through time, the one with the largest rate at its end first.
        failures: checkpoints that could not be analysed.
        notes: what a reader should know, a sentence each.
        metric: spec of the metric; empty where points differ in it.
    """

    axis: str
    points: tuple[Point, ...]
    tracks: tuple[Track, ...] = ()
    failures: tuple[Failure, ...] = ()
    notes: tuple[str, ...] = ()
    metric: str = ""

    def on_each(self) -> list[Trend]:
        """Return the training on each data set alone, without failures and notes."""
        parts = []
        for data in dict.fromkeys(found.data for found in self.points):
            places = [k for k, found in enumerate(self.points) if found.data == data]
            first, points = places[0], tuple(self.points[k] for k in places)
            tracks = [
                replace(track, places=tuple(place - first for place in track.places))
                for track in self.tracks
                if track.places[0] in places
            ]
            parts.append(Trend(self.axis, points, tuple(tracks), metric=self.metric))
        return parts

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)

    def to_text(self, width: int = 80) -> str:
        """Return tables for a terminal, of as many columns."""
        return "\n".join(_text(self, width))


def trend_of(folder: Path) -> Trend:
    """Read the results in a folder, or the log of a monitor, as one training.

    Latents are matched from checkpoint to checkpoint on one data set, and not from one to another.

    Args:
        folder: of results, with the table of a sweep or without; or a log.

    Returns:
        The training, on each data set of the table; a result that cannot be read is a failure.

    Raises:
        ResultError: where the folder holds no results, or the file is no log.
    """
    if not folder.is_dir():
        return _of_log(folder)
    outcomes = read_table(folder) or [
        Outcome(str(path), steps_in_name(stem(path)), path.name)
        for path in sorted(folder.glob("*.h5"))
    ]
    if not outcomes:
        raise ResultError(f"{folder} holds no results; isoprobe analyze RUN/*.pt --out {folder}")
    specs = list(dict.fromkeys(outcome.data for outcome in outcomes))
    short = (
        dict.fromkeys(specs, "")
        if len(specs) == 1
        else dict(zip(specs, short_names(specs), strict=True))
    )
    whole = [outcome for outcome in outcomes if outcome.result is not None]
    failures = [
        Failure(o.model, o.error or "no result", short[o.data]) for o in outcomes if not o.result
    ]
    models = {outcome.model: outcome.steps for outcome in whole}
    kind, numbers = axis(list(models.values()))
    steps = dict(zip(models, numbers, strict=True))
    parts = []
    for spec in specs:
        follow = _Follow(short[spec])
        own = [outcome for outcome in whole if outcome.data == spec]
        for outcome in sorted(own, key=lambda outcome: steps[outcome.model]):
            path, name = folder / str(outcome.result), stem(Path(outcome.model))
            try:
                follow.take(Result.open(path), steps[outcome.model], name)
            except ResultError as error:
                failures.append(Failure(outcome.model, str(error), short[spec]))
        parts.append(follow.trend(kind))
    return _together(kind, parts, failures)


def _together(kind: str, parts: Sequence[Trend], failures: Sequence[Failure]) -> Trend:
    """A training on several data sets as one."""
    points: list[Point] = []
    tracks: list[Track] = []
    for part in parts:
        first = len(points)
        tracks += [
            replace(track, places=tuple(first + place for place in track.places))
            for track in part.tracks
        ]
        points += part.points
    metrics = {part.metric for part in parts if part.points}
    notes = tuple(note for part in parts for note in part.notes)
    metric = metrics.pop() if len(metrics) == 1 else ""
    return Trend(kind, tuple(points), tuple(tracks), tuple(failures), notes, metric)


@dataclass
class _Follow:
    """Points and latents of successive results, two of them open at a time.

    Attributes:
        data: name of the data set, where there are several.
        points: so far.
        tracks: of latents, each a list of place, number and KL.
        current: track of each used latent of the last result.
        last: the last result, open.
        steady: no latent has changed its number so far, so that one that comes back is the same.
        notes: what a reader should know.
        metrics: met so far.
    """

    data: str = ""
    points: list[Point] = field(default_factory=list)
    tracks: list[list[tuple[int, int, float]]] = field(default_factory=list)
    current: dict[int, int] = field(default_factory=dict)
    last: Result | None = None
    steady: bool = True
    notes: list[str] = field(default_factory=list)
    metrics: set[str] = field(default_factory=set)

    def take(self, result: Result, step: float, name: str) -> None:
        """Take in the next result, which is closed with the one after it."""
        with ExitStack() as stack:
            stack.callback(result.close)
            found = replace(point(result, step, name), data=self.data)
            same = {} if self.last is None else self._matched(self.last, result)
            stack.pop_all()
        if self.last is not None:
            self.last.close()
        self.last = result
        self.metrics.add(str(result.attrs.get("metric")))
        self.steady = self.steady and all(here == there for here, there in same.items())
        before = {track[-1][1]: place for place, track in enumerate(self.tracks)}
        tracks = {}
        for latent in found.active:
            track = self.current.get(same.get(latent, -1))
            if track is None and self.steady and before.get(latent) not in self.current.values():
                track = before.get(latent)
            if track is None:
                track = len(self.tracks)
                self.tracks.append([])
            self.tracks[track].append((len(self.points), latent, found.kl[latent] or 0.0))
            tracks[latent] = track
        self.points.append(found)
        self.current = tracks

    def _matched(self, before: Result, after: Result) -> dict[int, int]:
        """Number before of each used latent that has a counterpart there."""
        try:
            matching = match(before, after)
        except ResultError as error:
            self.steady = False
            where = f" of {self.data}" if self.data else ""
            said_ = f"latents{where} are not matched from {self.points[-1].name} on: {error}"
            self.notes += [] if said_ in self.notes else [said_]
            return {}
        return {
            int(matching.other[there]): int(matching.reference[here])
            for here, there in matching.pairs
        }

    def trend(self, kind: str) -> Trend:
        """Close what is open, and return all of it."""
        if self.last is not None:
            self.last.close()
        tracks = [
            Track(track[-1][1], *(tuple(part) for part in zip(*track, strict=True)))
            for track in self.tracks
        ]
        metric = self.metrics.pop() if len(self.metrics) == 1 else ""
        return Trend(
            kind, tuple(self.points), _ranked(tracks), notes=tuple(self.notes), metric=metric
        )


def _ranked(tracks: Sequence[Track]) -> tuple[Track, ...]:
    """Latents that are used to the end first, by their rate there."""
    return tuple(sorted(tracks, key=lambda track: (-track.places[-1], -track.kl[-1])))


def trend_of_points(points: Sequence[Point], metric: str = "") -> Trend:
    """Put points of one model in training together; a latent is the one of the same number.

    Args:
        points: by step.
        metric: its spec.

    Returns:
        The training.
    """
    seen: dict[int, list[tuple[int, float]]] = {}
    for place, found in enumerate(points):
        for latent in found.active:
            seen.setdefault(latent, []).append((place, found.kl[latent] or 0.0))
    tracks = [
        Track(
            latent,
            tuple(place for place, _ in met),
            (latent,) * len(met),
            tuple(kl for _, kl in met),
        )
        for latent, met in seen.items()
    ]
    return Trend("step", tuple(points), _ranked(tracks), metric=metric)


def _of_log(path: Path) -> Trend:
    """Read the log of a monitor; where a training went back to a step, its later account holds.

    Returns:
        The training.

    Raises:
        ResultError: for a file that is none.
    """
    try:
        if path.stat().st_size > LOG_LIMIT:
            raise ResultError(f"{path} is longer than the {LOG_LIMIT} bytes a log may have")
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ResultError(f"cannot read {path}: {error.strerror or error}") from error
    points: list[Point] = []
    metric = ""
    for place, line in enumerate(lines, start=1):
        try:
            told = parse_json(line, f"line {place} of {path}")
            if isinstance(told, dict) and "used" in told:
                found = msgspec.convert(told, Point)
                if any(not 0 <= latent < len(found.kl) for latent in found.active):
                    raise ResultError(f"{path} names a latent that is not there")
                numbers = [v for v in (*asdict(found).values(), *found.kl) if isinstance(v, float)]
                if not all(map(math.isfinite, numbers)):
                    raise ResultError(f"{path} holds a number that is not finite")
                points = [earlier for earlier in points if earlier.step < found.step]
                points.append(found)
            elif isinstance(told, dict):
                metric = str(told.get("metric", metric))
        except (FileError, msgspec.ValidationError) as error:
            if place == len(lines) > 1:  # a killed process leaves half a line
                break
            raise ResultError(f"{path} is no log of a monitor: line {place}: {error}") from error
    if not points:
        raise ResultError(f"{path} holds no point of a training")
    return trend_of_points(points, metric)


# --------------------------------------------------------------------------- text

#: of the table: attribute, title, form
COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("used", "used", "d"),
    ("rate", "rate [nat]", ".3g"),
    ("distortion", "distortion", ".4g"),
    ("beta", "beta", ".3g"),
    ("beta_recovered", "recovered", ".3g"),
    ("residual", "residual", "+.3f"),
    ("gain", "gain", "+.3f"),
    ("eigenvalue", "eigenvalue", ".3f"),
)


#: titles of columns that hold words
_WORDS = ("data", "verdict", "checkpoint")


def cells(found: Point) -> list[str]:
    """Return a point as words, a cell for each of :data:`COLUMNS`."""
    return [said(getattr(found, name), form) for name, _, form in COLUMNS]


def table(trend: Trend) -> list[list[str]]:
    """Return points as a table of words, its heading first.

    Args:
        trend: of a training.

    Returns:
        Data where these are several, step, columns, verdict where there is one, and the checkpoint
        where it has a name.
    """
    several = any(found.data for found in trend.points)
    judged = any(found.level for found in trend.points)
    named = any(found.name for found in trend.points)
    heading = ["data"] * several + [trend.axis, *(title for _, title, _ in COLUMNS)]
    heading += ["verdict"] * judged + ["checkpoint"] * named
    rows = [
        [
            *[found.data] * several,
            f"{found.step:g}",
            *cells(found),
            *[found.level or "-"] * judged,
            *[found.name] * named,
        ]
        for found in trend.points
    ]
    return [heading, *rows]


def _text(trend: Trend, width: int) -> Iterator[str]:
    if trend.points:
        rows = table(trend)
        named = [place for place, title in enumerate(rows[0]) if title in _WORDS]
        yield from terminal.table(rows, width, left=named, again=2 if rows[0][0] == "data" else 1)
    if trend.failures:
        yield ""
        yield f"{len(trend.failures)} failed"
        for failure in trend.failures:
            yield terminal.paragraph(f"{failure.what}: {failure.error}", width, "  ", "    ")
    for note in trend.notes:
        yield terminal.paragraph(f"note: {note}", width, "", "  ")


def span(values: Sequence[float | None]) -> float:
    """Return how many times the largest of some positive numbers is the smallest; 1 for none."""
    known = [value for value in values if value is not None and value > 0]
    return max(known) / min(known) if known and math.isfinite(max(known)) else 1.0
