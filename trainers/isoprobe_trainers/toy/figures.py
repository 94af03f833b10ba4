"""Draw Figures 3, 10, 13 to 25 from measurements, to files, on no screen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from isoprobe_trainers.toy.measure import Measurement

    Array = NDArray[np.float64]

#: points of a scatter plot, evenly spaced over the samples
_POINTS = 5000
_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee")


def scatter(
    path: Path, exact: Array, panels: Mapping[str, tuple[Array, float]], title: str
) -> None:
    """Draw densities against estimates (Figures 3, 10, 25).

    Args:
        path: PNG file to write.
        exact: log p(x), ``(N,)``.
        panels: by label, the log of an estimate, ``(N,)``, and its correlation R.
        title: above the panels.
    """
    figure, axes = _axes(len(panels), title, 2.7)
    every = max(1, len(exact) // _POINTS)
    density = np.exp(exact[::every])
    for axis, (label, (estimate, r)) in zip(axes, panels.items(), strict=True):
        shown = estimate[::every]
        axis.plot(density, np.exp(shown - estimate.max()), ",", color=_COLOURS[0], alpha=0.6)
        axis.set(xlabel="p(x)", title=f"{label}\nR = {r:.3f}", yticks=[])
    _save(figure, path)


def ablation(path: Path, models: Sequence[Measurement], title: str) -> None:
    """Draw norms, variance ratios and correlations against lambda (Figures 13 to 21).

    Args:
        path: SVG file to write.
        models: one data set and metric, by rising lambda.
        title: above the panels.
    """
    figure, axes = _axes(3, title, 2.9)
    lams = [m.member.lam for m in models]
    for j in range(3):
        norms, deviation = [m.norm_mean[j] for m in models], [m.norm_sd[j] for m in models]
        style = {"marker": "o", "ms": 3, "capsize": 2, "color": _COLOURS[j]}
        axes[0].errorbar(lams, norms, deviation, label=f"$z_{j + 1}$", **style)
    axes[0].set(title=r"norm $(2/\beta)\,\sigma_j^2 D'_j$", ylim=(0, 1.6))
    axes[0].axhline(1, color="grey", lw=0.8)
    for j, expected in ((1, 4), (2, 16)):
        ratios = [m.inverse_variance_ratio[j] for m in models]
        label = f"$Var(z_{j + 1})/Var(z_1)$"
        axes[1].plot(lams, ratios, "o-", ms=3, color=_COLOURS[j], label=label)
        axes[1].axhline(expected, color="grey", lw=0.8)
    axes[1].set(title="ratio of estimated variances", ylim=(0, 24))
    for colour, (label, name) in zip(_COLOURS, CORRELATIONS.items(), strict=True):
        r = [getattr(m, name) for m in models]
        axes[2].plot(lams, r, "o-", ms=3, color=colour, label=label)
    axes[2].set(title="R with p(x)", ylim=(0, 1.02))
    for axis in axes:
        axis.set(xscale="log", xlabel=r"$\lambda$")
        axis.legend(fontsize=6)
    _save(figure, path)


#: how Figures 13 to 21 label their correlations, and where a measurement has them
CORRELATIONS = {
    r"$p(\mu)$": "r_prior",
    r"$e^{-L/\beta}$": "r_objective",
    r"$p(\mu)\prod\sigma$": "r_posterior",
    r"$a^{3/2} e^{-L/\beta}$": "r_scaled_objective",
    r"$a^{3/2} p(\mu)\prod\sigma$": "r_scaled_posterior",
}


def bars(path: Path, ratios: Mapping[str, Mapping[str, tuple[float, float]]], title: str) -> None:
    """Draw the variance ratios of each data set by metric (Figure 22).

    Args:
        path: SVG file to write.
        ratios: by data set and metric, Var(z_2)/Var(z_1) and Var(z_3)/Var(z_1).
        title: above the panels.
    """
    figure, axes = _axes(2, title, 2.9)
    for panel, (axis, expected) in enumerate(zip(axes, (4, 16), strict=True)):
        for place, (metric, colour) in enumerate(
            zip(("downward", "sse", "upward"), _COLOURS, strict=False)
        ):
            heights = [by_metric[metric][panel] for by_metric in ratios.values()]
            at = np.arange(len(heights)) + 0.27 * (place - 1)
            axis.bar(at, heights, 0.25, color=colour, label=metric)
        axis.axhline(expected, color="grey", lw=0.8)
        axis.set_xticks(range(len(ratios)), list(ratios))
        axis.set(title=f"$Var(z_{panel + 2})/Var(z_1)$")
        axis.legend(fontsize=6)
    _save(figure, path)


def against_beta(
    path: Path,
    curves: Mapping[str, Sequence[Measurement]],
    quantity: str,
    theory: float,
    title: str,
) -> None:
    """Draw a loss, or a ratio of losses, against beta with its theoretical line.

    Args:
        path: SVG file to write.
        curves: by data set, models trained with the square error.
        quantity: ``coding_loss`` (Figure 23) or ``loss_ratio`` (Figure 24).
        theory: slope of the line, 3/2 or 21/16.
        title: above the panel.
    """
    figure, (axis,) = _axes(1, title, 3.6)
    for colour, (kind, models) in zip(_COLOURS, curves.items(), strict=False):
        betas = [m.member.beta for m in models]
        values = [getattr(m, quantity) for m in models]
        axis.plot(betas, values, "o-", ms=3, color=colour, label=kind)
    span = np.array([1e-3, 1.0])
    axis.plot(span, theory * span, "--", color="black", lw=1, label=rf"{theory:g} $\beta$")
    axis.set(xscale="log", yscale="log", xlabel=r"$\beta$")
    axis.legend(fontsize=7)
    _save(figure, path)


def _axes(count: int, title: str, height: float) -> tuple[Any, list[Any]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(3.0 * count, 4.6), height), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=9)
    axes = list(np.atleast_1d(figure.subplots(1, count)))
    for axis in axes:
        axis.tick_params(labelsize=7)
        axis.title.set_fontsize(8)
    return figure, axes


def _save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    import matplotlib as mpl

    # a fixed salt and no date: equal figures are equal files
    with mpl.rc_context({"svg.hashsalt": "isoprobe"}):
        metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(path, dpi=110, metadata=metadata)
