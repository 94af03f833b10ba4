"""Draw rate and distortion."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.show.plots.style import BLUE, GREEN, GREY, RED, legend_above, unit
from isoprobe.theory.formulas import bits

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

    from isoprobe.results.reader import Result


def rate_distortion(result: Result, ax: Axes) -> None:
    """Draw where the model lies in the rate-distortion plane (Eq. 54, 92).

    The curve is what water-filling of the estimated spectrum predicts at other betas; the coding
    loss should lie on it, and the transform loss stands above it.

    Args:
        result: with ``rate-distortion``.
        ax: to draw on.
    """
    group = result["rate-distortion"]
    metric = str(result.attrs.get("metric", "metric"))
    rate, distortion, betas = (
        group[name].values for name in ("predicted_rate", "predicted_distortion", "other_beta")
    )
    shown = rate > 0
    ax.plot(bits(rate[shown]), distortion[shown], color=GREY, marker=".", label="water-filling")
    _annotate_betas(ax, bits(rate[shown]), distortion[shown], betas[shown])
    here = float(group["rate_bits"].values)
    points = {
        "coding loss": (result["overview"]["distortion_coding_mean"], "o", BLUE),
        r"$\frac{\beta}{2}\sum(1-\sigma^2)$": (group["coding_loss_expected"], "D", GREEN),
        "distortion": (group["distortion"], "s", RED),
    }
    for label, (variable, marker, colour) in points.items():
        fill = "none" if marker == "D" else colour
        ax.plot(here, variable.values, marker, color=colour, mfc=fill, ms=6, label=label)
    ax.set_yscale("log")
    ax.set_xlabel("rate [bit]")
    ax.set_ylabel("distortion" + unit("metric", metric))
    ax.grid(visible=True)
    legend_above(ax, 2)


def _annotate_betas(ax: Axes, rate: np.ndarray, loss: np.ndarray, betas: np.ndarray) -> None:
    for place in range(0, len(betas), 4):
        ax.annotate(
            rf"$\beta$={betas[place]:.3g}",
            (rate[place], loss[place]),
            (4, 4),
            textcoords="offset points",
            fontsize=7,
        )
