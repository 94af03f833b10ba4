"""The figures of a result by name: which it has, drawing and saving them."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import OptionError, nearest
from isoprobe.results.whole import replacing
from isoprobe.show.plots import anomalies, densities, latents, losses, walks
from isoprobe.show.plots.style import BLUE, INK, styled

if TYPE_CHECKING:
    from collections.abc import Callable

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from isoprobe.results.reader import Result

FORMATS = ("svg", "png", "pdf")
_DPI = 200
#: rows that show whether a column has any finite number
_LOOKED_AT = 1000
_STAMPS = {"svg": "Date", "pdf": "CreationDate"}


@dataclass(frozen=True)
class Entry:
    """One figure of a result.

    Attributes:
        draw: the function.
        title: over the figure.
        caption: how to read it, plain text.
        group: group of the result it needs.
        variable: variable of that group it needs.
        size: width and height in inches.
    """

    draw: Callable[[Result, Axes], None]
    title: str
    caption: str
    group: str
    variable: str
    size: tuple[float, float] = (5.0, 3.0)


CATALOGUE: dict[str, Entry] = {
    "scree": Entry(
        latents.scree,
        "Importance of each latent",
        "Bars: variance of the isometric coordinate, the counterpart of a PCA eigenvalue, on a log "
        "scale. Ticks: the rough estimate from mean inverse variances, an upper bound for an ideal "
        "model. A dimension whose bar is under the water line costs more than it brings.",
        "importance",
        "exact",
    ),
    "norms": Entry(
        latents.norms,
        "Is the embedding isometric?",
        "Theory asks norm + sigma^2 = 1 of every latent, used or not. Squares measure it through "
        "the decoder's derivative at the mean, diamonds through stationarity of the objective, "
        "which needs no expansion. The norm alone is near 1 only where sigma is small.",
        "isometry",
        "stationary_residual_mean",
    ),
    "inverse_variances": Entry(
        latents.inverse_variances,
        "Mean inverse posterior variance",
        "The quantity the paper plots: proportional to importance, 1 where a latent carries "
        "nothing.",
        "overview",
        "inverse_variance_mean",
    ),
    "orthogonality": Entry(
        latents.orthogonality,
        "Do latents move the output in different directions?",
        "Mean |cosine| between the decoder's columns in the metric: 0 is orthogonal, as theory "
        "asks; 1 means two latents do the same thing.",
        "isometry",
        "cosine",
        (4.2, 3.5),
    ),
    "rate_distortion": Entry(
        losses.rate_distortion,
        "Rate and distortion",
        "The grey curve predicts, from this model's spectrum, what other values of beta would "
        "give. The coding loss should lie on it; what the distortion has on top is transform "
        "loss, which the decoder's capacity decides.",
        "rate-distortion",
        "predicted_rate",
    ),
    "density_estimators": Entry(
        densities.density_estimators,
        "Do the two density estimates agree?",
        "One comes from the objective, one from the prior and the sigmas. A high correlation means "
        "either may rank samples by how likely they are.",
        "samples",
        "log_density_metric_sigmas",
        (4.2, 3.4),
    ),
    "anomaly_scores": Entry(
        anomalies.anomaly_scores,
        "Anomaly scores",
        "Samples by score, the higher the odder; those right of the threshold are flagged.",
        "anomaly",
        "threshold",
    ),
    "anomaly_roc": Entry(
        anomalies.anomaly_roc,
        "Anomalies found against normals flagged",
        "The area is the chance that an anomaly scores above a normal sample.",
        "anomaly",
        "auroc",
        (3.6, 3.6),
    ),
    "anomaly_precision_recall": Entry(
        anomalies.anomaly_precision_recall,
        "Precision against recall",
        "With few anomalies this tells more than the ROC curve; chance reaches the dashed line.",
        "anomaly",
        "auroc",
        (3.6, 3.4),
    ),
    "coordinates": Entry(
        walks.coordinates,
        "Samples in isometric coordinates",
        "Distances here are distances in the metric, so clusters and outliers look as large as "
        "they are.",
        "samples",
        "y",
        (5.0, 5.0),
    ),
    "traversal": Entry(
        walks.traversal,
        "What each latent does",
        "Decoded walks along the leading latents with all others held still, most important "
        "first; in brackets the mean inverse variance.",
        "traversal",
        "images",
        (5.0, 4.6),
    ),
}


def available(result: Result) -> list[str]:
    """Return the names of the figures this result has the numbers for."""
    return [name for name, entry in CATALOGUE.items() if _has_numbers(result, entry)]


def _has_numbers(result: Result, entry: Entry) -> bool:
    """Whether what a figure needs is there and finite: without a beta, much of it is not."""
    if entry.group not in result or entry.variable not in result[entry.group]:
        return False
    if entry.group == "samples":
        values = result.samples(0, _LOOKED_AT, [entry.variable])[entry.variable]
    else:
        values = result[entry.group][entry.variable].values
    return bool(np.isfinite(values).any())


def figure(result: Result, name: str) -> Figure:
    """Draw a figure by name in the house style.

    Args:
        result: a complete result.
        name: from :data:`CATALOGUE`.

    Returns:
        The figure.

    Raises:
        OptionError: if the name is unknown or the result lacks what it needs.
    """
    from matplotlib.figure import Figure

    if name not in CATALOGUE:
        raise OptionError(f"there is no figure '{name}'{nearest(name, list(CATALOGUE))}")
    entry = CATALOGUE[name]
    if name not in available(result):
        raise OptionError(
            f"figure '{name}' needs '{entry.group}/{entry.variable}', which {result.path} has not;"
            " analyze with that analysis"
        )
    with styled():
        drawn = Figure(figsize=entry.size)
        entry.draw(result, drawn.add_subplot())
        drawn.canvas.draw_idle()
    return drawn


def save(result: Result, folder: Path, names: list[str], kind: str) -> list[Path]:
    """Write figures as files.

    Args:
        result: a complete result.
        folder: made when missing.
        names: from :data:`CATALOGUE`.
        kind: ``svg``, ``png`` or ``pdf``.

    Returns:
        The files.
    """
    paths = []
    for name in names:
        path = folder / f"{name}.{kind}"
        drawn = figure(result, name)
        folder.mkdir(parents=True, exist_ok=True)
        with styled():
            # no time stamp: the same result gives the same bytes
            metadata = {_STAMPS[kind]: None} if kind in _STAMPS else {}
            with replacing(path) as partial:
                drawn.savefig(partial, format=kind, dpi=_DPI, facecolor="white", metadata=metadata)
        paths.append(path)
    return paths


def to_png(drawn: Figure) -> bytes:
    """Return a figure as PNG on white."""
    buffer = io.BytesIO()
    with styled():
        drawn.savefig(buffer, format="png", dpi=_DPI, facecolor="white")
    return buffer.getvalue()


def to_svg(drawn: Figure, name: str) -> str:
    """Return a figure as an SVG element for a page, in the page's own ink and blue.

    Args:
        drawn: the figure.
        name: makes its ids differ from those of other figures in the page.

    Returns:
        The element, without XML declaration.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with styled(), mpl.rc_context({"svg.hashsalt": name}):
        drawn.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|"#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace(INK.lower(), "currentColor")
    return text.replace(BLUE.lower(), f"var(--blue, {BLUE.lower()})")
