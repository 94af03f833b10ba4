"""Draw walks along every used latent as strips of a page, without script: a sprite, or curves."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np

from isoprobe.show.plots.frames import frames, picture_shape, sheet, shrunk
from isoprobe.show.report.explorer import packed
from isoprobe.show.shown import COLLAPSED, columns, said
from isoprobe.show.summary import by_importance

if TYPE_CHECKING:
    from isoprobe.results.reader import Result

#: longest side of a frame, pixels
_LARGEST = 64
#: points of a curve, and units of the drawing it lies in
_POINTS, _WIDTH, _HEIGHT = 96, 300.0, 56.0
#: first to last step, as the figures colour them
_ENDS = np.array([[0x00, 0x72, 0xB2], [0xD5, 0x5E, 0x00]])


def strips(
    result: Result, name: str = "walks", backwards: Collection[int] = ()
) -> dict[str, Any] | None:
    """Return the walks in equal steps of y, the most important latent first.

    Args:
        result: any.
        name: of the style's variable that holds the sprite.
        backwards: latents whose walks are shown from their last step to their first.

    Returns:
        ``name``, ``sprite`` (a data URI, empty for curves), and for each latent its number, words
        on it, and the style of its strip or its curves; None where there are no walks, or inputs
        are neither images nor vectors.
    """
    if "traversal" not in result:
        return None
    group = result["traversal"]
    values, latents = group["images_equal_y"].values.copy(), group["latents"].values.tolist()
    turned = [rank for rank, latent in enumerate(latents[: len(values)]) if latent in backwards]
    values[turned] = values[turned, ::-1]
    ranks = [rank for rank in _ranks(result, latents) if rank < len(values)]
    pictures = frames(values, picture_shape(result))
    if pictures is None and (values.ndim != 3 or values.shape[2] < 2):
        return None
    words = _words(result)
    rows: list[dict[str, Any]] = [
        {"latent": latents[rank], "words": words[latents[rank]]} for rank in ranks
    ]
    if pictures is None:
        for row, rank in zip(rows, ranks, strict=True):
            row |= {"style": "", "curves": _curves(values[rank])}
        return {"name": name, "sprite": "", "rows": rows}
    small = shrunk(pictures, _LARGEST)
    steps, height, width = small.shape[1:4]
    last = max(len(small) - 1, 1)
    for row, rank in zip(rows, ranks, strict=True):
        # a gap before each frame, over the sprite
        style = (
            f"aspect-ratio:{steps * width}/{height};"
            f"background-image:linear-gradient(90deg,var(--paper) 2px,#0000 2px),var(--{name});"
            f"background-size:calc(100%/{steps}) 100%,100% {100 * len(small)}%;"
            f"background-position:0 0,0 {100 * rank / last:g}%"
        )
        row |= {"style": style, "curves": []}
    return {"name": name, "sprite": packed(sheet(small)), "rows": rows}


def _ranks(result: Result, latents: list[int]) -> list[int]:
    """Places in the walks, the most important latent first; collapsed ones only where all are."""
    shown = columns(result)
    states = next((one.words for one in shown if one.place == "importance/state"), None)
    order = [latents.index(j) for j in by_importance(shown) if j in latents]
    used = [r for r in order if states is None or states[latents[r]] != COLLAPSED]
    return used or order or list(range(len(latents)))


def _words(result: Result) -> list[str]:
    """Importance and share of each latent, in words."""
    shown = {one.place: one for one in columns(result)}
    importance, share = shown.get("importance/exact"), shown.get("importance/share")
    if importance is None or share is None:
        return [""] * len(result["overview"]["active"].values)
    return [
        f"{said(value, importance.form)} · {said(part, '.1%')}"
        for value, part in zip(importance.values, share.values, strict=True)
    ]


def _curves(walk: np.ndarray) -> list[dict[str, str]]:
    """A path for each step, ``(step, size)``, from blue to orange."""
    kept = np.unique(np.linspace(0, walk.shape[1] - 1, _POINTS).round().astype(int))
    values = np.nan_to_num(walk[:, kept].astype(float))
    low, high = float(values.min()), float(values.max())
    heights = _HEIGHT - 2 - (_HEIGHT - 4) * (values - low) / max(high - low, 1e-12)
    across = np.linspace(1, _WIDTH - 1, len(kept))
    shares = np.linspace(0, 1, len(values))
    colours = np.rint(_ENDS[0] + shares[:, None] * (_ENDS[1] - _ENDS[0])).astype(int)
    return [
        {
            "d": "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(across, curve, strict=True)),
            "colour": "#{:02x}{:02x}{:02x}".format(*colour),
        }
        for curve, colour in zip(heights, colours, strict=True)
    ]
