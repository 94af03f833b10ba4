"""Draw rows beside what the decoder makes of them: spread, worst, likely; and prior samples."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import ResultError
from isoprobe.show.plots.frames import frames, picture_shape
from isoprobe.show.plots.style import BLUE, INK, RED, legend_above
from isoprobe.show.plots.walks import tiles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from isoprobe.results.reader import Result

#: columns of the grid of prior samples
_COLUMNS = 8


def reconstructions(result: Result, ax: Axes) -> None:
    """Draw rows spread over the data above their reconstructions.

    Args:
        result: with ``examples``.
        ax: to draw on.
    """
    _pairs(result, ax, "spread")


def worst_reconstructions(result: Result, ax: Axes) -> None:
    """Draw the rows with the highest distortion above their reconstructions.

    Args:
        result: with ``examples``.
        ax: to draw on.
    """
    _pairs(result, ax, "worst")


def likely_rows(result: Result, ax: Axes) -> None:
    """Draw the rows with the lowest objective above those with the highest (Eq. 3).

    Args:
        result: with ``examples``.
        ax: to draw on.
    """
    group = result["examples"]
    kinds = ("likely", "unlikely")
    both = np.stack([group[f"{kind}_input"].values for kind in kinds])
    _draw(result, ax, both, ("most likely", "least likely"))


def prior_samples(result: Result, ax: Axes) -> None:
    """Draw decoded samples of the prior.

    Args:
        result: with ``examples``.
        ax: to draw on.
    """
    drawn = result["examples"]["prior"].values
    columns = min(_COLUMNS, max(1, len(drawn) // 2))
    grid = drawn[: len(drawn) // columns * columns]
    _draw(result, ax, grid.reshape(-1, columns, *drawn.shape[1:]), ())


def _pairs(result: Result, ax: Axes, kind: str) -> None:
    group = result["examples"]
    both = np.stack([group[f"{kind}_{what}"].values for what in ("input", "decoded")])
    _draw(result, ax, both, ("row", "decoded"))
    values = group[f"{kind}_distortion"].values
    ax.set_xticks(np.arange(len(values)), [f"D = {v:.3g}" for v in values], fontsize=6.5)


def _draw(result: Result, ax: Axes, values: np.ndarray, names: tuple[str, ...]) -> None:
    """Draw inputs ``(line, place, *input axes)`` as pictures, or as curves over each other."""
    pictures = frames(values, picture_shape(result))
    if pictures is not None:
        tiles(pictures, ax)
        ax.set_xticks([])
        ax.set_yticks(np.arange(len(names)), names)
    elif values.ndim == 3:
        _curves(values, ax, names)
    else:
        raise ResultError(f"{result.path} has inputs of shape {values.shape[2:]}: no figure")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def _curves(values: np.ndarray, ax: Axes, names: tuple[str, ...]) -> None:
    """Draw vectors side by side, one panel a place, those of both lines over each other."""
    lines, places, size = values.shape
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    scaled = 0.9 * (values - low) / max(high - low, 1e-12)
    across = np.linspace(0.06, 0.94, size) if size > 1 else np.array([0.5])
    colours = (BLUE, RED) if names else (BLUE,) * lines
    for line in range(lines):
        row = 0 if names else line
        for place in range(places):
            label = names[line] if names and not place else None
            style = "." if size == 1 else ("--" if names and line else "-")
            ax.plot(place + across - 0.5, scaled[line, place] - row, style,
                    color=colours[line], lw=0.9, label=label)  # fmt: skip
    for place in range(1, places):
        ax.axvline(place - 0.5, color=INK, lw=0.3)
    ax.set_xlim(-0.5, places - 0.5)
    ax.set_xticks([])
    ax.set_yticks([])
    if names:
        legend_above(ax)
