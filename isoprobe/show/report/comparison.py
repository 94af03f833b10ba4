"""Write the page of a comparison."""

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
from isoprobe.show.report.strips import strips
from isoprobe.show.shown import said
from isoprobe.show.voice import voice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from isoprobe.results.reader import Result
    from isoprobe.show.compare import Against, Comparison


def compared_page(results: Sequence[Result], comparison: Comparison) -> str:
    """Return a comparison as one HTML page that needs no network.

    Args:
        results: those compared, in the same order.
        comparison: of them.

    Returns:
        The page.
    """
    turned: list[set[int]] = [set(), *map(_opposite, comparison.matchings)]
    walks = [
        strips(result, f"walks-{place}", backwards)
        for place, (result, backwards) in enumerate(zip(results, turned, strict=True))
    ]
    return page(
        "compare.html",
        "report.js",
        title="Comparison of latent spaces",
        comparison=comparison,
        rows=compare.rows(comparison.models),
        distances=_distances(comparison),
        sprites=[walk for walk in walks if walk and walk["sprite"]],
        side_by_side=_side_by_side(comparison, walks),
        manners=[voice(result).manner for result in results],
        figures=list(_figures(results, comparison)),
        said=said,
    )


def _opposite(against: Against) -> set[int]:
    """Latents that fall where their counterparts of the reference rise: they are walked back."""
    pairs = (pair for pair in against.pairs if (pair.correlation or 0.0) < 0)
    return {pair.other for pair in pairs if pair.other is not None}


def _side_by_side(
    comparison: Comparison, walks: Sequence[dict[str, Any] | None]
) -> list[dict[str, Any]]:
    """For each other model, walks of the reference's latents beside those of their counterparts.

    Returns:
        For each, pairs of strips.
    """
    found = []
    for against, other in zip(comparison.matchings, walks[1:], strict=True):
        if walks[0] is None or other is None:
            continue
        ours, theirs = ({row["latent"]: row for row in walk["rows"]} for walk in (walks[0], other))
        pairs = [
            {
                "one": ours[pair.reference],
                "other": None if pair.other is None else theirs.get(pair.other),
                "words": said(pair.correlation, "+.2f", dash="no counterpart"),
            }
            for pair in sorted(against.pairs, key=lambda pair: -(pair.importance or 0.0))
            if pair.reference in ours
        ]
        if pairs:
            found.append({"name": against.name, "pairs": pairs})
    return found


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
    return {"name": name, "title": title, "caption": caption, "svg": svg, "failed": ""}
