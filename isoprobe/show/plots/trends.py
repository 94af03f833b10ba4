"""Draw curves of a training: what is followed of a model, over the steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
#: latents that have a colour and a name of their own
_NAMED = len(SERIES)


def used(trend: Trend, ax: Axes) -> None:
    """Draw how many latents are used.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    steps, counts = _series(trend, "used")
    ax.step(steps, counts, where="post", color=BLUE, marker="o", ms=3)
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
    ax.plot(*_series(trend, "rate"), color=BLUE, marker="o", ms=3)
    ax.set_ylabel("rate [nat]")
    ax.set_ylim(bottom=0)
    _finish(trend, ax)


def distortion(trend: Trend, ax: Axes) -> None:
    """Draw the distortion.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    steps, values = _series(trend, "distortion")
    ax.plot(steps, values, color=BLUE, marker="o", ms=3)
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
    steps, values = _series(trend, "beta_recovered")
    known = values > 0  # of an untrained model it cannot be told, and means nothing
    low, high = (np.maximum(_series(trend, f"beta_{end}")[1], 0) for end in ("low", "high"))
    ax.fill_between(steps, low, high, where=known, color=BLUE, alpha=0.2, lw=0)
    ax.plot(steps, np.where(known, values, np.nan), color=BLUE, marker="o", ms=3, label="recovered")
    shown = values[known].tolist()
    if any(found.beta is not None for found in trend.points):
        ax.plot(*_series(trend, "beta"), color=RED, ls="--", label="scheduled")
        shown += [found.beta for found in trend.points]
    if span(shown) > _WIDE:
        ax.set_yscale("log")
    ax.set_ylabel("beta" + unit("metric" if trend.metric else "1", trend.metric))
    legend_above(ax, 2)
    _finish(trend, ax)


def conditions(trend: Trend, ax: Axes) -> None:
    """Draw the worst residual and the worst gain error of the used latents.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    for place, name in enumerate(("residual", "gain")):
        steps, values = _series(trend, name)
        errors = 2 * _series(trend, f"{name}_se")[1]
        colour = SERIES[place]
        ax.fill_between(steps, values - errors, values + errors, color=colour, alpha=0.2, lw=0)
        ax.plot(steps, values, color=colour, marker="os"[place], ms=3, label=f"{name} (+- 2 s.e.)")
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_ylabel("of the worst used latent")
    legend_above(ax, 2)
    _finish(trend, ax)


def eigenvalue(trend: Trend, ax: Axes) -> None:
    """Draw the largest mean eigenvalue of the scaled pullback.

    Args:
        trend: of a training.
        ax: to draw on.
    """
    ax.plot(*_series(trend, "eigenvalue"), color=BLUE, marker="o", ms=3)
    ax.axhline(1, color=GREY, lw=0.8, ls="--")
    ax.set_ylabel("largest eigenvalue")
    _finish(trend, ax)


def latents(trend: Trend, ax: Axes) -> None:
    """Draw the rate of each used latent through time; the largest have names.

    Args:
        trend: of a training.
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
    legend_above(ax, 3)
    _finish(trend, ax)


def _series(trend: Trend, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps and values, NaN where there is none."""
    values = [getattr(found, name) for found in trend.points]
    steps = np.array([found.step for found in trend.points], dtype=float)
    return steps, np.array([np.nan if v is None else v for v in values], dtype=float)


def _finish(trend: Trend, ax: Axes) -> None:
    ax.set_xlabel(trend.axis.replace("_", " "))
    ax.grid(visible=True)


#: name, title, caption, and what draws it
CURVES: tuple[tuple[str, str, str, Callable[[Trend, Axes], None]], ...] = (
    ("used", "Used latents", "How many latents are used; dashed: how many there are.", used),
    ("rate", "Rate", "KL summed over latents.", rate),
    (
        "distortion",
        "Distortion",
        "D(x, x_hat), the mean over rows and posterior draws, in units of the metric.",
        distortion,
    ),
    (
        "beta",
        "Beta",
        "Recovered by stationarity with its 95 % interval, where it is positive; dashed: as "
        "scheduled or declared. The two meet once sigma has settled.",
        beta,
    ),
    (
        "latents",
        "Rates of latents",
        "KL of each used latent, matched from checkpoint to checkpoint by what it does.",
        latents,
    ),
    (
        "conditions",
        "Residual and gain error",
        "Of the used latent farthest from zero. The residual norm + sigma^2 - 1 falls within a few "
        "hundred steps; the gain error tells whether the decoder has settled too.",
        conditions,
    ),
    (
        "eigenvalue",
        "Largest eigenvalue",
        "Of (2/beta) S^(1/2) J'GJ S^(1/2), mean over rows; above 1 the latents are mixed.",
        eigenvalue,
    ),
)


def overview(trend: Trend) -> Figure:
    """Draw all curves in one figure, in the house style.

    Args:
        trend: of a training.

    Returns:
        The figure.
    """
    from matplotlib.figure import Figure

    rows = -(-len(CURVES) // _ACROSS)
    with styled():
        figure = Figure(figsize=(3.0 * _ACROSS, 2.4 * rows))
        for place, (_, _, _, draw) in enumerate(CURVES, start=1):
            draw(trend, figure.add_subplot(rows, _ACROSS, place))
    return figure
