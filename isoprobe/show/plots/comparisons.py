"""Draw several models in one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from isoprobe.show.plots.style import DASHES, INK, MARKERS, SEQUENTIAL, SERIES, legend_above, unit
from isoprobe.theory.formulas import water_level

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from isoprobe.show.compare import Model
    from isoprobe.show.matching import Matching


def spectra(models: Sequence[Model], ax: Axes) -> None:
    """Draw the importances of several models by rank, with their water lines (Eq. 67, 92).

    Args:
        models: from a comparison.
        ax: to draw on.
    """
    for place, model in enumerate(models):
        colour, dash = SERIES[place % len(SERIES)], DASHES[place % len(DASHES)]
        ranks = np.arange(1, len(model.importances) + 1)
        marker = MARKERS[place % len(MARKERS)]
        ax.plot(ranks, model.importances, color=colour, ls=dash, marker=marker, label=model.name)
        if model.beta:
            ax.axhline(water_level(model.beta), color=colour, ls=dash, lw=0.7)
    ax.set_yscale("log")
    ax.set_xlabel("rank by importance")
    metrics = {model.metric for model in models}
    label = unit("metric", metrics.pop()) if len(metrics) == 1 else ""
    ax.set_ylabel(r"Var$(y_j)$" + label)
    legend_above(ax, 2)


def rate_distortion_points(models: Sequence[Model], ax: Axes) -> None:
    """Draw where several models lie: rate against distortion, with the coding loss (Eq. 54).

    Args:
        models: from a comparison.
        ax: to draw on.
    """
    for place, model in enumerate(models):
        if model.rate_bits is None:
            continue
        colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
        coding, transform = model.coding_loss, model.transform_loss
        if coding is not None:
            ax.plot(model.rate_bits, coding, marker, color=colour, mfc="none", ms=6)
        if coding is not None and transform is not None:
            ax.plot(
                model.rate_bits, coding + transform, marker, color=colour, ms=6, label=model.name
            )
    ax.plot([], [], "o", color=INK, mfc="none", ms=6, label="coding loss alone")
    ax.set_yscale("log")
    ax.set_xlabel("rate [bit]")
    ax.set_ylabel("coding and transform loss")
    ax.grid(visible=True)
    legend_above(ax, 2)


def matched(matching: Matching, ax: Axes) -> None:
    """Draw how every pair of active latents of two models correlates.

    Args:
        matching: of the two.
        ax: to draw on; a colour bar is added.
    """
    strength = np.abs(matching.correlations)
    image = ax.imshow(strength, cmap=SEQUENTIAL, vmin=0, vmax=1, interpolation="nearest")
    bar = ax.figure.colorbar(image, ax=ax, fraction=0.046, pad=0.03)
    bar.set_label("|correlation|")
    bar.outline.set_visible(False)
    for row, column in matching.pairs:
        light = strength[row, column] < 0.55
        ax.plot(column, row, "o", ms=4, mfc="none", color="white" if light else "black")
    if max(strength.shape) <= 40:
        ax.set_xticks(np.arange(len(matching.other)), matching.other)
        ax.set_yticks(np.arange(len(matching.reference)), matching.reference)
    ax.set_xlabel("latent, by importance")
    ax.set_ylabel("latent of the reference")
    ax.spines[:].set_visible(False)
