"""Write the page of a training: a table of its checkpoints and their curves."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from isoprobe.show import trend as trends
from isoprobe.show.plots.trends import curves
from isoprobe.show.report.comparison import drawn
from isoprobe.show.report.page import page

if TYPE_CHECKING:
    from isoprobe.show.trend import Trend


def trend_page(trend: Trend, title: str) -> str:
    """Return a training as one HTML page that needs no network.

    Args:
        trend: of the training.
        title: of the page.

    Returns:
        The page.
    """
    heading, *rows = trends.table(trend)
    figures = [
        drawn(curve.name, curve.title, curve.caption, functools.partial(curve.draw, trend))
        for curve in curves(trend)
    ]
    return page(
        "trend.html",
        "report.js",
        title=title,
        trend=trend,
        heading=heading,
        rows=rows,
        figures=figures if trend.points else [],
    )
