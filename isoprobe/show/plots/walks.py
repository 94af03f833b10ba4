"""Draw what each latent does, and where the samples lie."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import ResultError
from isoprobe.show.plots.frames import frames, picture_shape
from isoprobe.show.plots.latents import ranking
from isoprobe.show.plots.style import BLUE, CLASSES, INK, SEQUENTIAL, SERIES, empty

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from isoprobe.results.reader import Result

_ROWS = 5000
_PAIRS = 4
#: classes that are told apart by colour
_MOST_KINDS = 10
#: a small picture is enlarged to about so many pixels, so that the gap beside it stays narrow
_ENLARGED, _GAP = 48, 2


def traversal(result: Result, ax: Axes, *, steps: str = "z") -> None:
    """Draw decoded walks along the leading latents, others held still (Figures 6 and 26).

    Args:
        result: with ``traversal``.
        ax: to draw on.
        steps: ``z`` for steps equal in z, ``y`` for steps equal in y.

    Raises:
        ResultError: if the inputs are neither vectors nor images.
    """
    group = result["traversal"]
    walks = group["images" if steps == "z" else "images_equal_y"]
    pictures = frames(walks.values, picture_shape(result))
    if pictures is not None:
        tiles(pictures, ax)
        at = np.arange(walks.values.shape[1])
    elif walks.values.ndim == 3:
        at = lines(walks.values, ax)
    else:
        raise ResultError(f"{result.path} has inputs of shape {walks.values.shape[2:]}: no figure")
    ends = group["z" if steps == "z" else "y_equal_y"].values
    if steps == "z":
        marked = at[[0, len(at) // 2, -1]]
        ax.set_xticks(marked, [f"{value:g}" for value in ends[0, marked]])
    else:
        ax.set_xticks([])
    ax.set_xlabel("$z_j$" if steps == "z" else "equal steps in $y_j$")
    inverse = result["overview"]["inverse_variance_mean"].values
    names = [f"{latent}  ({inverse[latent]:.3g})" for latent in group["latents"].values]
    ax.set_yticks(np.arange(len(names)), names)
    ax.set_ylabel(r"latent ($\mathrm{E}[\sigma_j^{-2}]$)")
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def coordinates(result: Result, ax: Axes, *, count: int = _PAIRS) -> None:
    """Draw the leading isometric coordinates of the samples against each other (Eq. 16, 67).

    Distances in this figure are distances in the metric; labels, where there are a few, colour it.

    Args:
        result: with ``coordinates``.
        ax: whose place the grid of panels takes.
        count: leading coordinates to show.
    """
    rank = ranking(result)
    order = rank.order[rank.states < 2][:count]
    names = ["y", *(["label"] if "label" in result["samples"] else [])]
    rows = result.samples(0, _ROWS, names=names)
    y = rows["y"][:, order]
    finite = np.isfinite(y).all(axis=1)
    kinds = _kinds(rows.get("label"), len(y))[finite]
    y = y[finite]
    panels = len(order)
    if not panels:
        empty(ax, "no latent is active")
        return
    ax.set_axis_off()
    colours = _colours(kinds)
    for row in range(panels):
        for column in range(row + 1):
            gap = 0.04
            size = (1 - gap * (panels - 1)) / panels
            place = (column * (size + gap), 1 - size - row * (size + gap), size, size)
            panel = ax.inset_axes(place)
            if row == column:
                panel.hist(y[:, row], 40, color=BLUE, alpha=0.85)
                panel.set_yticks([])
            else:
                for kind, colour in colours.items():
                    some = kinds == kind
                    panel.plot(
                        y[some, column], y[some, row], ".", ms=1.6, alpha=0.5, mew=0,
                        color=colour, rasterized=True,
                    )  # fmt: skip
            panel.tick_params(labelsize=6, length=2)
            _name_panel(panel, row, column, order, panels)
    if len(colours) > 1:
        for kind, colour in colours.items():
            ax.plot([], [], "o", ms=4, color=colour, label=f"{kind:g}")
        ax.legend(loc="upper right", title="label", ncols=2 if len(colours) > 5 else 1)


def _colours(kinds: np.ndarray) -> dict[float, str]:
    """A colour for each class."""
    found = np.unique(kinds).tolist()
    return dict(zip(found, SERIES if len(found) <= len(SERIES) else CLASSES, strict=False))


def _name_panel(panel: Axes, row: int, column: int, order: np.ndarray, panels: int) -> None:
    if row == panels - 1:
        panel.set_xlabel(f"$y_{{{order[column]}}}$", labelpad=1)
    else:
        panel.set_xticklabels([])
    if column == 0 and row:
        panel.set_ylabel(f"$y_{{{order[row]}}}$", labelpad=1)
    elif row != column:
        panel.set_yticklabels([])


def _kinds(labels: np.ndarray | None, count: int) -> np.ndarray:
    if labels is None or labels.ndim != 1 or len(np.unique(labels)) > _MOST_KINDS:
        return np.zeros(count)
    return labels


def tiles(pictures: np.ndarray, ax: Axes) -> None:
    """Lay pictures out in rows, one unit of the axes each, whatever their shape.

    Args:
        pictures: as :func:`frames` gives them.
        ax: to draw on.
    """
    factor = max(1, _ENLARGED // max(pictures.shape[2:4]))
    large = pictures.repeat(factor, axis=2).repeat(factor, axis=3)
    colours = np.broadcast_to(large, (*large.shape[:4], 3))
    opaque = np.concatenate([colours, np.ones_like(large[..., :1])], axis=-1)
    framed = np.pad(opaque, ((0, 0), (0, 0), (_GAP, _GAP), (_GAP, _GAP), (0, 0)))
    ranks, steps, height, width, _ = framed.shape
    sheet = framed.transpose(0, 2, 1, 3, 4).reshape(ranks * height, steps * width, 4)
    extent = (-0.5, steps - 0.5, ranks - 0.5, -0.5)
    ax.imshow(sheet, extent=extent, aspect=height / width, interpolation="nearest")


def lines(walks: np.ndarray, ax: Axes) -> np.ndarray:
    """Draw vectors as lines over each other, a strip for each latent, coloured by step.

    Args:
        walks: ``(rank, step, size)``.
        ax: to draw on.

    Returns:
        Numbers of the steps.
    """
    import matplotlib as mpl

    ranks, steps, size = walks.shape
    low, high = float(np.nanmin(walks)), float(np.nanmax(walks))
    colours = mpl.colormaps[SEQUENTIAL](np.linspace(0, 0.95, steps))
    at = np.linspace(0, steps - 1, size) if size > 1 else np.zeros(1)
    for rank in range(ranks):
        scaled = rank + 0.42 - 0.84 * (walks[rank] - low) / max(high - low, 1e-12)
        for step in range(steps):
            marker = "." if size == 1 else ""
            ax.plot(at, scaled[step], color=colours[step], lw=0.9, marker=marker)
        ax.axhline(rank + 0.5, color=INK, lw=0.3)
    ax.set_ylim(ranks - 0.5, -0.5)
    return np.arange(steps)
