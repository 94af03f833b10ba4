"""Draw curves of a training: what is followed of a model, over the steps."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from isoprobe.show.plots.style import BLUE, GREY, RED, SERIES, empty, legend_above, styled, unit
from isoprobe.show.trend import span

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from isoprobe.show.trend import Trend

#: ratio of the largest to the smallest value from which an axis is logarithmic
_WIDE = 30.0
#: curves beside each other in one figure
_ACROSS = 3
#: letters of a data set's name in a legend
_LETTERS = 22
#: latents that have a colour and a name of their own
_NAMED = len(SERIES)


def used(trend: Trend, ax: Axes) -> None:
    """Draw how many latents are used.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    for line in _lines(trend):
        steps, counts = _series(line.trend, "used")
        ax.step(steps, counts, where="post", color=line.colour, marker="o", ms=3, label=line.data)
    most = max((found.latents for found in trend.points), default=0)
    ax.axhline(most, color=GREY, lw=0.8, ls="--")
    ax.set_ylim(0, most * 1.08 + 0.2)
    ax.set_ylabel("used latents")
    _finish(trend, ax)


def rate(trend: Trend, ax: Axes) -> None:
    """Draw the rate.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    _plot(trend, "rate", ax)
    ax.set_ylabel("rate [nat]")
    ax.set_ylim(bottom=0)
    _finish(trend, ax)


def distortion(trend: Trend, ax: Axes) -> None:
    """Draw the distortion.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    _plot(trend, "distortion", ax)
    if span([found.distortion for found in trend.points]) > _WIDE:
        ax.set_yscale("log")
    ax.set_ylabel("distortion" + unit("metric" if trend.metric else "1", trend.metric))
    _finish(trend, ax)


def beta(trend: Trend, ax: Axes) -> None:
    """Draw beta as it is recovered, with its 95 % interval, and as it was scheduled.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    shown: list[float | None] = []
    for line in _lines(trend):
        steps, values = _series(line.trend, "beta_recovered")
        known = values > 0  # of an untrained model it cannot be told, and means nothing
        low, high = (
            np.maximum(_series(line.trend, f"beta_{end}")[1], 0) for end in ("low", "high")
        )
        ax.fill_between(steps, low, high, where=known, color=line.colour, alpha=0.2, lw=0)
        label = line.data or "recovered"
        values = np.where(known, values, np.nan)
        ax.plot(steps, values, color=line.colour, marker="o", ms=3, label=label)
        shown += values[known].tolist()
    for line in _lines(trend):
        betas = [found.beta for found in line.trend.points]
        if any(known is not None for known in betas):
            colour = GREY if line.data else RED
            ax.plot(*_series(line.trend, "beta"), color=colour, ls="--", label="scheduled")
            shown += betas
            break  # data sets have one schedule
    if span(shown) > _WIDE:
        ax.set_yscale("log")
    ax.set_ylabel("beta" + unit("metric" if trend.metric else "1", trend.metric))
    _finish(trend, ax)


def residual(trend: Trend, ax: Axes) -> None:
    """Draw the worst residual of the used latents.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    _condition(trend, "residual", ax)


def gain(trend: Trend, ax: Axes) -> None:
    """Draw the worst gain error of the used latents.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    _condition(trend, "gain", ax)


def conditions(trend: Trend, ax: Axes) -> None:
    """Draw the worst residual and the worst gain error of the used latents.

    Args:
        trend: of a training on one data set.
        ax: to draw on.
    """
    for place, name in enumerate(("residual", "gain")):
        _band(trend, name, ax, SERIES[place], "os"[place], f"{name} (+- 2 s.e.)")
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_ylabel("of the worst used latent")
    _finish(trend, ax)


def _condition(trend: Trend, name: str, ax: Axes) -> None:
    """Draw one of the conditions, a band of two standard errors for each data set."""
    for line in _lines(trend):
        _band(line.trend, name, ax, line.colour, "o", line.data)
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_ylabel(f"{name} of the worst used latent")
    _finish(trend, ax)


def _band(trend: Trend, name: str, ax: Axes, colour: str, marker: str, label: str | None) -> None:
    steps, values = _series(trend, name)
    errors = 2 * _series(trend, f"{name}_se")[1]
    ax.fill_between(steps, values - errors, values + errors, color=colour, alpha=0.2, lw=0)
    ax.plot(steps, values, color=colour, marker=marker, ms=3, label=label)


def eigenvalue(trend: Trend, ax: Axes) -> None:
    """Draw the largest mean eigenvalue of the scaled pullback.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    _plot(trend, "eigenvalue", ax)
    ax.axhline(1, color=GREY, lw=0.8, ls="--")
    ax.set_ylabel("largest eigenvalue")
    _finish(trend, ax)


def latents(trend: Trend, ax: Axes) -> None:
    """Draw the rate of each used latent through time; the largest have names.

    Args:
        trend: of a training on one data set.
        ax: to draw on.
    """
    if not trend.tracks:
        empty(ax, "no latent is used")
        return
    steps = np.array([found.step for found in trend.points])
    for place, track in enumerate(trend.tracks):
        named = place < _NAMED
        ax.plot(
            steps[list(track.places)],
            track.kl,
            color=SERIES[place] if named else GREY,
            lw=1.4 if named else 0.7,
            marker="." if len(track.places) == 1 else None,
            label=f"latent {track.name}" if named else None,
        )
    ax.set_ylabel("KL [nat]")
    ax.set_ylim(bottom=0)
    _finish(trend, ax)


