"""Draw the face of a result in a notebook: verdict, latents, thumbnails of their walks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.show.plots.frames import frames, picture_shape, sheet, shrunk
from isoprobe.show.report import facts
from isoprobe.show.report.explorer import packed
from isoprobe.show.report.page import filled
from isoprobe.show.shown import COLLAPSED, TABLE, columns, said
from isoprobe.show.summary import by_importance, to_json
from isoprobe.show.voice import voice

if TYPE_CHECKING:
    from isoprobe.results.reader import Result
    from isoprobe.show.shown import Shown

#: rows of latents; the rest is counted
_ROWS = 20
#: pixels of a thumbnail, and thumbnails of a walk
_PIXELS, _STEPS = 28, 7
#: points of a curve
_POINTS = 64


def render(result: Result) -> str:
    """Return a result as a fragment of HTML, without script.

    Args:
        result: open or closed.

    Returns:
        The fragment; its colours are the notebook's own.
    """
    if result.closed or "overview" not in result:  # scores have no latents to show
        return filled("cell.html", plain=repr(result))
    document, shown = to_json(result), columns(result)
    order = by_importance(shown) or list(range(len(document["latents"])))
    known = [one for one in shown if one.place in TABLE]
    walks = _thumbnails(result)
    return filled(
        "cell.html",
        plain="",
        document=document,
        voice=voice(result),
        tops=facts.tops(result, document)[:5],
        columns=known,
        rows=[_row(j, known, walks) for j in order[:_ROWS]],
        left_out=max(0, len(order) - _ROWS),
        walks=bool(walks),
        groups={name: list(result[name]) for name in result.groups()},
    )


def _row(latent: int, known: list[Shown], walks: dict[int, dict[str, Any]]) -> dict[str, Any]:
    cells = [said(one.values[latent], one.form, dash="–") for one in known]
    collapsed = COLLAPSED in {one.words[latent] for one in known}
    return {"latent": latent, "cells": cells, "walk": walks.get(latent), "collapsed": collapsed}


def _thumbnails(result: Result) -> dict[int, dict[str, Any]]:
    """Walks by latent, each an image or the paths of three curves."""
    if "traversal" not in result:
        return {}
    group = result["traversal"]
    values = group["images_equal_y"].values
    kept = np.unique(np.linspace(0, values.shape[1] - 1, _STEPS).round().astype(int))
    values, latents = values[:, kept], group["latents"].values.tolist()
    pictures = frames(values, picture_shape(result))
    if pictures is not None:
        small = shrunk(pictures, _PIXELS)
        return {
            latent: {"image": packed(sheet(small[rank : rank + 1])), "curves": []}
            for rank, latent in enumerate(latents)
        }
    if values.ndim != 3 or values.shape[2] < 2:
        return {}
    return {
        latent: {"image": "", "curves": _curves(values[rank][[0, len(kept) // 2, -1]])}
        for rank, latent in enumerate(latents)
    }


def _curves(values: np.ndarray) -> list[str]:
    """Paths of an SVG of 120 by 28 units, one for each curve."""
    kept = np.unique(np.linspace(0, values.shape[1] - 1, _POINTS).round().astype(int))
    values = np.nan_to_num(values[:, kept].astype(float))
    low, high = float(values.min()), float(values.max())
    heights = 26 - 24 * (values - low) / max(high - low, 1e-12)
    across = np.linspace(1, 119, len(kept))
    return [
        "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(across, curve, strict=True))
        for curve in heights
    ]
