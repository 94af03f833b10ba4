"""Draw figures 4 to 6 and 26 to 28 by :mod:`isoprobe.show.plots`, which also serves reports."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isoprobe.show.plots import inverse_variances, norms, styled, traversal

if TYPE_CHECKING:
    from pathlib import Path

    from isoprobe.results.reader import Result

#: pixels an inch; a walk's pictures are small
_DPI = 200


def spectrum(path: Path, result: Result, title: str) -> None:
    """Draw E[sigma^-2] above the norms, by latent (Figures 4, 5, 27, 28).

    Args:
        path: SVG file to write.
        result: with ``isometry`` and ``importance``.
        title: above the panels.
    """
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(6.4, 5.2))
        above, below = figure.subplots(2, 1)
        figure.suptitle(title)
        inverse_variances(result, above)
        norms(result, below)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, facecolor="white", metadata={"Date": None})


def walks(path: Path, result: Result, title: str) -> None:
    """Draw the decoded walks of every latent (Figures 6 and 26).

    Args:
        path: PNG file to write.
        result: with ``traversal``.
        title: above the pictures.
    """
    from matplotlib.figure import Figure

    count, steps = result["traversal"]["z"].values.shape
    with styled():
        figure = Figure(figsize=(1.6 + 0.4 * steps, 0.9 + 0.4 * count))
        axes = figure.subplots()
        axes.set_title(title)
        traversal(result, axes)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=_DPI, facecolor="white", metadata={"Software": None})
