"""The page of a comparison."""

from __future__ import annotations

import contextlib
import functools
from typing import TYPE_CHECKING, Any

from isoprobe.errors import ResultError
from isoprobe.show import compare
from isoprobe.show.far import distance_rows
from isoprobe.show.matching import match
from isoprobe.show.plots import comparisons, styled, to_svg
from isoprobe.show.report.page import page
from isoprobe.show.shown import said

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isoprobe.results.reader import Result
    from isoprobe.show.compare import Comparison


def compared_page(results: Sequence[Result], comparison: Comparison) -> str:
    """Return a comparison as one HTML page that needs no network.

    Args:
        results: those compared, in the same order.
        comparison: of them.

    Returns:
        The page.
    """
    return page(
        "compare.html",
        "report.js",
        title="Comparison of latent spaces",
        comparison=comparison,
        rows=compare.rows(comparison.models),
        distances=_distances(comparison),
        figures=list(_figures(results, comparison)),
        said=said,
    )


def _distances(comparison: Comparison) -> list[list[list[str]]]:
    found = comparison.distances
    return [] if found is None else [distance_rows(found, kind) for kind in found.correlations]


def _figures(results: Sequence[Result], comparison: Comparison) -> Iterator[dict[str, Any]]:
    models = comparison.models
    if any(model.importances for model in models):
        yield drawn(
            "spectra",
            "Spectra",
            "Importance by rank; thin lines are the water lines beta/2.",
            functools.partial(comparisons.spectra, models),
        )
    yield drawn(
        "rates",
        "Rate and distortion",
        "Filled: coding and transform loss. Hollow: the coding loss alone.",
        functools.partial(comparisons.rate_distortion_points, models),
    )
    for place, other in enumerate(results[1:], start=1):
        with contextlib.suppress(ResultError):  # said in words where they are not matched
            matching = match(results[0], other)
            yield drawn(
                f"matching-{place}",
                f"{models[0].name} (rows) and {models[place].name} (columns)",
                "|correlation| of the latents over common samples; circles are counterparts.",
                functools.partial(comparisons.matched, matching),
            )


def drawn(name: str, title: str, caption: str, draw: Callable[[Any], None]) -> dict[str, Any]:
    """Return a figure as a template of a page takes it.

    Args:
        name: of the figure, and of its place in the page.
        title: over it.
        caption: under it.
        draw: draws on the axes it is given.
    """
    from markupsafe import Markup
    from matplotlib.figure import Figure

    with styled():
        figure = Figure(figsize=(5.0, 3.4))
        draw(figure.add_subplot())
    # matplotlib escapes the texts it writes into an SVG
    svg = Markup(to_svg(figure, name))  # noqa: S704
    return {"name": name, "title": title, "caption": caption, "svg": svg}
