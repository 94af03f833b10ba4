"""Draw estimated against true densities, and one estimator against another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.show.plots.style import BLUE, INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from isoprobe.results.reader import Result

#: points drawn; more than a figure can show apart
MOST = 5000


def density_scatter(
    truth: np.ndarray,
    estimate: np.ndarray,
    ax: Axes,
    *,
    x_label: str = r"true $p(x)$",
    y_label: str = r"estimated $p(x)$",
) -> None:
    """Draw estimates against the truth with their correlation (Figures 3, 10 and 25).

    Args:
        truth: true densities or their logarithms, ``(N,)``.
        estimate: estimates of them, ``(N,)``.
        ax: to draw on.
        x_label: of the horizontal axis.
        y_label: of the vertical axis.
    """
    finite = np.isfinite(truth) & np.isfinite(estimate)
    truth, estimate = np.asarray(truth)[finite], np.asarray(estimate)[finite]
    step = max(1, len(truth) // MOST)
    ax.plot(
        truth[::step],
        estimate[::step],
        ".",
        ms=2.5,
        alpha=0.5,
        mew=0,
        color=BLUE,
        rasterized=True,
    )
    if len(truth) > 1 and truth.std() > 0 and estimate.std() > 0:
        r = np.corrcoef(truth, estimate)[0, 1]
        ax.annotate(
            f"R = {r:.3f}", (0.04, 0.96), xycoords="axes fraction", va="top", color=INK, fontsize=9
        )
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)


def density_estimators(result: Result, ax: Axes) -> None:
    """Draw the log density from sigmas against the one from the objective (Eq. 19 and 57).

    Both estimate the same density, so points far off the diagonal's trend are not to be trusted.

    Args:
        result: with ``density``.
        ax: to draw on.
    """
    rows = result.samples(0, 20 * MOST, names=["log_density_metric", "log_density_metric_sigmas"])
    density_scatter(
        rows["log_density_metric"],
        rows["log_density_metric_sigmas"],
        ax,
        x_label=r"$\log p(y)$ from $-L_x/\beta$ [nat]",
        y_label=r"$\log p(y)$ from $\sigma$ [nat]",
    )
