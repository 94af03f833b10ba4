"""Draw a quantity against the training weight, over several trainings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.show.plots.style import DASHES, INK, MARKERS, SERIES, legend_above

if TYPE_CHECKING:
    from collections.abc import Mapping

    from matplotlib.axes import Axes


def ablation(
    weights: np.ndarray,
    curves: Mapping[str, np.ndarray],
    ax: Axes,
    *,
    spreads: Mapping[str, np.ndarray] | None = None,
    ideal: float | None = None,
    x_label: str = r"$\lambda = 1/\beta$",
    y_label: str = "norm",
) -> None:
    """Draw curves against lambda, with a band of one standard deviation (Figures 13 to 24).

    Args:
        weights: lambda of each training, ``(T,)``, ascending.
        curves: values by name, ``(T,)`` each.
        ax: to draw on.
        spreads: standard deviations by the same names, ``(T,)`` each.
        ideal: value that theory gives, as a line.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
    """
    for place, (name, values) in enumerate(curves.items()):
        colour = SERIES[place % len(SERIES)]
        ax.plot(
            weights,
            values,
            color=colour,
            marker=MARKERS[place % len(MARKERS)],
            ls=DASHES[place % len(DASHES)],
            label=name,
        )
        if spreads is not None and name in spreads:
            deviation = np.asarray(spreads[name])
            low, high = values - deviation, values + deviation
            ax.fill_between(weights, low, high, color=colour, alpha=0.15, lw=0)
    if ideal is not None:
        ax.axhline(ideal, color=INK, lw=0.8, ls="--")
    ax.set_xscale("log")
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    legend_above(ax)
