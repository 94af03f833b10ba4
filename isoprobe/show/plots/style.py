"""Set the house style of the figures."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

#: Okabe and Ito's palette, safe for the common kinds of colour blindness
BLUE, RED, GREEN, ORANGE, PURPLE, SKY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#E69F00",
    "#CC79A7",
    "#56B4E9",
)
SERIES = (BLUE, RED, GREEN, ORANGE, PURPLE, SKY)
#: Paul Tol's muted colours and a grey, for up to ten classes
CLASSES = (
    *("#332288", "#88CCEE", "#44AA99", "#117733", "#999933"),
    *("#DDCC77", "#CC6677", "#882255", "#AA4499", "#8A8A8A"),
)
MARKERS = ("o", "s", "D", "^", "v", "P")
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)))
GREY = "#8A8A8A"
#: ink of text and axes; an SVG in a page takes the page's own colour in its place
INK = "#1B1B1E"
#: sequential colours, even in lightness
SEQUENTIAL = "cividis"
#: signed values: blue below 0, red above
DIVERGING = "RdBu_r"

_SETTINGS: dict[str, Any] = {
    "font.size": 8.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Arial", "Helvetica"],
    "axes.titlesize": 9,
    "axes.labelsize": 8.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.axisbelow": True,
    "axes.grid": False,
    "grid.color": GREY,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "isoprobe",  # ids, and so bytes, that do not change from run to run
    "figure.constrained_layout.use": True,
}


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Apply the house style to figures made and drawn inside.

    Yields:
        Nothing.
    """
    import matplotlib as mpl

    with mpl.rc_context(_SETTINGS):
        yield


def legend_above(ax: Axes, columns: int = 3) -> None:
    """Put the legend above the axes, where it hides no data."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        ax.legend(
            handles,
            labels,
            loc="lower left",
            bbox_to_anchor=(0, 1.0),
            ncols=min(columns, len(labels)),
            borderaxespad=0.2,
            handletextpad=0.4,
            columnspacing=1.2,
        )


def empty(ax: Axes, reason: str) -> None:
    """Say why there is nothing to draw."""
    ax.set_axis_off()
    ax.text(0.5, 0.5, reason, ha="center", va="center", transform=ax.transAxes)


def unit(name: str, metric: str) -> str:
    """Return a unit for an axis label: that of the metric by its name."""
    if name == "1":
        return ""
    # a name from a file is text, whatever a dollar would mean to matplotlib
    literal = metric.replace("$", r"\$")
    return f" [{name.replace('metric', literal)}]"
