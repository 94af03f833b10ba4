"""Draw figures by latent, in descending importance."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.errors import ResultError
from isoprobe.show.plots.style import (
    BLUE,
    GREEN,
    GREY,
    INK,
    ORANGE,
    RED,
    SEQUENTIAL,
    empty,
    legend_above,
    unit,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from isoprobe.results.reader import Result

#: beyond this many latents a figure shows ranks rather than numbers, and steps rather than bars
MANY = 40
#: top of the scale of cosines at least, so that noise does not look like structure
_LEAST_COSINE = 0.1


@dataclass(frozen=True)
class Ranking:
    """Latents in descending importance.

    Attributes:
        order: latent numbers, ``(n,)``.
        states: state code of each latent in that order: 0 active, 1 mixed, 2 collapsed.
    """

    order: np.ndarray
    states: np.ndarray

    @property
    def ranks(self) -> np.ndarray:
        """Places on the axis: 1, 2, 3, ..."""
        return np.arange(1, len(self.order) + 1)


def ranking(result: Result) -> Ranking:
    """Return the latents in the order of ``importance``, else of their mean sigma^-2."""
    overview = result["overview"]
    if "importance" in result:
        importance = result["importance"]
        order, states = importance["order"].values, importance["state"].values
    else:
        order = np.argsort(-overview["inverse_variance_mean"].values, kind="stable")
        states = np.where(overview["active"].values, 0, 2)
    return Ranking(order, states[order])


def inverse_variances(result: Result, ax: Axes) -> None:
    """Draw E[sigma_j^-2] by latent (upper halves of Figures 4, 5, 27 and 28; Eq. 22).

    Args:
        result: any.
        ax: to draw on.
    """
    rank = ranking(result)
    values = result["overview"]["inverse_variance_mean"].values[rank.order]
    _dots(ax, rank, values)
    ax.axhline(1, color=INK, lw=0.8, ls="--")
    ax.annotate("prior", (1, 1), (3, 0), va="center", **_AT_EDGE)
    ax.set_yscale("log")
    ax.set_ylabel(r"$\mathrm{E}[\sigma_j^{-2}]$")
    latent_axis(ax, rank)


def norms(result: Result, ax: Axes) -> None:
    """Draw the squared norms and norm + sigma^2 (lower halves of the same figures; Eq. 23).

    Bars span one standard deviation over samples to each side.

    Args:
        result: with ``isometry``.
        ax: to draw on.
    """
    rank = ranking(result)
    isometry = result["isometry"]
    ranks = rank.ranks
    size = max(2.0, 4.5 - len(ranks) / 30)
    line: dict[str, Any] = {"ls": "none", "ms": size}
    if "norm_mean" in isometry:
        norm, sd = (isometry[name].values[rank.order] for name in ("norm_mean", "norm_sd"))
        ax.errorbar(
            ranks - 0.2, norm, sd, fmt="o", ms=size, color=BLUE, elinewidth=0.9, label="norm"
        )
        total = 1 + isometry["residual_mean"].values[rank.order]
        ax.plot(ranks, total, "s", color=RED, label=r"norm + $\sigma^2$", **line)
    stationary = 1 + isometry["stationary_residual_mean"].values[rank.order]
    ax.plot(
        ranks + 0.2,
        stationary,
        "D",
        color=GREEN,
        mfc="none",
        label=r"norm + $\sigma^2$, stationarity",
        **line,
    )
    ax.axhline(1, color=INK, lw=0.8, ls="--")
    low, high = ax.get_ylim()
    ax.set_ylim(min(0, low), max(1.25, high))
    ax.set_ylabel("norm")
    latent_axis(ax, rank)
    legend_above(ax)


def scree(result: Result, ax: Axes) -> None:
    """Draw the importances with the water line beta/2 and the cumulative share (Eq. 22, 67, 92).

    Args:
        result: with ``importance``.
        ax: to draw on; a second scale is added on the right.
    """
    rank = ranking(result)
    importance = result["importance"]
    exact, rough, share = (
        importance[name].values[rank.order] for name in ("exact", "rough", "cumulative_share")
    )
    metric = str(result.attrs.get("metric", "metric"))
    _dots(ax, rank, exact)
    ax.plot(
        rank.ranks, rough, "_", color=INK, ms=9 if len(exact) <= MANY else 3, mew=1.4, label="rough"
    )
    water = float(importance["water_level"].values)
    if np.isfinite(water):
        ax.axhline(water, color=RED, lw=1.1, ls="--", label=r"water line $\beta/2$")
    ax.set_yscale("log")
    ax.set_ylabel(r"Var$(y_j)$" + unit("metric", metric))
    latent_axis(ax, rank)
    other = ax.twinx()
    other.plot(rank.ranks, 100 * share, color=ORANGE, marker=".", ms=4, label="cumulative share")
    other.set_ylim(0, 103)
    other.set_ylabel("cumulative share [%]")
    other.spines["right"].set_visible(True)
    ax.plot([], [], color=ORANGE, marker=".", label="cumulative share")
    legend_above(ax)


def orthogonality(result: Result, ax: Axes) -> None:
    """Draw the mean absolute cosine between decoder columns of active latents (Lemma 4, Eq. 14).

    Args:
        result: with ``isometry``, which has ``cosine`` under a metric with a tensor.
        ax: to draw on; a colour bar is added.

    Raises:
        ResultError: if the result has no cosines.
    """
    if "cosine" not in result["isometry"]:
        raise ResultError(f"{result.path} has no cosines; its metric has no metric tensor")
    rank = ranking(result)
    order = rank.order[rank.states < 2]
    if not len(order):
        empty(ax, "no latent is active")
        return
    cosine = result["isometry"]["cosine"].values[np.ix_(order, order)]
    off = np.where(np.eye(len(order), dtype=bool), np.nan, cosine)
    highest = max(float(np.nanmax(off, initial=0.0)), _LEAST_COSINE)
    image = ax.imshow(off, cmap=SEQUENTIAL, vmin=0, vmax=highest, interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label(r"mean $|\cos|$")
    bar.outline.set_visible(False)
    if 1 < len(order) <= 12:
        for row, column in np.argwhere(np.isfinite(off)):
            value = off[row, column]
            text = f"{value:.2f}".lstrip("0")
            colour = "white" if value < 0.55 * highest else "black"
            ax.text(column, row, text, ha="center", va="center", color=colour, fontsize=6.5)
    ticks = np.arange(len(order)) if len(order) <= MANY else np.arange(0, len(order), 20)
    ax.set_xticks(ticks, order[ticks] if len(order) <= MANY else ticks + 1)
    ax.set_yticks(ticks, order[ticks] if len(order) <= MANY else ticks + 1)
    ax.set_xlabel("latent, by importance" if len(order) <= MANY else "rank of active latent")
    ax.spines[:].set_visible(False)


_AT_EDGE: dict[str, Any] = {
    "xycoords": ("axes fraction", "data"),
    "textcoords": "offset points",
    "fontsize": 7.5,
}


def _dots(ax: Axes, rank: Ranking, values: np.ndarray) -> None:
    """Draw positive values by state; fillings and greys tell the states apart in print.

    Their axis is logarithmic, where the length of a bar would mean nothing.
    """
    styles: dict[int, tuple[str, dict[str, Any]]] = {
        0: ("active", {"color": BLUE}),
        1: ("mixed", {"color": BLUE, "mfc": "none"}),
        2: ("collapsed", {"color": GREY, "marker": "x"}),
    }
    size = 6 if len(values) <= MANY else 3
    for code, (label, style) in styles.items():
        chosen = rank.states == code
        if chosen.any():
            dots = {"marker": "o", "ls": "none", "ms": size, **style}
            ax.plot(rank.ranks[chosen], values[chosen], label=label, **dots)
    ax.grid(visible=True, axis="y")


def latent_axis(ax: Axes, rank: Ranking) -> None:
    """Put the numbers of the latents, or their ranks where they are many, below the axes.

    Args:
        ax: to draw on.
        rank: of the latents.
    """
    count = len(rank.order)
    ax.set_xlim(0.4, count + 0.6)
    if count <= MANY:
        ax.set_xticks(rank.ranks, rank.order)
        if count > 16:
            ax.tick_params(axis="x", labelsize=6, labelrotation=90)
        ax.set_xlabel("latent, by importance")
    else:
        ax.set_xlabel("rank by importance")