class _Line(NamedTuple):
    """A data set in a figure.

    Attributes:
        trend: on it.
        colour: of its line.
        data: its name, cut where it is long; None where there is one alone, or it has no colour.
    """

    trend: Trend
    colour: str
    data: str | None


def _lines(trend: Trend) -> list[_Line]:
    """The training on each data set; the first few have colours, and the others are grey."""
    parts = trend.on_each()
    if len(parts) < 2:
        return [_Line(trend, BLUE, None)]
    looks = [(colour, None) for colour in SERIES] + [(GREY, "others")] + [(GREY, None)] * len(parts)
    return [
        _Line(part, colour, label if colour is GREY else _cut(part.points[0].data))
        for part, (colour, label) in zip(parts, looks, strict=False)
    ]


def _cut(name: str) -> str:
    """A name as a legend has room for it."""
    return name if len(name) <= _LETTERS else f"{name[: _LETTERS // 2]}...{name[-_LETTERS // 2 :]}"


def _plot(trend: Trend, name: str, ax: Axes) -> None:
    """Draw a figure's line for each data set."""
    for line in _lines(trend):
        ax.plot(*_series(line.trend, name), color=line.colour, marker="o", ms=3, label=line.data)


def _series(trend: Trend, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, NaN where there is none."""
    values = [getattr(found, name) for found in trend.points]
    steps = np.array([found.step for found in trend.points], dtype=float)
    return steps, np.array([np.nan if v is None else v for v in values], dtype=float)


def _finish(trend: Trend, ax: Axes) -> None:
    legend_above(ax)
    ax.set_xlabel(trend.axis.replace("_", " "))
    ax.grid(visible=True)


class Curve(NamedTuple):
    """A figure of a training.

    Attributes:
        name: of the figure.
        title: over it.
        caption: under it.
        draw: draws a training on axes.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Trend, Axes], None]


_ALL = (
    Curve("used", "Used latents", "How many latents are used; dashed: how many there are.", used),
    Curve("rate", "Rate", "KL summed over latents.", rate),
    Curve(
        "distortion",
        "Distortion",
        "D(x, x_hat), the mean over rows and posterior draws, in units of the metric.",
        distortion,
    ),
    Curve(
        "beta",
        "Beta",
        "Recovered by stationarity with its 95 % interval, where it is positive; dashed: as "
        "scheduled or declared. The two meet once sigma has settled.",
        beta,
    ),
)
_LATENTS = Curve(
    "latents",
    "Rates of latents",
    "KL of each used latent, matched from checkpoint to checkpoint by what it does.",
    latents,
)
_CONDITIONS = Curve(
    "conditions",
    "Residual and gain error",
    "Of the used latent farthest from zero. The residual norm + sigma^2 - 1 falls within a few "
    "hundred steps; the gain error tells whether the decoder has settled too.",
    conditions,
)
_RESIDUAL = Curve(
    "residual",
    "Residual",
    "norm + sigma^2 - 1 of the used latent farthest from zero (+- 2 s.e.); it falls within a few "
    "hundred steps.",
    residual,
)
_GAIN = Curve(
    "gain",
    "Gain error",
    "Of the used latent farthest from zero (+- 2 s.e.); it tells whether the decoder has settled "
    "too.",
    gain,
)
_EIGENVALUE = Curve(
    "eigenvalue",
    "Largest eigenvalue",
    "Of (2/beta) S^(1/2) J'GJ S^(1/2), mean over rows; above 1 the latents are mixed.",
    eigenvalue,
)


def curves(trend: Trend) -> list[Curve]:
    """Return the figures of a training: data sets share all but those of latents.

    Args:
        trend: of a training.
    """
    parts = trend.on_each()
    if len(parts) < 2:
        return [*_ALL, _LATENTS, _CONDITIONS, _EIGENVALUE]
    of_latents = [
        Curve(
            f"latents-{place}",
            f"{_LATENTS.title} on {part.points[0].data}",
            _LATENTS.caption,
            partial(_on_part, part),
        )
        for place, part in enumerate(parts, start=1)
    ]
    return [*_ALL, _RESIDUAL, _GAIN, _EIGENVALUE, *of_latents]


def _on_part(part: Trend, trend: Trend, ax: Axes) -> None:
    """Draw the latents on one of several data sets."""
    del trend
    latents(part, ax)


def overview(trend: Trend) -> Figure:
    """Draw all curves in one figure, in the house style.

    Args:
        trend: of a training.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    drawn = curves(trend)
    rows = -(-len(drawn) // _ACROSS)
    with styled():
        figure = Figure(figsize=(3.0 * _ACROSS, 2.4 * rows))
        for place, curve in enumerate(drawn, start=1):
            curve.draw(trend, figure.add_subplot(rows, _ACROSS, place))
    return figure
