"""Draw what drifts: p-values of blocks of rows, and the means that moved most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import OptionError
from isoprobe.show.plots.style import BLUE, GREY, INK, RED, legend_above

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from isoprobe.run.drift import Drift

#: formats a file may have
FORMATS = ("svg", "png", "pdf")
_LINES = 5


def draw(found: Drift, path: Path, kind: str) -> None:
    """Write both figures into one file.

    Args:
        found: by :func:`isoprobe.run.drift.drift`.
        path: where to.
        kind: one of :data:`FORMATS`.

    Raises:
        OptionError: for another format.
    """
    import matplotlib as mpl

    if kind not in FORMATS:
        raise OptionError(f"--plot takes a file ending in .svg, .png or .pdf; found .{kind}")
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "isoprobe"}):
        figure = Figure(figsize=(7, 5), layout="constrained")
        upper, lower = figure.subplots(2, 1, sharex=True)
        p_values(found, upper)
        shifts(found, lower)
        figure.savefig(path, format=kind)


def p_values(found: Drift, ax: Axes) -> None:
    """Draw the p-values of each block, which lie at the dotted levels where nothing drifts.

    Args:
        found: by :func:`isoprobe.run.drift.drift`.
        ax: to draw on.
    """
    place = np.arange(len(found.blocks))
    quantiles = np.array([block.p_values for block in found.blocks])
    ax.vlines(place, quantiles[:, 0], quantiles[:, 4], color=BLUE, lw=1)
    ax.vlines(place, quantiles[:, 1], quantiles[:, 3], color=BLUE, lw=4)
    odd = np.array([block.alarm for block in found.blocks])
    ax.plot(place[~odd], quantiles[~odd, 2], "o", color=INK, label="median, quiet")
    ax.plot(place[odd], quantiles[odd, 2], "D", color=RED, label="median, alarm")
    for level in (0.05, 0.25, 0.5, 0.75, 0.95):
        ax.axhline(level, color=GREY, ls=":", lw=0.8)
    ax.set_ylim(0, 1)
    ax.set_ylabel("p-values of rows")
    legend_above(ax)


def shifts(found: Drift, ax: Axes) -> None:
    """Draw the means that moved furthest, by block.

    Args:
        found: by :func:`isoprobe.run.drift.drift`.
        ax: to draw on.
    """
    most: dict[tuple[str, str], float] = {}
    for block in found.blocks:
        for one in block.moved:
            key = (one.kind, one.name)
            most[key] = max(most.get(key, 0.0), abs(one.shift))
    place = np.arange(len(found.blocks))
    for key in sorted(most, key=lambda k: -most[k])[:_LINES]:
        values = [
            next((one.shift for one in block.moved if (one.kind, one.name) == key), np.nan)
            for block in found.blocks
        ]
        ax.plot(place, values, "o-", ms=3, lw=1, label=" ".join(key))
    ax.axhline(0, color=GREY, lw=0.8)
    ax.set_xlabel("block of rows")
    ax.set_ylabel("shift, standard errors")
    if most:
        legend_above(ax)
