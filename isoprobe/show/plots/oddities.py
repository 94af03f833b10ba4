"""Draw an image beside where it is odd."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from isoprobe.show.plots.style import styled


def draw(x: np.ndarray, odd: np.ndarray, path: Path, title: str) -> None:
    """Write a PNG of an input and of its distortion by pixel.

    Args:
        x: ``(H, W)`` or with channels first or last.
        odd: distortion by pixel, ``(H, W)``.
        path: where to.
        title: over the picture.
    """
    from matplotlib.figure import Figure

    if x.ndim == 3 and x.shape[0] in {1, 3}:
        x = np.moveaxis(x, 0, -1)
    low, high = float(x.min()), float(x.max())
    shown = (x - low) / (high - low if high > low else 1.0)
    with styled():
        figure = Figure(figsize=(6, 3), layout="constrained")
        left, right = figure.subplots(1, 2)
        left.imshow(shown.squeeze(), cmap="gray")
        drawn = right.imshow(odd, cmap="magma")
        figure.colorbar(drawn, ax=right, label="distortion by pixel")
        left.set_title(title)
        for ax in (left, right):
            ax.set_axis_off()
        figure.savefig(path, format="png")
