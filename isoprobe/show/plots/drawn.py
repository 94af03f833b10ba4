"""Hold a figure that a notebook shows by itself, whether or not pyplot was imported."""

from __future__ import annotations

import io

from matplotlib.figure import Figure

from isoprobe.show.plots.style import styled

#: dots an inch, for a page of print, and for a screen
PRINTED, ON_SCREEN = 200, 110


class Drawn(Figure):
    """A figure in the house style."""

    def _repr_png_(self) -> bytes:
        return png(self, ON_SCREEN)


def png(figure: Figure, dpi: int = PRINTED) -> bytes:
    """Return a figure as PNG on white.

    Args:
        figure: any.
        dpi: dots an inch.

    Returns:
        The file's bytes.
    """
    buffer = io.BytesIO()
    with styled():
        figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()
