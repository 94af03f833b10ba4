"""List the figures of a result by name: which it has, drawing and saving them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from isoprobe.errors import OptionError, PluginError, nearest
from isoprobe.registry.lookup import installed
from isoprobe.results.whole import replacing
from isoprobe.show.plots.style import BLUE, INK, styled

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

    from isoprobe.contracts import Figure
    from isoprobe.results.reader import Result

FORMATS = ("svg", "png", "pdf")
#: rows that show whether a column has any finite number
_LOOKED_AT = 1000
_STAMPS = {"svg": "Date", "pdf": "CreationDate"}


def catalogue() -> dict[str, Figure]:
    """Return every figure that an installed analysis offers, by name."""
    return installed().figures()


def available(result: Result) -> list[str]:
    """Return the names of the figures this result has the numbers for."""
    return [name for name, figure in catalogue().items() if has_numbers(result, figure)]


def has_numbers(result: Result, drawn: Figure) -> bool:
    """Whether what a figure needs is there and finite: without a beta, much of it is not.

    Args:
        result: a complete result.
        drawn: what an analysis offers.

    Returns:
        True where it can be drawn.
    """
    group, _, name = drawn.needs.partition("/")
    if drawn.rows and "samples" not in result:
        return False
    if group not in result or name not in result[group]:
        return False
    if group == "samples":
        values = result.samples(0, _LOOKED_AT, [name])[name]
    else:
        values = result[group][name].values
    return values.dtype.kind not in "fiub" or bool(np.isfinite(values).any())


def figure(result: Result, name: str) -> Canvas:
    """Draw a figure by name in the house style.

    Args:
        result: a complete result.
        name: from :func:`catalogue`.

    Returns:
        The figure.

    Raises:
        OptionError: if the name is unknown or the result lacks what it needs.
    """
    known = catalogue()
    if name not in known:
        raise OptionError(f"there is no figure '{name}'{nearest(name, list(known))}")
    entry = known[name]
    if not has_numbers(result, entry):
        raise OptionError(
            f"figure '{name}' needs '{entry.needs}', which {result.path} has not; analyze with that"
            " analysis"
        )
    return draw(result, entry)


def draw(result: Result, offered: Figure) -> Canvas:
    """Draw a figure that an analysis offers, in the house style.

    Args:
        result: a complete result that has what it needs.
        offered: by the analysis.

    Returns:
        The figure.

    Raises:
        PluginError: if that fails, for whatever reason.
    """
    from isoprobe.show.plots.drawn import Drawn

    with styled():
        drawn = Drawn(figsize=offered.size)
        try:
            offered.draw(result, drawn.add_subplot())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise PluginError(f"figure '{offered.name}' cannot be drawn: {reason}") from error
        drawn.canvas.draw_idle()
    return drawn


def save(result: Result, folder: Path, names: list[str], kind: str) -> list[Path]:
    """Write figures as files.

    Args:
        result: a complete result.
        folder: made when missing.
        names: from :func:`catalogue`.
        kind: ``svg``, ``png`` or ``pdf``.

    Returns:
        The files.
    """
    from isoprobe.show.plots.drawn import PRINTED

    paths = []
    for name in names:
        path = folder / f"{name}.{kind}"
        drawn = figure(result, name)
        folder.mkdir(parents=True, exist_ok=True)
        with styled():
            # no time stamp: the same result gives the same bytes
            metadata = {_STAMPS[kind]: None} if kind in _STAMPS else {}
            with replacing(path) as partial:
                drawn.savefig(
                    partial, format=kind, dpi=PRINTED, facecolor="white", metadata=metadata
                )
        paths.append(path)
    return paths


def to_png(drawn: Canvas) -> bytes:
    """Return a figure as PNG on white."""
    from isoprobe.show.plots.drawn import png

    return png(drawn)


def to_svg(drawn: Canvas, name: str) -> str:
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
